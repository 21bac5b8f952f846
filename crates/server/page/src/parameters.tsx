// What goes with a question besides its words. Empty fields are left to the server.

import type { Props } from "./app.tsx";
import type { ClipSettings } from "./media.ts";
import { NO_PARAMETERS, type Parameters } from "./request.ts";

type NumberName = Exclude<keyof Parameters, "system" | "vl_high_resolution_images">;

const FIELDS: { name: NumberName; label: string; step: string; min?: string; max?: string }[] = [
  { name: "temperature", label: "Temperature", step: "0.1", min: "0" },
  { name: "top_p", label: "Top p", step: "0.05", min: "0", max: "1" },
  { name: "top_k", label: "Top k", step: "1", min: "0" },
  { name: "max_tokens", label: "Most tokens", step: "1", min: "1" },
  { name: "seed", label: "Seed", step: "1", min: "0" },
  { name: "presence_penalty", label: "Presence penalty", step: "0.1", min: "-2", max: "2" },
  { name: "repetition_penalty", label: "Repetition penalty", step: "0.05", min: "0" },
  { name: "min_pixels", label: "Fewest pixels", step: "784", min: "3136" },
  { name: "max_pixels", label: "Most pixels", step: "784", min: "3136" },
];

export function ParametersPanel({ conversation }: Props) {
  const { parameters, clip } = conversation;
  // Two fields may change before either is shown.
  const change = (changes: Partial<Parameters>) =>
    conversation.set({ parameters: { ...conversation.parameters, ...changes } });
  const changeClip = (changes: Partial<ClipSettings>) => conversation.set({ clip: { ...conversation.clip, ...changes } });
  return (
    <section class="panel parameters" id="parameters" aria-label="Parameters">
      <div class="field wide">
        <label for="system">System prompt</label>
        <textarea
          id="system"
          rows={2}
          value={parameters.system}
          onInput={(event) => change({ system: event.currentTarget.value })}
        />
      </div>
      {FIELDS.map(({ name, label, ...bounds }) => (
        <div class="field" key={name}>
          <label for={name}>{label}</label>
          <input
            id={name}
            type="number"
            inputMode="decimal"
            placeholder="default"
            value={parameters[name]}
            {...bounds}
            onInput={(event) => change({ [name]: event.currentTarget.value })}
          />
        </div>
      ))}
      <div class="field">
        <label for="clip-fps">Frames per second of clips</label>
        <input
          id="clip-fps"
          type="number"
          min="0.1"
          max="10"
          step="0.1"
          value={clip.fps}
          onInput={(event) => changeClip({ fps: Number(event.currentTarget.value) || 2 })}
        />
      </div>
      <div class="field">
        <label for="clip-most">Most frames of a clip</label>
        <input
          id="clip-most"
          type="number"
          min="4"
          max="512"
          step="1"
          value={clip.most}
          onInput={(event) => changeClip({ most: Number(event.currentTarget.value) || 64 })}
        />
      </div>
      <div class="field check">
        <input
          id="high-resolution"
          type="checkbox"
          checked={parameters.vl_high_resolution_images}
          onChange={(event) => change({ vl_high_resolution_images: event.currentTarget.checked })}
        />
        <label for="high-resolution">High resolution (vl_high_resolution_images)</label>
      </div>
      <button type="button" onClick={() => conversation.set({ parameters: { ...NO_PARAMETERS } })}>
        Reset
      </button>
    </section>
  );
}

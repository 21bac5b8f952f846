// The question as a program, to be copied.

import { useEffect, useRef, useState } from "preact/hooks";

import { LANGUAGES, shortened } from "./copy.ts";
import { base } from "./server.ts";
import type { TurnProps } from "./turn.tsx";

export function CopyDialog({ conversation, turn, close }: TurnProps & { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [index, setIndex] = useState(0);
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (dialog.current && !dialog.current.open) dialog.current.showModal();
  }, []);
  const language = LANGUAGES[index] ?? LANGUAGES[0];
  const { model, parameters, withKey } = conversation;
  const code = language.write({ base: base(), model, rounds: conversation.rounds(turn.id), parameters, withKey });
  return (
    <dialog ref={dialog} class="copy" aria-labelledby="copy-title" onClose={close}>
      <h2 id="copy-title">Copy as</h2>
      <div class="tabs" role="group" aria-label="Language">
        {LANGUAGES.map(({ id, name }, at) => (
          <button
            type="button"
            key={id}
            aria-pressed={at === index}
            onClick={() => {
              setIndex(at);
              setCopied(false);
            }}
          >
            {name}
          </button>
        ))}
      </div>
      <pre class="code" tabIndex={0} role="region" aria-label={`Program in ${language.name}`}>
        {shortened(code)}
      </pre>
      {withKey && (
        <p class="hint">
          It takes the key from the environment variable <code>OCELLUS_API_KEY</code>.
        </p>
      )}
      <div class="actions">
        <button
          type="button"
          class="main"
          data-copy={language.id}
          onClick={() => void copy(code, dialog.current ?? document.body).then(setCopied)}
        >
          {isCopied ? "Copied" : "Copy"}
        </button>
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
        <span class="only-spoken" role="status">
          {isCopied ? "Copied" : ""}
        </span>
      </div>
    </dialog>
  );
}

/** Pages that are not from this machine or not encrypted have no clipboard; the old way works there. */
async function copy(text: string, place: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "only-spoken";
    place.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

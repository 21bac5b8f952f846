// JSON that folds. Objects that are places in the picture are linked with it.

import { isPointed, linked } from "./answer.tsx";
import { seconds } from "./clip.ts";
import { colour } from "./palette.ts";
import { regionsOf } from "./regions.ts";
import type { TurnProps } from "./turn.tsx";

interface TreeProps extends TurnProps {
  value: unknown;
  /** The regions in this value, in the order in which their objects close. */
  regions: number[];
}

/** Deeper and longer values are folded at first. */
const OPEN_DEPTH = 3;
const OPEN_LENGTH = 60;
const DEEPEST = 40;

export function JsonTree(props: TreeProps) {
  const first = new Map<object, number>();
  let next = 0;
  // In the order of closing brackets, as the regions were found.
  const visit = (value: unknown, depth: number) => {
    if (typeof value !== "object" || value === null || depth > DEEPEST) return;
    for (const inner of Object.values(value)) visit(inner, depth + 1);
    if (Array.isArray(value)) return;
    const count = regionsOf(value).length;
    const region = props.regions[next];
    if (count > 0 && region !== undefined) first.set(value, region);
    next += count;
  };
  visit(props.value, 0);
  return (
    <div class="json" role="group" aria-label="JSON">
      <Node {...props} first={first} depth={0} />
    </div>
  );
}

interface NodeProps extends TreeProps {
  name?: string;
  first: Map<object, number>;
  depth: number;
}

function Node({ name, value, depth, ...rest }: NodeProps) {
  const key = name === undefined ? null : <span class="json-key">{name}: </span>;
  const isLeaf = typeof value !== "object" || value === null || depth > DEEPEST || isFlat(value);
  if (isLeaf) {
    const kind = value === null ? "null" : typeof value;
    return (
      <div class="json-leaf">
        {key}
        <span class={`json-${kind}`}>{JSON.stringify(value)}</span>
      </div>
    );
  }
  const isList = Array.isArray(value);
  const entries = Object.entries(value as object);
  const region = rest.first.get(value as object);
  const { conversation, turn } = rest;
  const summary = isList ? `[ ${entries.length} ]` : `{ ${entries.map(([inner]) => inner).join(", ")} }`;
  return (
    <details
      class={`json-node${region !== undefined && isPointed(conversation, turn, region) ? " pointed" : ""}`}
      open={depth < OPEN_DEPTH && entries.length <= OPEN_LENGTH}
      {...(region === undefined ? {} : linked(conversation, turn, region))}
    >
      <summary>
        {region !== undefined && (
          <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
            <rect width="10" height="10" rx="2" fill={colour(region)} />
          </svg>
        )}
        {key}
        <span class="json-summary">{summary}</span>
      </summary>
      {isList ? null : <Moments {...rest} value={value as object} />}
      {entries.map(([inner, item]) => (
        <Node {...rest} key={inner} name={isList ? undefined : inner} value={item} depth={depth + 1} />
      ))}
    </details>
  );
}

/** For an event of a clip: buttons that show when it begins and ends. */
function Moments({ conversation, turn, value }: TurnProps & { value: object }) {
  const clip = conversation.pictures(turn.id).findLast((picture) => picture.kind === "clip");
  const { start_time, end_time } = value as { start_time?: unknown; end_time?: unknown };
  const times = [seconds(start_time), seconds(end_time)].filter((time) => time !== null);
  if (!clip || times.length === 0) return null;
  return (
    <div class="moments">
      {times.map((time, index) => (
        <button
          type="button"
          class="chip"
          key={index}
          onClick={() => conversation.set({ moment: { seconds: time }, picture: clip.id, turn: turn.id })}
        >
          Show {time.toFixed(1)} s
        </button>
      ))}
    </div>
  );
}

/** Lists of numbers, such as the corners of a box, stand in one line. */
function isFlat(value: object): boolean {
  const items = Object.values(value);
  return items.length === 0 || (Array.isArray(value) && items.length <= 8 && items.every((item) => typeof item === "number"));
}

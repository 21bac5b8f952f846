// Boxes and points in an answer that may still grow. Each is given as soon as its own object, element or tag is
// complete; what is not complete, or no place at all, gives nothing.
//
// Three spellings are known: JSON objects with `bbox_2d`, `bbox`, `point_2d` or `point`, elements `<points x1= y1=>`, and
// QwenVL HTML's `data-bbox="x1 y1 x2 y2"`.

/** A place in a picture, in pixels of the size that the model saw. */
export interface Region {
  kind: "box" | "point";
  /** `[x1, y1, x2, y2]` from the upper left to the lower right, or `[x, y]`. */
  at: number[];
  label: string;
  source: "json" | "xml" | "html";
  /** Where its text begins and ends in the answer. */
  start: number;
  end: number;
}

/** An answer has no more than these; a model that repeats itself must not bring down its reader. */
const MOST = 500;
const LONGEST_LABEL = 80;
/** Nothing so far out is a place. */
const LARGEST = 1e6;

/** All regions that are complete, in the order in which they became so. */
export function regions(text: string): Region[] {
  const found = [...inJson(text), ...inXml(text), ...inHtml(text)];
  return found.sort((one, other) => one.end - other.end || one.start - other.start).slice(0, MOST);
}

/** The regions that this very JSON object is, its inner objects not counted. */
export function regionsOf(object: object): Pick<Region, "kind" | "at" | "label">[] {
  const found: Pick<Region, "kind" | "at" | "label">[] = [];
  const entries = Object.entries(object);
  for (const [key, value] of entries) {
    const kind = key === "bbox_2d" || key === "bbox" ? "box" : key === "point_2d" || key === "point" ? "point" : null;
    if (kind === null || !Array.isArray(value)) continue;
    const lists: unknown[] = value.length > 0 && value.every(Array.isArray) ? value : [value];
    for (const list of lists) {
      const at = place(kind, list as unknown[]);
      if (at) found.push({ kind, at, label: labelOf(entries) });
    }
  }
  return found;
}

function labelOf(entries: [string, unknown][]): string {
  const named = ["label", "name", "description", "text_content", "text", "alt"];
  const texts = entries.filter(([, value]) => typeof value === "string" && value !== "") as [string, string][];
  const best = named.map((name) => texts.find(([key]) => key === name)).find((entry) => entry) ?? texts[0];
  return short(best?.[1] ?? "");
}

function place(kind: "box" | "point", values: unknown[]): number[] | null {
  const numbers = values.map((value) => (typeof value === "string" && value.trim() !== "" ? Number(value) : value));
  if (numbers.length !== (kind === "box" ? 4 : 2)) return null;
  if (!numbers.every((value): value is number => typeof value === "number" && Math.abs(value) <= LARGEST)) return null;
  if (kind === "point") return numbers;
  const [x1, y1, x2, y2] = numbers as [number, number, number, number];
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

function short(label: string): string {
  const line = label.replace(/\s+/g, " ").trim();
  return line.length > LONGEST_LABEL ? `${line.slice(0, LONGEST_LABEL - 1)}…` : line;
}

/** Objects that enclose others are read when they close, so nothing longer than this is parsed again. */
const LONGEST_OBJECT = 20_000;
const DEEPEST = 64;

/** Every object that closes is parsed alone: the list around it may never end. */
function inJson(text: string): Region[] {
  const found: Region[] = [];
  const open: number[] = [];
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (inString) {
      if (character === "\\") index++;
      // No string of JSON goes over the end of a line, so a lone quote in prose ends there.
      else if (character === '"' || character === "\n") inString = false;
    } else if (character === '"') {
      inString = open.length > 0;
    } else if (character === "{") {
      open.push(index);
      if (open.length > DEEPEST) open.shift();
    } else if (character === "}") {
      const start = open.pop();
      if (start === undefined || index - start > LONGEST_OBJECT || found.length >= MOST) continue;
      const object = parsed(text.slice(start, index + 1));
      if (typeof object !== "object" || object === null) continue;
      for (const region of regionsOf(object)) found.push({ ...region, source: "json", start, end: index + 1 });
    }
  }
  return found;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const ELEMENT = /<(points?)\b([^<>]*?)(\/>|>([^<]*)<\/\1\s*>)/g;
const ATTRIBUTE = /([a-zA-Z][\w-]*)\s*=\s*("[^"]*"|'[^']*'|[^\s"'<>]+)/g;

/** The attributes of a tag, entities in their values replaced. */
function attributes(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name, value] of text.matchAll(ATTRIBUTE)) {
    if (name && value) found.set(name.toLowerCase(), entities(value.replace(/^["']|["']$/g, "")));
  }
  return found;
}

function entities(text: string): string {
  const known: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " " };
  return text.replace(/&(amp|lt|gt|quot|apos|nbsp);/g, (_, name: string) => known[name] ?? "");
}

/** An element has one point, or several with numbers behind the names of their attributes. */
function inXml(text: string): Region[] {
  const found: Region[] = [];
  for (const match of text.matchAll(ELEMENT)) {
    const all = attributes(match[2] ?? "");
    const label = short(all.get("alt") || entities(match[4] ?? ""));
    for (const name of all.keys()) {
      const number = /^x(\d*)$/.exec(name)?.[1];
      if (number === undefined) continue;
      const at = place("point", [all.get(name), all.get(`y${number}`)]);
      const start = match.index;
      if (at) found.push({ kind: "point", at, label, source: "xml", start, end: start + match[0].length });
    }
  }
  return found;
}

const TAG = /<([a-zA-Z][\w-]*)((?:\s+[\w-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))?)*)\s*\/?>/g;

function inHtml(text: string): Region[] {
  const found: Region[] = [];
  if (!text.includes("data-bbox")) return found;
  for (const match of text.matchAll(TAG)) {
    const numbers = attributes(match[2] ?? "").get("data-bbox")?.trim().split(/[\s,]+/);
    const at = numbers && place("box", numbers);
    if (!at) continue;
    const end = match.index + match[0].length;
    // What is inside comes later and is a name for what is complete already.
    const inside = entities(/^[^<]*/.exec(text.slice(end, end + 400))?.[0] ?? "").trim();
    const tag = (match[1] ?? "").toLowerCase();
    found.push({ kind: "box", at, label: short(inside ? `${tag}: ${inside}` : tag), source: "html", start: match.index, end });
  }
  return found;
}

// An answer's text, cut into what is shown in different ways: Markdown, JSON, points and QwenVL HTML.

export interface Piece {
  kind: "markdown" | "json" | "points" | "html";
  /** What is shown; fences are left out. */
  text: string;
  /** Where it begins and ends in the answer, fences included. */
  start: number;
  end: number;
  /** For JSON that is complete. */
  value?: unknown;
}

/** The pieces in their order. Of an answer that still grows the last piece may be of another kind later. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let at = 0;
  for (const fence of fences(text)) {
    found.push(...loose(text.slice(at, fence.start), at));
    found.push(...fenced(text, fence));
    at = fence.end;
  }
  found.push(...loose(text.slice(at), at));
  return found;
}

interface Fence {
  language: string;
  start: number;
  /** Of what is between the fences. */
  inner: [number, number];
  end: number;
}

/** Blocks between lines of three backticks; the last one may be open. The closing line may repeat the language. */
function fences(text: string): Fence[] {
  const found: Fence[] = [];
  const opening = /^[ \t]*```[ \t]*([\w-]*)[ \t]*(?:\n|$)/gm;
  for (let match = opening.exec(text); match; match = opening.exec(text)) {
    const start = match.index;
    const innerStart = start + match[0].length;
    const closing = /^[ \t]*```[^\n]*(?:\n|$)/gm;
    closing.lastIndex = innerStart;
    const close = closing.exec(text);
    const innerEnd = close?.index ?? text.length;
    const end = close ? close.index + close[0].length : text.length;
    found.push({ language: (match[1] ?? "").toLowerCase(), start, inner: [innerStart, innerEnd], end });
    if (end <= start) break;
    opening.lastIndex = end;
  }
  return found;
}

function fenced(text: string, fence: Fence): Piece[] {
  const inner = text.slice(...fence.inner);
  const { start, end } = fence;
  if (fence.language === "html" && isDocument(inner)) return [{ kind: "html", text: inner, start, end }];
  if (fence.language === "json" || (fence.language === "" && /^\s*[[{]/.test(inner))) {
    return [{ kind: "json", text: inner, start, end, value: parsed(inner) }];
  }
  if (fence.language === "xml" && /<points?\b/.test(inner)) return [{ kind: "points", text: inner, start, end }];
  return [{ kind: "markdown", text: text.slice(start, end), start, end }];
}

/** Whether this is a parsed page, and not a lesson on HTML. */
function isDocument(text: string): boolean {
  return /data-bbox\s*=/.test(text) || /^\s*(<!doctype html|<html\b|<body\b)/i.test(text);
}

/** Text outside of fences, at an offset of the answer. */
function loose(text: string, offset: number): Piece[] {
  if (text.trim() === "") return [];
  if (/^\s*(<!doctype html|<html\b|<body\b|<(?:h[1-6]|p|div|table|ul|ol)\b[^>]*data-bbox)/i.test(text)) {
    return [{ kind: "html", text, start: offset, end: offset + text.length }];
  }
  const found: Piece[] = [];
  const special = /^[ \t]*(?:\[(?=\s*[[{"\d\]-])|\{(?=\s*["}])|\[(?=\s*$)|\{(?=\s*$))|<points?\b[^<>]*?(?:\/>|>[^<]*<\/points?\s*>)/gm;
  let at = 0;
  const plain = (to: number) => {
    const part = text.slice(at, to);
    if (part.trim() !== "") found.push({ kind: "markdown", text: part, start: offset + at, end: offset + to });
  };
  for (let match = special.exec(text); match; match = special.exec(text)) {
    const start = match.index;
    if (match[0].trimStart().startsWith("<")) {
      plain(start);
      at = start + match[0].length;
      found.push({ kind: "points", text: match[0], start: offset + start, end: offset + at });
    } else {
      const end = balanced(text, start);
      const inner = text.slice(start, end ?? text.length);
      const value = end === null ? undefined : parsed(inner);
      // A list in brackets that is no JSON is text, such as a link at the beginning of a line.
      if (end !== null && value === undefined) continue;
      plain(start);
      at = end ?? text.length;
      found.push({ kind: "json", text: inner, start: offset + start, end: offset + at, value });
    }
    special.lastIndex = at;
  }
  plain(text.length);
  return found;
}

/** The end of the JSON value that begins with a bracket at or after `start`; null while it is open. */
function balanced(text: string, start: number): number | null {
  let depth = 0;
  let inString = false;
  for (let index = start; index < text.length; index++) {
    const character = text[index];
    if (inString) {
      if (character === "\\") index++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "[" || character === "{") depth++;
    else if ((character === "]" || character === "}") && --depth === 0) return index + 1;
  }
  return null;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// A question as a program that asks the same: curl, Python with either client, Node.js. Each runs as it is pasted.

import { body, pixels, settings, type Attachment, type Parameters, type Round } from "./request.ts";

export interface Asked {
  /** Where the server is, with a slash at the end. */
  base: string;
  model: string;
  rounds: Round[];
  parameters: Parameters;
  /** The server wants a key: programs take it from `OCELLUS_API_KEY`, and it is written nowhere. */
  withKey: boolean;
}

export const LANGUAGES = [
  { id: "curl", name: "curl", write: curl },
  { id: "python", name: "Python (openai)", write: python },
  { id: "dashscope", name: "Python (dashscope)", write: dashscope },
  { id: "node", name: "Node.js", write: node },
] as const;

/** Beyond so many characters of pictures, those that are files on the user's disk are read from there. Everything else
 * has no place but the program itself. */
const MOST_INLINE = 1_000_000;

/** Attachments that a program reads from files of these names. */
function files(rounds: Round[]): Map<Attachment, string> {
  const all = rounds.flatMap((round) => round.attachments);
  const length = all.flatMap((attachment) => attachment.data).reduce((sum, data) => sum + data.length, 0);
  const found = new Map<Attachment, string>();
  if (length > MOST_INLINE) for (const one of all) if (one.isFile) found.set(one, one.name);
  return found;
}

function mime(attachment: Attachment): string {
  return /^data:([^;,]*)/.exec(attachment.data[0] ?? "")?.[1] || "image/png";
}

/** The rounds with a mark in place of each picture that is a file, and the marks. */
function marked(rounds: Round[]): { rounds: Round[]; marks: { mark: string; attachment: Attachment; name: string }[] } {
  const byFile = files(rounds);
  const marks: { mark: string; attachment: Attachment; name: string }[] = [];
  const replaced = rounds.map((round) => ({
    ...round,
    attachments: round.attachments.map((attachment) => {
      const name = byFile.get(attachment);
      if (name === undefined) return attachment;
      const mark = `ocellus:file:${marks.length}:`;
      marks.push({ mark, attachment, name });
      return { ...attachment, data: [mark] };
    }),
  }));
  return { rounds: replaced, marks };
}

function fileNote(names: string[], comment: string): string {
  return names.length === 0 ? "" : `${comment} Run this in the folder with ${names.join(", ")}.\n`;
}

/** The body comes from a here-document: a shell's arguments are shorter than pictures. */
function curl(asked: Asked): string {
  const { rounds, marks } = marked(asked.rounds);
  const request = body(asked.model, rounds, asked.parameters);
  let json = JSON.stringify({ ...request, stream: true }, null, 1);
  const key = asked.withKey ? ' -H "Authorization: Bearer $OCELLUS_API_KEY"' : "";
  let mark = "'OCELLUS_REQUEST'";
  if (marks.length > 0) {
    // Not quoted, so that the shell reads the files; all else that it would replace is escaped.
    mark = "OCELLUS_REQUEST";
    json = json.replace(/[\\$`]/g, "\\$&");
    for (const { mark, attachment, name } of marks) {
      const file = name.replace(/'/g, "'\\''");
      json = json.replace(mark, () => `data:${mime(attachment)};base64,$(base64 < '${file}' | tr -d '\\n')`);
    }
  }
  return (
    fileNote(marks.map(({ name }) => name), "#") +
    `curl -sSN ${asked.base}v1/chat/completions -H 'Content-Type: application/json'${key} --data-binary @- <<${mark}\n` +
    `${json}\nOCELLUS_REQUEST\n`
  );
}

/** A value as Python writes it. */
export function pythonLiteral(value: unknown, indent = 0): string {
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  // JSON's escapes are Python's, but for surrogate pairs, which JSON.stringify leaves as characters.
  if (typeof value === "number" || typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((item) => `${inner}${pythonLiteral(item, indent + 4)},\n`).join("")}${outer}]`;
  }
  const entries = Object.entries(value as object).filter(([, item]) => item !== undefined);
  if (entries.length === 0) return "{}";
  const lines = entries.map(([key, item]) => `${inner}${JSON.stringify(key)}: ${pythonLiteral(item, indent + 4)},\n`);
  return `{\n${lines.join("")}${outer}}`;
}

const PYTHON_FILE = `def picture(name, kind):
    """A picture file as a data URI."""
    return f"data:{kind};base64," + base64.b64encode(pathlib.Path(name).read_bytes()).decode()


`;

function pythonFiles(text: string, marks: { mark: string; attachment: Attachment; name: string }[]): string {
  for (const { mark, attachment, name } of marks) {
    text = text.replace(JSON.stringify(mark), () => `picture(${JSON.stringify(name)}, ${JSON.stringify(mime(attachment))})`);
  }
  return text;
}

function pythonImports(marks: unknown[], withKey: boolean): string {
  const names = [...(marks.length > 0 ? ["base64"] : []), ...(withKey ? ["os"] : []), ...(marks.length > 0 ? ["pathlib"] : [])];
  return names.length === 0 ? "" : `${names.map((name) => `import ${name}\n`).join("")}\n`;
}

/** What the client's own function has an argument for; all else goes under `extra_body`. */
const OPENAI_ARGUMENTS = ["temperature", "top_p", "max_tokens", "seed", "presence_penalty"];

function python(asked: Asked): string {
  const { rounds, marks } = marked(asked.rounds);
  const { model, messages, ...others } = body(asked.model, rounds, asked.parameters);
  const own = Object.entries(others).filter(([name]) => OPENAI_ARGUMENTS.includes(name));
  const extra = Object.entries(others).filter(([name]) => !OPENAI_ARGUMENTS.includes(name));
  const lines = own.map(([name, value]) => `    ${name}=${pythonLiteral(value, 4)},\n`);
  if (extra.length > 0) lines.push(`    extra_body=${pythonLiteral(Object.fromEntries(extra), 4)},\n`);
  const key = asked.withKey ? 'os.environ["OCELLUS_API_KEY"]' : '"none"';
  return (
    `# pip install openai\n${fileNote(marks.map(({ name }) => name), "#")}${pythonImports(marks, asked.withKey)}` +
    `from openai import OpenAI\n\n${marks.length > 0 ? `\n${PYTHON_FILE}` : ""}` +
    `client = OpenAI(base_url=${JSON.stringify(`${asked.base}v1`)}, api_key=${key})\n` +
    `stream = client.chat.completions.create(\n    model=${JSON.stringify(model)},\n` +
    `    messages=${pythonFiles(pythonLiteral(messages, 4), marks)},\n${lines.join("")}    stream=True,\n)\n` +
    `for chunk in stream:\n    print(chunk.choices[0].delta.content or "", end="", flush=True)\nprint()\n`
  );
}

function dashscope(asked: Asked): string {
  const { rounds, marks } = marked(asked.rounds);
  const limits = pixels(asked.parameters);
  const messages: unknown[] = [];
  if (asked.parameters.system.trim() !== "") {
    messages.push({ role: "system", content: [{ text: asked.parameters.system }] });
  }
  for (const round of rounds) {
    const media = round.attachments.map((one) =>
      one.kind === "clip" ? { video: one.data, fps: one.fps, ...limits } : { image: one.data[0], ...limits },
    );
    messages.push({ role: "user", content: [...media, { text: round.question }] });
    if (round.answer) messages.push({ role: "assistant", content: [{ text: round.answer }] });
  }
  const lines = Object.entries(settings(asked.parameters)).map(([name, value]) => `    ${name}=${pythonLiteral(value)},\n`);
  const key = asked.withKey ? 'os.environ["OCELLUS_API_KEY"]' : '"none"';
  return (
    `# pip install dashscope\n${fileNote(marks.map(({ name }) => name), "#")}${pythonImports(marks, asked.withKey)}` +
    `import dashscope\n\n${marks.length > 0 ? `\n${PYTHON_FILE}` : ""}` +
    `dashscope.base_http_api_url = ${JSON.stringify(`${asked.base}api/v1`)}\n` +
    `stream = dashscope.MultiModalConversation.call(\n    api_key=${key},\n    model=${JSON.stringify(asked.model)},\n` +
    `    messages=${pythonFiles(pythonLiteral(messages, 4), marks)},\n${lines.join("")}` +
    `    stream=True,\n    incremental_output=True,\n)\n` +
    `for chunk in stream:\n    if chunk.status_code != 200:\n        raise SystemExit(chunk.message)\n` +
    `    for part in chunk.output.choices[0].message.content or []:\n` +
    `        print(part.get("text", ""), end="", flush=True)\nprint()\n`
  );
}

function node(asked: Asked): string {
  const { rounds, marks } = marked(asked.rounds);
  let json = JSON.stringify({ ...body(asked.model, rounds, asked.parameters), stream: true }, null, 2);
  for (const { mark, attachment, name } of marks) {
    const read = `picture(${JSON.stringify(name)}, ${JSON.stringify(mime(attachment))})`;
    json = json.replace(JSON.stringify(mark), () => read);
  }
  const reader =
    marks.length === 0
      ? ""
      : 'const picture = (name, kind) => `data:${kind};base64,${readFileSync(name, "base64")}`;\n';
  const key = asked.withKey ? "process.env.OCELLUS_API_KEY" : '"none"';
  return (
    `// npm install openai; save this as ask.mjs and run: node ask.mjs\n${fileNote(marks.map(({ name }) => name), "//")}` +
    `${marks.length === 0 ? "" : 'import { readFileSync } from "node:fs";\n'}import OpenAI from "openai";\n\n${reader}` +
    `const client = new OpenAI({ baseURL: ${JSON.stringify(`${asked.base}v1`)}, apiKey: ${key} });\n` +
    `const stream = await client.chat.completions.create(${json});\n` +
    `for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\nconsole.log();\n`
  );
}

/** For reading: data URIs cut short. */
export function shortened(code: string): string {
  return code.replace(/(data:[\w/+.-]+;base64,[A-Za-z0-9+/]{24})[A-Za-z0-9+/=]{40,}/g, "$1…");
}

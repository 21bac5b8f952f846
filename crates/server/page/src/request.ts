// The body of a request, from a conversation and the parameters that are set.

/** A picture, or the frames of a clip. */
export interface Attachment {
  id: string;
  kind: "image" | "clip";
  name: string;
  /** Data URIs: one for a picture. */
  data: string[];
  width: number;
  height: number;
  fps?: number;
  /** The file is sent as it is, byte for byte, so that a program can read it from the disk under its name. */
  isFile: boolean;
  /** This browser can show it. */
  isShown: boolean;
}

export interface Round {
  question: string;
  attachments: Attachment[];
  /** What the model said; absent for the round that is asked for. */
  answer?: string;
}

/** As typed: an empty text leaves a parameter to the server. */
export interface Parameters {
  system: string;
  temperature: string;
  top_p: string;
  top_k: string;
  max_tokens: string;
  seed: string;
  presence_penalty: string;
  repetition_penalty: string;
  min_pixels: string;
  max_pixels: string;
  vl_high_resolution_images: boolean;
}

export const NO_PARAMETERS: Parameters = {
  system: "",
  temperature: "",
  top_p: "",
  top_k: "",
  max_tokens: "",
  seed: "",
  presence_penalty: "",
  repetition_penalty: "",
  min_pixels: "",
  max_pixels: "",
  vl_high_resolution_images: false,
};

/** Parameters beside the messages, in the order in which they are written. */
export const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "max_tokens",
  "seed",
  "presence_penalty",
  "repetition_penalty",
] as const;

export type Part =
  | { type: "text"; text: string }
  | { type: "image_url"; image_url: { url: string }; min_pixels?: number; max_pixels?: number }
  | { type: "video"; video: string[]; fps?: number; min_pixels?: number; max_pixels?: number };

export interface Message {
  role: "system" | "user" | "assistant";
  content: string | Part[];
}

export interface Body {
  model: string;
  messages: Message[];
  [parameter: string]: unknown;
}

/** What to ask. Text that is no number is sent as it is: the server says best what is wrong with it. */
export function body(model: string, rounds: Round[], parameters: Parameters): Body {
  const messages: Message[] = [];
  if (parameters.system.trim() !== "") messages.push({ role: "system", content: parameters.system });
  for (const round of rounds) {
    messages.push({ role: "user", content: content(round, parameters) });
    if (round.answer) messages.push({ role: "assistant", content: round.answer });
  }
  return { model, messages, ...settings(parameters) };
}

/** The parameters that are set, beside the messages. */
export function settings(parameters: Parameters): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const name of NUMBERS) {
    const value = numberOrText(parameters[name]);
    if (value !== undefined) found[name] = value;
  }
  if (parameters.vl_high_resolution_images) found.vl_high_resolution_images = true;
  return found;
}

/** How large the model may see a picture. */
export function pixels(parameters: Parameters): { min_pixels?: number; max_pixels?: number } {
  const found: Record<string, unknown> = {};
  for (const name of ["min_pixels", "max_pixels"] as const) {
    const value = numberOrText(parameters[name]);
    if (value !== undefined) found[name] = value;
  }
  return found;
}

function content(round: Round, parameters: Parameters): string | Part[] {
  if (round.attachments.length === 0) return round.question;
  const limits = pixels(parameters);
  const parts = round.attachments.map((attachment): Part =>
    attachment.kind === "clip"
      ? { type: "video", video: attachment.data, fps: attachment.fps, ...limits }
      : { type: "image_url", image_url: { url: attachment.data[0] ?? "" }, ...limits },
  );
  return [...parts, { type: "text", text: round.question }];
}

function numberOrText(text: string): number | string | undefined {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  const number = Number(trimmed);
  return Number.isFinite(number) ? number : trimmed;
}

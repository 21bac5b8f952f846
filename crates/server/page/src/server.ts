// Calls to the server. All go to where the page came from; addresses are relative, so that it works below a path too.

import { events } from "./events.ts";
import type { Body } from "./request.ts";
import type { SeenMedia } from "./scale.ts";

/** A refusal, with the server's own sentence. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

/** What a stream tells, piece by piece. */
export interface Told {
  text?: string;
  media?: SeenMedia[];
  usage?: Usage;
  reason?: string;
}

/** With a slash at the end. */
export function base(): string {
  return new URL(".", document.baseURI).href;
}

function headers(key: string): Record<string, string> {
  return key === "" ? {} : { Authorization: `Bearer ${key}` };
}

export type Readiness = "ready" | "loading" | "away";

export async function readiness(): Promise<Readiness> {
  const answer = await fetch("ready", { cache: "no-store" }).catch(() => null);
  if (!answer) return "away";
  return answer.ok ? "ready" : "loading";
}

/** The names that the model answers to, its own first. */
export async function models(key: string): Promise<string[]> {
  const answer = await call("v1/models", { headers: headers(key) });
  const { data } = (await answer.json()) as { data: { id: string }[] };
  return data.map((model) => model.id);
}

/** Asks, and gives what comes in until the answer is over or `signal` stops it. */
export async function* ask(body: Body, key: string, signal: AbortSignal): AsyncGenerator<Told> {
  const answer = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!answer.body) throw new Refused("The answer has no body.", answer.status);
  let isOver = false;
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new Refused(chunk.error.message, answer.status);
    const choice = chunk.choices?.[0];
    if (choice?.finish_reason) isOver = true;
    yield {
      text: choice?.delta?.content || undefined,
      media: chunk.ocellus?.media,
      usage: chunk.usage ?? undefined,
      reason: choice?.finish_reason ?? undefined,
    };
  }
  if (!isOver) throw new Refused("The server ended the answer early.", answer.status);
}

interface Chunk {
  choices?: { delta?: { content?: string }; finish_reason?: string | null }[];
  usage?: Usage | null;
  ocellus?: { media: SeenMedia[] };
  error?: { message: string };
}

async function call(path: string, init: RequestInit): Promise<Response> {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", ...init }).catch((error: Error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server can't be reached.", 0);
  });
  if (answer.ok) return answer;
  const text = await answer.text().catch(() => "");
  throw new Refused(sentence(text) ?? `The server answered ${answer.status}.`, answer.status);
}

function sentence(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { error?: { message?: string } }).error?.message;
  } catch {
    return undefined;
  }
}

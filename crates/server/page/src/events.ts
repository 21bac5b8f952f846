// Server-sent events: bytes of an answer in, the data of each event out.

/** Takes text in any pieces and gives the data of the events that are complete. */
export class EventReader {
  private rest = "";
  private data: string[] = [];

  /** Comments, such as the pings of a busy server, and fields other than `data` give nothing. */
  push(text: string): string[] {
    const events: string[] = [];
    // A carriage return at the end may belong to a line feed that is still to come.
    const held = text.endsWith("\r") ? "\r" : "";
    const lines = (this.rest + text.slice(0, text.length - held.length)).split(/\r\n|\n|\r/);
    this.rest = (lines.pop() ?? "") + held;
    for (const line of lines) {
      if (line === "") {
        if (this.data.length > 0) events.push(this.data.join("\n"));
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
      }
    }
    return events;
  }
}

/** The data of the events of a body, as they come in. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const lines = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* lines.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Also when whoever reads has had enough: the connection is closed, and the server's place is free.
    await reader.cancel().catch(() => undefined);
  }
}

// What the page knows: the conversation, its pictures, what is being asked, and what the pointer is over. Views read it
// and call its methods; it tells them when to look again.

import { attach, newId, sampleAttachments, type ClipSettings, type Sample } from "./media.ts";
import { loadFrameStyle } from "./markdown.ts";
import { regions, type Region } from "./regions.ts";
import { NO_PARAMETERS, body, type Attachment, type Body, type Parameters, type Round } from "./request.ts";
import type { SeenMedia } from "./scale.ts";
import { Refused, ask, models, readiness, type Readiness, type Usage } from "./server.ts";

export interface Answer {
  text: string;
  regions: Region[];
  /** How much of the text the regions are of. */
  readTo: number;
  status: "waiting" | "streaming" | "done" | "stopped" | "failed";
  /** Why it failed, in the server's words. */
  error?: string;
  /** Of all pictures of the conversation up to here. */
  media: SeenMedia[];
  usage?: Usage;
  reason?: string;
  /** Milliseconds from the question to the first word, and from there to the last. */
  first?: number;
  rest?: number;
}

export interface Turn {
  id: string;
  question: string;
  attachments: Attachment[];
  answer: Answer;
}

/** A region of an answer. */
export interface Pointed {
  turn: string;
  region: number;
}

const KEY = "ocellus-key";

export class Conversation {
  server: Readiness | "unknown" = "unknown";
  model = "";
  key = "";
  /** Why a key is asked for, or "" when none is. */
  keyAsked = "";
  /** Requests have needed the key. */
  withKey = false;
  parameters: Parameters = { ...NO_PARAMETERS };
  clip: ClipSettings = { fps: 2, most: 64 };
  samples: Sample[] = [];
  turns: Turn[] = [];
  draft = "";
  draftAttachments: Attachment[] = [];
  /** Files that are being read. */
  reading = 0;
  /** What went wrong outside of an answer. */
  notice = "";
  /** For screen readers. */
  said = "";
  /** The picture and the turn whose regions are drawn on it. */
  picture: string | null = null;
  turn: string | null = null;
  pointed: Pointed | null = null;
  /** The moment of a clip that is to be shown, in seconds; a new object for each wish. */
  moment: { seconds: number } | null = null;

  /** Milliseconds that the views took to show the last change. */
  cost = 0;

  private lentSystem = "";
  private running: AbortController | null = null;
  private listeners = new Set<() => void>();
  private scheduled = false;

  constructor() {
    try {
      // Kept no longer than the tab.
      this.key = sessionStorage.getItem(KEY) ?? "";
    } catch {
      // A browser that keeps nothing asks again.
    }
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Changes are shown once for each frame of the screen, however many words come in; when a long answer takes longer to
   * show than that, most of the time is still left for the user. */
  changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    const show = () => {
      if (!this.scheduled) return;
      this.scheduled = false;
      const answer = this.turns.at(-1)?.answer;
      if (answer && answer.text.length !== answer.readTo) {
        answer.regions = regions(answer.text);
        answer.readTo = answer.text.length;
      }
      for (const listener of this.listeners) listener();
    };
    if (this.cost > 8) setTimeout(show, 3 * this.cost);
    else {
      requestAnimationFrame(show);
      // A tab in the background has no frames.
      setTimeout(show, 200);
    }
  }

  set(changes: Partial<Conversation>): void {
    Object.assign(this, changes);
    this.changed();
  }

  /** Waits for the model, then asks for its name and the examples. */
  async start(): Promise<void> {
    for (;;) {
      this.set({ server: await readiness() });
      if (this.server === "ready") break;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    await Promise.all([this.meet(), this.loadSamples(), loadFrameStyle()]);
  }

  private async loadSamples(): Promise<void> {
    const answer = await fetch("page/samples/samples.json").catch(() => null);
    if (answer?.ok) this.set({ samples: (await answer.json()) as Sample[] });
  }

  /** Learns the model's name, for which a key may be needed. */
  async meet(): Promise<void> {
    try {
      const names = await models(this.key);
      this.set({ model: names[0] ?? "", keyAsked: "", withKey: this.key !== "" });
    } catch (error) {
      this.fail(error);
    }
  }

  useKey(key: string): Promise<void> {
    try {
      sessionStorage.setItem(KEY, key);
    } catch {
      // Then only this page knows it.
    }
    this.set({ key });
    return this.meet();
  }

  private fail(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof Refused && error.status === 401) this.set({ keyAsked: message, said: message });
    else this.set({ notice: message, said: message });
  }

  async addFiles(files: Iterable<File>): Promise<void> {
    const list = [...files];
    if (list.length === 0) return;
    this.set({ reading: this.reading + list.length, notice: "" });
    for (const file of list) {
      try {
        this.draftAttachments = [...this.draftAttachments, await attach(file, this.clip)];
        this.said = `${file.name} added`;
      } catch (error) {
        this.fail(error);
      }
      this.set({ reading: this.reading - 1 });
    }
  }

  removeAttachment(id: string): void {
    this.set({ draftAttachments: this.draftAttachments.filter((attachment) => attachment.id !== id) });
  }

  get isRunning(): boolean {
    return this.running !== null;
  }

  get canAsk(): boolean {
    return this.server === "ready" && !this.isRunning && this.reading === 0 && this.draft.trim() !== "";
  }

  async send(): Promise<void> {
    if (!this.canAsk) return;
    const turn = newTurn(this.draft.trim(), this.draftAttachments);
    this.set({ draft: "", draftAttachments: [], turns: [...this.turns, turn] });
    await this.run(turn);
  }

  /** Sets the system prompt that a recipe or an example needs. One that needs none takes away what another has set, but
   * not what the user has typed. */
  lendSystem(system: string | undefined): void {
    const isLent = this.parameters.system === this.lentSystem;
    if (system === undefined && !isLent) return;
    this.lentSystem = system ?? "";
    this.set({ parameters: { ...this.parameters, system: this.lentSystem } });
  }

  /** Begins anew with an example. */
  async trySample(sample: Sample): Promise<void> {
    if (this.isRunning || this.server !== "ready") return;
    try {
      const attachments = await sampleAttachments(sample);
      this.clear();
      this.lendSystem(sample.system);
      const turn = newTurn(sample.prompt, attachments);
      this.set({ turns: [turn] });
      await this.run(turn);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Asks the question of a turn again, in other words if given; what came after it is forgotten. */
  async again(id: string, question?: string): Promise<void> {
    if (this.isRunning) return;
    const index = this.turns.findIndex((turn) => turn.id === id);
    const old = this.turns[index];
    if (!old) return;
    const turn = newTurn(question?.trim() || old.question, old.attachments);
    this.set({ turns: [...this.turns.slice(0, index), turn] });
    await this.run(turn);
  }

  /** The server notices that nobody reads any more, and has the place free for the next question. */
  stop(): void {
    this.running?.abort();
  }

  clear(): void {
    this.stop();
    this.set({ turns: [], notice: "", picture: null, turn: null, pointed: null, moment: null, said: "" });
  }

  private async run(turn: Turn): Promise<void> {
    const { answer } = turn;
    const controller = new AbortController();
    this.running = controller;
    const own = turn.attachments[0] ?? this.pictures(turn.id).at(-1);
    this.set({ notice: "", turn: turn.id, picture: own?.id ?? null, pointed: null, moment: null, said: "Asked" });
    const asked = performance.now();
    let first = 0;
    let last = 0;
    try {
      for await (const told of ask(this.body(turn.id), this.key, controller.signal)) {
        if (told.media) answer.media = told.media;
        if (told.usage) answer.usage = told.usage;
        if (told.reason) answer.reason = told.reason;
        if (told.text) {
          last = performance.now();
          first ||= last;
          answer.first = first - asked;
          answer.rest = last - first;
          answer.text += told.text;
          answer.status = "streaming";
        }
        this.changed();
      }
      answer.status = "done";
      this.said = `Answer: ${answer.text.slice(0, 600)}`;
    } catch (error) {
      if (controller.signal.aborted) {
        answer.status = "stopped";
        this.said = "Stopped";
      } else {
        answer.status = "failed";
        answer.error = error instanceof Error ? error.message : String(error);
        if (error instanceof Refused && error.status === 401) this.keyAsked = answer.error;
        // The alert beside the answer is spoken.
        this.said = "";
      }
    } finally {
      if (this.running === controller) this.running = null;
      this.changed();
    }
  }

  /** The turns up to one, with their answers but its own. */
  rounds(id: string): Round[] {
    const index = this.turns.findIndex((turn) => turn.id === id);
    return this.turns.slice(0, index + 1).map((turn, at) => ({
      question: turn.question,
      attachments: turn.attachments,
      answer: at < index ? turn.answer.text : undefined,
    }));
  }

  private body(id: string): Body {
    return body(this.model, this.rounds(id), this.parameters);
  }

  /** All pictures up to a turn, in the order of the prompt: the order in which the server tells of them. */
  pictures(until?: string | null): Attachment[] {
    const index = until ? this.turns.findIndex((turn) => turn.id === until) : -1;
    const turns = index < 0 ? this.turns : this.turns.slice(0, index + 1);
    return turns.flatMap((turn) => turn.attachments);
  }

  /** What the server told of a picture in a turn. */
  seen(turn: Turn | undefined, picture: string | null): SeenMedia | undefined {
    const index = this.pictures(turn?.id).findIndex((attachment) => attachment.id === picture);
    return index < 0 ? undefined : turn?.answer.media[index];
  }

  get shownTurn(): Turn | undefined {
    return this.turns.find((turn) => turn.id === this.turn) ?? this.turns.at(-1);
  }

  get shownPicture(): Attachment | undefined {
    const all = [...this.pictures(), ...this.draftAttachments];
    return all.find((attachment) => attachment.id === this.picture) ?? all.at(-1);
  }
}

function newTurn(question: string, attachments: Attachment[]): Turn {
  return { id: newId(), question, attachments, answer: { text: "", regions: [], readTo: 0, status: "waiting", media: [] } };
}

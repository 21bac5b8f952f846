// An answer: its pieces, its regions as buttons that are linked with the picture, and its numbers.

import { useEffect, useMemo, useRef } from "preact/hooks";

import type { Conversation, Turn } from "./conversation.ts";
import { JsonTree } from "./json_tree.tsx";
import { documentForFrame, markdown } from "./markdown.ts";
import { colour } from "./palette.ts";
import { pieces, type Piece } from "./pieces.ts";
import { placed } from "./scale.ts";
import type { TurnProps } from "./turn.tsx";

export function AnswerView({ conversation, turn }: TurnProps) {
  const { answer } = turn;
  const all = useMemo(() => pieces(answer.text), [answer.text]);
  const isRunning = answer.status === "waiting" || answer.status === "streaming";
  return (
    <div class="answer" data-status={answer.status} aria-busy={isRunning}>
      {answer.status === "waiting" && <p class="waiting">Looking…</p>}
      {all.map((piece, index) => (
        <PieceView key={index} conversation={conversation} turn={turn} piece={piece} />
      ))}
      <Regions conversation={conversation} turn={turn} />
      {answer.status === "stopped" && <p class="hint">Stopped.</p>}
      {answer.status === "done" && answer.text === "" && <p class="hint">The answer is empty.</p>}
      {answer.reason === "length" && <p class="hint">The answer ends here because it reached its most tokens.</p>}
      {answer.error !== undefined && (
        <p class="error" role="alert">
          {answer.error}
        </p>
      )}
      <Numbers conversation={conversation} turn={turn} />
    </div>
  );
}

function Markdown({ text }: { text: string }) {
  const html = useMemo(() => markdown(text), [text]);
  return <div class="markdown" dangerouslySetInnerHTML={{ __html: html }} />;
}

function PieceView({ conversation, turn, piece }: TurnProps & { piece: Piece }) {
  switch (piece.kind) {
    case "markdown":
      return <Markdown text={piece.text} />;
    case "json": {
      if (piece.value === undefined) return <pre class="code">{piece.text}</pre>;
      const all = turn.answer.regions.map((region, index) => ({ region, index }));
      const inside = all.filter(({ region }) => region.source === "json" && region.start >= piece.start && region.end <= piece.end);
      return <JsonTree conversation={conversation} turn={turn} value={piece.value} regions={inside.map(({ index }) => index)} />;
    }
    case "points":
      return <pre class="code">{piece.text.trim()}</pre>;
    case "html":
      return <DocumentFrame html={piece.text} isOver={turn.answer.status !== "streaming"} />;
  }
}

/** How often a page that still grows is shown anew. */
const FRAME_MS = 600;

/** A parsed page in a frame that may do nothing: no scripts, no forms, no origin. */
function DocumentFrame({ html, isOver }: { html: string; isOver: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const latest = useRef(html);
  const shown = useRef("");
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  latest.current = html;
  useEffect(() => {
    const show = () => {
      timer.current = undefined;
      if (!place.current || shown.current === latest.current) return;
      shown.current = latest.current;
      const frame = place.current.querySelector("iframe") ?? document.createElement("iframe");
      // Before it has any content, and in a way that no framework reads in its own way.
      frame.setAttribute("sandbox", "");
      frame.title = "The parsed document";
      frame.srcdoc = documentForFrame(latest.current);
      if (!frame.isConnected) place.current.append(frame);
    };
    if (isOver) {
      clearTimeout(timer.current);
      show();
    } else timer.current ??= setTimeout(show, FRAME_MS);
  }, [html, isOver]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <div class="document">
      <div class="frame" ref={place} />
      <details>
        <summary>Source</summary>
        <pre class="code">{html.trim()}</pre>
      </details>
    </div>
  );
}

/** What connects an element with a region: the pointer or the focus on it marks the region in the picture. */
export function linked(conversation: Conversation, turn: Turn, region: number) {
  const point = () => conversation.set({ pointed: { turn: turn.id, region }, turn: turn.id });
  const leave = () => conversation.set({ pointed: null });
  return { "data-region": region, onMouseEnter: point, onMouseLeave: leave, onFocus: point, onBlur: leave };
}

export function isPointed(conversation: Conversation, turn: Turn, region: number): boolean {
  const { pointed } = conversation;
  return pointed?.turn === turn.id && pointed.region === region;
}

function Regions({ conversation, turn }: TurnProps) {
  const { regions } = turn.answer;
  if (regions.length === 0) return null;
  const picture = conversation.shownPicture;
  const media = conversation.seen(turn, picture?.id ?? null);
  const size = media?.original ?? { width: picture?.width ?? 0, height: picture?.height ?? 0 };
  const several = conversation.pictures(turn.id).length > 1;
  return (
    <>
      <ul class="regions" aria-label="Places in the picture">
        {regions.map((region, index) => {
          const at = placed(region, media, size).map(Math.round);
          return (
            <li key={index}>
              <button
                type="button"
                class={`chip${isPointed(conversation, turn, index) ? " pointed" : ""}`}
                title={`${region.kind} ${at.join(", ")} in pixels of the picture`}
                {...linked(conversation, turn, index)}
              >
                <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">
                  {region.kind === "box" ? (
                    <rect width="10" height="10" rx="2" fill={colour(index)} />
                  ) : (
                    <circle cx="5" cy="5" r="5" fill={colour(index)} />
                  )}
                </svg>
                {region.label || region.kind} <span class="at">{at.join(", ")}</span>
              </button>
            </li>
          );
        })}
      </ul>
      {several && (
        <p class="hint">
          An answer doesn't say which picture a place is in: places are drawn in the picture that you choose.
        </p>
      )}
    </>
  );
}

function Numbers({ conversation, turn }: TurnProps) {
  const { usage, first, rest, media } = turn.answer;
  const parts: string[] = [];
  if (usage) parts.push(`${usage.prompt_tokens} tokens in`, `${usage.completion_tokens} out`);
  if (first !== undefined) parts.push(`first word after ${(first / 1000).toFixed(2)} s`);
  // Of a few milliseconds no speed can be told.
  if (usage && rest !== undefined && rest > 15 && usage.completion_tokens > 1) {
    const speed = (usage.completion_tokens - 1) / (rest / 1000);
    parts.push(`${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`);
  }
  const own = media.slice(conversation.pictures(turn.id).length - turn.attachments.length);
  for (const one of own.slice(0, 4)) {
    const size = ({ width, height }: { width: number; height: number }) => `${width}×${height}`;
    const frames = one.frames > 1 ? `${one.frames} frames of ` : "";
    parts.push(`seen as ${frames}${size(one.seen)} (was ${size(one.original)}), ${one.tokens} tokens`);
  }
  if (own.length > 4) parts.push(`and ${own.length - 4} more pictures`);
  if (parts.length === 0) return null;
  return <p class="numbers">{parts.join(" · ")}</p>;
}

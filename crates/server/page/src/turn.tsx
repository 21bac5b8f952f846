// One round: the question with its pictures, the answer, and what can be done with both.

import { useState } from "preact/hooks";

import { AnswerView } from "./answer.tsx";
import { CopyDialog } from "./copy_dialog.tsx";
import type { Conversation, Turn } from "./conversation.ts";
import { focusIfFree, focusQuestion } from "./focus.ts";

export interface TurnProps {
  conversation: Conversation;
  turn: Turn;
}

export function TurnView({ conversation, turn }: TurnProps) {
  const [edited, setEdited] = useState<string | null>(null);
  const [isCopying, setCopying] = useState(false);
  const leave = () => {
    setEdited(null);
    focusQuestion();
  };
  const { answer } = turn;
  const isOver = answer.status !== "waiting" && answer.status !== "streaming";
  const isShown = conversation.shownTurn === turn;
  return (
    <article
      class={`turn${isShown ? " shown" : ""}`}
      data-turn={turn.id}
      aria-label={`Question: ${turn.question.slice(0, 80)}`}
      onFocusIn={() => conversation.turn !== turn.id && conversation.set({ turn: turn.id })}
      onMouseDown={() => conversation.turn !== turn.id && conversation.set({ turn: turn.id })}
    >
      <div class="question">
        {turn.attachments.length > 0 && (
          <ul class="attachments" aria-label="Pictures">
            {turn.attachments.map((attachment) => (
              <li key={attachment.id}>
                <button
                  type="button"
                  class="thumbnail"
                  aria-label={`Show ${attachment.name}`}
                  onClick={() => conversation.set({ picture: attachment.id, turn: turn.id })}
                >
                  {attachment.isShown ? (
                    <img src={attachment.data[0]} alt="" />
                  ) : (
                    <span class="no-picture">{attachment.name}</span>
                  )}
                </button>
                {attachment.kind === "clip" && (
                  <span class="badge">
                    {attachment.data.length} frames, {attachment.fps} fps
                  </span>
                )}
              </li>
            ))}
          </ul>
        )}
        {edited === null ? (
          <p class="question-text">{turn.question}</p>
        ) : (
          <form
            class="edit"
            onSubmit={(event) => {
              event.preventDefault();
              setEdited(null);
              focusQuestion();
              void conversation.again(turn.id, edited);
            }}
          >
            <label class="only-spoken" for={`edit-${turn.id}`}>
              Question in other words
            </label>
            <textarea
              id={`edit-${turn.id}`}
              rows={2}
              value={edited}
              ref={focusIfFree}
              onInput={(event) => setEdited(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Escape") leave();
                if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
                event.preventDefault();
                event.currentTarget.form?.requestSubmit();
              }}
            />
            <div class="actions">
              <button type="submit" class="main" disabled={edited.trim() === "" || conversation.isRunning}>
                Ask again
              </button>
              <button type="button" onClick={leave}>
                Cancel
              </button>
            </div>
          </form>
        )}
      </div>
      <AnswerView conversation={conversation} turn={turn} />
      {isOver && (
        <div class="actions">
          <button type="button" disabled={conversation.isRunning} onClick={() => void conversation.again(turn.id)}>
            Retry
          </button>
          {edited === null && (
            <button type="button" disabled={conversation.isRunning} onClick={() => setEdited(turn.question)}>
              Edit
            </button>
          )}
          <button type="button" onClick={() => setCopying(true)}>
            Copy as…
          </button>
        </div>
      )}
      {isCopying && <CopyDialog conversation={conversation} turn={turn} close={() => setCopying(false)} />}
    </article>
  );
}

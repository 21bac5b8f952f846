// Where pictures are added and questions are typed.

import { useEffect, useRef } from "preact/hooks";

import type { Props } from "./app.tsx";
import { RECIPES } from "./recipes.ts";

export function Composer({ conversation }: Props) {
  const files = useRef<HTMLInputElement>(null);
  const text = useRef<HTMLTextAreaElement>(null);
  const { draft, draftAttachments, isRunning, reading } = conversation;

  // As tall as what is typed, within bounds that the style sets.
  useEffect(() => {
    const area = text.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  }, [draft]);

  const send = () => {
    void conversation.send();
    text.current?.focus();
  };
  return (
    <form
      class="composer"
      aria-label="Ask"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {(draftAttachments.length > 0 || reading > 0) && (
        <ul class="attachments" aria-label="Pictures to send">
          {draftAttachments.map((attachment) => (
            <li key={attachment.id}>
              {attachment.isShown ? (
                <img src={attachment.data[0]} alt={attachment.name} />
              ) : (
                <span class="no-picture">{attachment.name}</span>
              )}
              {attachment.kind === "clip" && <span class="badge">{attachment.data.length} frames</span>}
              <button
                type="button"
                aria-label={`Remove ${attachment.name}`}
                onClick={() => {
                  conversation.removeAttachment(attachment.id);
                  text.current?.focus();
                }}
              >
                ×
              </button>
            </li>
          ))}
          {reading > 0 && <li class="reading">Reading…</li>}
        </ul>
      )}
      <label class="only-spoken" for="question">
        Question
      </label>
      <textarea
        id="question"
        ref={text}
        rows={1}
        placeholder="Ask about the picture…"
        value={draft}
        onInput={(event) => conversation.set({ draft: event.currentTarget.value })}
        onKeyDown={(event) => {
          // While a word is being composed, Enter ends the word.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      <div class="composer-row">
        <input
          ref={files}
          type="file"
          class="only-spoken"
          tabIndex={-1}
          aria-hidden="true"
          multiple
          accept="image/*,video/*"
          onChange={(event) => {
            const input = event.currentTarget;
            void conversation.addFiles(input.files ?? []).then(() => {
              input.value = "";
            });
            text.current?.focus();
          }}
        />
        <button type="button" onClick={() => files.current?.click()}>
          Add pictures
        </button>
        <label class="only-spoken" for="recipe">
          Recipe for a prompt
        </label>
        <select
          id="recipe"
          value=""
          onChange={(event) => {
            const recipe = RECIPES.find(({ title }) => title === event.currentTarget.value);
            event.currentTarget.value = "";
            if (!recipe) return;
            conversation.lendSystem(recipe.system);
            conversation.set({ draft: recipe.prompt });
            text.current?.focus();
          }}
        >
          <option value="">Recipes…</option>
          {RECIPES.map(({ title }) => (
            <option key={title} value={title}>
              {title}
            </option>
          ))}
        </select>
        <span class="space" />
        {isRunning ? (
          <button type="button" class="main stop" onClick={() => conversation.stop()}>
            Stop
          </button>
        ) : (
          <button type="submit" class="main" disabled={!conversation.canAsk}>
            Send
          </button>
        )}
      </div>
    </form>
  );
}

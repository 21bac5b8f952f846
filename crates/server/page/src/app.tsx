// The whole page: head, picture, conversation, and what is typed.

import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";

import { Composer } from "./composer.tsx";
import type { Conversation } from "./conversation.ts";
import { focusIfFree } from "./focus.ts";
import { ParametersPanel } from "./parameters.tsx";
import { Samples } from "./samples.tsx";
import { TurnView } from "./turn.tsx";
import { Viewer } from "./viewer.tsx";

export interface Props {
  conversation: Conversation;
}

export function App({ conversation }: Props) {
  const began = performance.now();
  const [, again] = useReducer((count: number) => count + 1, 0);
  const [isDropping, setDropping] = useState(false);
  const [hasParameters, setParameters] = useState(false);
  useEffect(() => conversation.listen(() => again(undefined)), [conversation]);
  useLayoutEffect(() => {
    conversation.cost = performance.now() - began;
  });

  useEffect(() => {
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setDropping(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setDropping(false);
    };
    const drop = (event: DragEvent) => {
      setDropping(false);
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      void conversation.addFiles(event.dataTransfer.files);
    };
    const paste = (event: ClipboardEvent) => {
      const files = event.clipboardData?.files;
      if (!files?.length) return;
      event.preventDefault();
      void conversation.addFiles(files);
    };
    const key = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) conversation.stop();
    };
    document.addEventListener("dragover", over);
    document.addEventListener("dragleave", leave);
    document.addEventListener("drop", drop);
    document.addEventListener("paste", paste);
    document.addEventListener("keydown", key);
    return () => {
      document.removeEventListener("dragover", over);
      document.removeEventListener("dragleave", leave);
      document.removeEventListener("drop", drop);
      document.removeEventListener("paste", paste);
      document.removeEventListener("keydown", key);
    };
  }, [conversation]);

  // Who reads the end of the page sees it grow; who has scrolled away is left there.
  const isAtEnd = useRef(true);
  useEffect(() => {
    const look = () => {
      isAtEnd.current = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 60;
    };
    document.addEventListener("scroll", look, { passive: true });
    return () => document.removeEventListener("scroll", look);
  }, []);
  useEffect(() => {
    if (conversation.isRunning && isAtEnd.current) window.scrollTo(0, document.documentElement.scrollHeight);
  });

  const isEmpty = conversation.turns.length === 0;
  const hasPicture = conversation.shownPicture !== undefined;
  return (
    <div class={`page${hasPicture ? " with-picture" : ""}${isDropping ? " dropping" : ""}`}>
      <header class="head">
        <h1>
          <img src="page/icon.svg" alt="" width="26" height="26" /> Ocellus
        </h1>
        <Status conversation={conversation} />
        <div class="head-actions">
          <button type="button" onClick={() => conversation.clear()} disabled={isEmpty}>
            New conversation
          </button>
          <button
            type="button"
            aria-expanded={hasParameters}
            aria-controls="parameters"
            onClick={() => setParameters(!hasParameters)}
          >
            Parameters
          </button>
        </div>
      </header>
      <main class="body">
        {hasPicture && <Viewer conversation={conversation} />}
        <section class="conversation" aria-label="Conversation">
          {hasParameters && <ParametersPanel conversation={conversation} />}
          {conversation.keyAsked !== "" && <KeyForm conversation={conversation} />}
          <div class="turns">
            {isEmpty ? (
              <Samples conversation={conversation} />
            ) : (
              conversation.turns.map((turn) => <TurnView key={turn.id} conversation={conversation} turn={turn} />)
            )}
          </div>
          {conversation.notice !== "" && (
            <p class="notice" role="alert">
              {conversation.notice}
            </p>
          )}
          <Composer conversation={conversation} />
        </section>
      </main>
      <div class="drop-hint" aria-hidden="true">
        Drop pictures or clips here
      </div>
      <div class="only-spoken" role="status" aria-live="polite" data-said>
        {conversation.said}
      </div>
    </div>
  );
}

function Status({ conversation }: Props) {
  const { server, model } = conversation;
  const words = {
    unknown: "Connecting…",
    loading: "The model is being loaded…",
    away: "The server can't be reached; trying again…",
    ready: model || (conversation.keyAsked ? "A key is needed" : "Ready"),
  };
  return (
    <p class={`status ${server}`} role="status" data-server={server}>
      {words[server]}
    </p>
  );
}

function KeyForm({ conversation }: Props) {
  const [key, setKey] = useState("");
  return (
    <form
      class="key panel"
      onSubmit={(event) => {
        event.preventDefault();
        void conversation.useKey(key.trim());
      }}
    >
      <p role="alert">{conversation.keyAsked}</p>
      <label for="key">Key</label>
      <input
        id="key"
        type="password"
        ref={focusIfFree}
        autocomplete="off"
        value={key}
        onInput={(event) => setKey(event.currentTarget.value)}
      />
      <button type="submit" class="main" disabled={key.trim() === ""}>
        Use this key
      </button>
      <p class="hint">It stays in this tab and is sent to this server alone.</p>
    </form>
  );
}

// Markdown and HTML of an answer, made harmless. An answer is untrusted text: a picture may tell the model what to say.

import DOMPurify from "dompurify";
import { Marked } from "marked";

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // Nothing that an answer says leads away from this page or loads anything: links and pictures are shown as text.
    link({ href, text }) {
      return text === href ? `<code>${escaped(text)}</code>` : `${escaped(text)} (<code>${escaped(href)}</code>)`;
    },
    image({ href, text }) {
      return `${escaped(text)} (<code>${escaped(href)}</code>)`;
    },
  },
});

const FETCHES = ["src", "srcset", "href", "xlink:href", "background", "poster", "action", "formaction", "ping", "style"];
const NO_TAGS = ["img", "picture", "video", "audio", "source", "svg", "math", "form", "input", "button", "textarea", "select", "style", "a"];

/** Markdown as HTML that can be put into the page. Names and classes are the page's own: an answer can't look like a
 * part of it. */
export function markdown(text: string): string {
  const html = marked.parse(text, { async: false });
  return DOMPurify.sanitize(html, { FORBID_TAGS: NO_TAGS, FORBID_ATTR: [...FETCHES, "id", "name", "class"], ALLOW_DATA_ATTR: false });
}

/** The style of such a frame, as the server's policy knows it: any other text would be blocked. */
export async function loadFrameStyle(): Promise<void> {
  const answer = await fetch("page/frame.css").catch(() => null);
  if (answer?.ok) frameStyle = await answer.text();
}

let frameStyle = "";

/** A parsed page for a frame without rights. It would run nothing and load nothing there anyway; what could is taken
 * out all the same. */
export function documentForFrame(html: string): string {
  const safe = DOMPurify.sanitize(html, {
    FORBID_TAGS: NO_TAGS.filter((tag) => tag !== "img" && tag !== "a"),
    FORBID_ATTR: FETCHES,
  });
  return `<!doctype html><meta charset="utf-8"><style>${frameStyle}</style><body>${safe}</body>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

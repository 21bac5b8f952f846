// Puts the page together.

import { render } from "preact";

import { App } from "./app.tsx";
import { Conversation } from "./conversation.ts";

const conversation = new Conversation();
const root = document.getElementById("app");
if (root) {
  render(<App conversation={conversation} />, root);
  void conversation.start();
}

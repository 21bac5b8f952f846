// Drives the page in a headless browser against running servers, one item after the other, and says of each whether it
// holds. Called by `scripts/check page`, which installs what is needed.
//
//   node check.mjs --ocellus BINARY --chromium BINARY --work FOLDER [--model DIR] [--python BINARY] [--clients FOLDER]
//
// What an answer's content decides (boxes, a parsed document) is first tried with the model's own answer; where that has
// none, an answer is played in pieces by the relay between browser and server. All else is the server's own.

import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    ocellus: { type: "string" },
    chromium: { type: "string" },
    work: { type: "string" },
    model: { type: "string" },
    python: { type: "string", default: "" },
    clients: { type: "string", default: "" },
    only: { type: "string", default: "" },
  },
});
const require = createRequire(join(options.work, "package.json"));
const { chromium } = require("playwright-core");
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const SAMPLES = JSON.parse(readFileSync(new URL("../samples/samples.json", import.meta.url), "utf8"));
/** Pictures of known sizes; those of the examples may change. */
const PICTURES = new URL("pictures/", import.meta.url).pathname;
const NANO = new URL("../../../../models/nano", import.meta.url).pathname;
const PALETTE = [
  [0xc2, 0x25, 0x5c],
  [0x18, 0x64, 0xab],
  [0x2b, 0x7a, 0x39],
  [0xa3, 0x3c, 0x00],
];
const PATIENCE_MS = 60_000;
const KEY = "sk-page-check";

// ---------------------------------------------------------------------------------------------------------------------
// Servers.

/** `ocellus serve` on a free port. */
async function serve(...more) {
  const model = options.model && !more.includes("--model") ? ["--model", options.model] : [];
  const child = spawn(options.ocellus, ["serve", "--port", "0", "--offline", ...model, ...more], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (data) => (log = (log + data).slice(-20_000)));
  const url = await new Promise((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
      const found = /http:\/\/\S+?(?=\/v1)/.exec(out);
      if (found) resolve(found[0]);
    });
    child.on("exit", () => reject(new Error(`the server did not start: ${out}${log}`)));
  });
  running.push(child);
  return { url, child, log: () => log };
}

const running = [];

function stopAll() {
  for (const child of running) child.kill("SIGKILL");
}

/** A relay between browser and server. It keeps what was asked, can play answers, and can act as a server that is still
 * loading its model. */
async function relay(target) {
  const state = { url: "", asked: [], played: [], isReady: true };
  const server = http.createServer((request, response) => {
    if (request.url === "/ready" && !state.isReady) {
      response.writeHead(503, { "content-type": "application/json" });
      return response.end('{"error":{"message":"Model is unavailable, please try again later."}}');
    }
    const chunks = [];
    request.on("data", (data) => chunks.push(data));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      const isQuestion = request.url === "/v1/chat/completions" && request.method === "POST";
      if (isQuestion) state.asked.push(JSON.parse(body.toString("utf8")));
      const pieces = isQuestion && state.played.shift();
      if (pieces) return void play(response, pieces);
      const onward = http.request(
        target + request.url,
        { method: request.method, headers: { ...request.headers, host: new URL(target).host } },
        (answer) => {
          response.writeHead(answer.statusCode, answer.headers);
          answer.pipe(response);
        },
      );
      onward.on("error", () => response.destroy());
      response.on("close", () => onward.destroy());
      onward.end(body);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  state.url = `http://127.0.0.1:${server.address().port}`;
  running.push({ kill: () => server.closeAllConnections?.() ?? server.close() });
  return state;
}

/** An answer as the server writes it; a piece that is a function is waited for. */
async function play(response, { media, pieces }) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (chunk) => response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  const choice = (delta, reason = null) => ({ choices: [{ delta, finish_reason: reason, index: 0 }], usage: null });
  send({ ...choice({ role: "assistant", content: "" }), ocellus: { media } });
  for (const piece of pieces) {
    if (typeof piece === "function") await piece();
    else send(choice({ content: piece }));
  }
  send(choice({ content: "" }, "stop"));
  send({ choices: [], usage: { prompt_tokens: 80, completion_tokens: pieces.length, total_tokens: 80 + pieces.length } });
  response.end("data: [DONE]\n\n");
}

/** What the server tells of a picture of this size, as if it had seen it in that one. */
function seenAs(original, seen = original, frames = 1) {
  const size = ([width, height]) => ({ width, height });
  const scale = { x: original[0] / seen[0], y: original[1] / seen[1] };
  return [{ kind: "image", original: size(original), seen: size(seen), scale, tokens: 48, frames }];
}

/** Something that is waited for until it is opened. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { open, wait: () => opened };
}

// ---------------------------------------------------------------------------------------------------------------------
// Browsers.

let browser;
/** Requests that left the origin, and complaints of the browser about the policy: there must be none of either. */
const strays = [];
const complaints = [];
let requests = 0;

async function open(url, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...settings });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
  context.on("request", (request) => {
    requests += 1;
    const address = request.url();
    if (!address.startsWith(`${url}/`) && !/^(data|blob|about):/.test(address)) strays.push(address);
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("console", (message) => {
    const text = message.text();
    const isPolicy = message.type() === "error" && /Content.Security|Refused to|violates/i.test(text);
    // The style of the hostile document below is stopped by the policy as early as where it is parsed.
    if (isPolicy && !text.includes(HOSTILE_STYLE_DIGEST)) complaints.push(text);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  await page.goto(`${url}/`);
  return page;
}

async function ready(page) {
  await page.locator('[data-server="ready"]').waitFor();
  await page.locator(".card:not([disabled])").first().waitFor();
}

async function openReady(url, settings) {
  const page = await open(url, settings);
  await ready(page);
  return page;
}

/** Waits until the last answer is over and gives its status. */
async function over(page) {
  const answer = page.locator(".answer").last();
  await page.waitForFunction(() => {
    const status = [...document.querySelectorAll(".answer")].at(-1)?.getAttribute("data-status");
    return status && !["waiting", "streaming"].includes(status);
  });
  return answer.getAttribute("data-status");
}

/** Which example is meant, whatever it is called. */
const KINDS = {
  description: ({ files, fps, system, prompt }) => files.length === 1 && !fps && !system && /describe|what/i.test(prompt),
  boxes: ({ prompt, fps }) => /bbox/i.test(prompt) && !fps,
  points: ({ prompt, fps }) => /point/i.test(prompt) && !fps,
  document: ({ prompt }) => /QwenVL HTML/.test(prompt),
  clip: ({ fps }) => fps > 0,
};

async function sample(page, kind) {
  const found = SAMPLES.findIndex(KINDS[kind]);
  if (found < 0) throw new Skip(`there is no example of a ${kind}`);
  await page.locator(".card").nth(found).click();
  await page.locator(".turn").first().waitFor();
}

/** A question about pictures of a known size. */
async function askAbout(page, names, question) {
  const files = [names].flat();
  await page.setInputFiles('input[type="file"]', files.map((name) => join(PICTURES, name)));
  await page.waitForFunction((count) => document.querySelectorAll(".composer .attachments img").length === count, files.length);
  const turns = await page.locator(".turn").count();
  if (question) await askText(page, question);
  else {
    await page.selectOption("#recipe", "Parse a document");
    await page.press("#question", "Enter");
  }
  await page.locator(".turn").nth(turns).waitFor();
}

async function askText(page, text) {
  await page.fill("#question", text);
  await page.press("#question", "Enter");
}

/** The colour of the canvas at a place of the picture, given in pixels of the picture. */
function pixel(page, x, y, width) {
  return page.evaluate(
    ([x, y, width]) => {
      const canvas = document.querySelector(".stage canvas");
      const zoom = canvas.width / width;
      return [...canvas.getContext("2d").getImageData(Math.round(x * zoom), Math.round(y * zoom), 1, 1).data].slice(0, 3);
    },
    [x, y, width],
  );
}

const near = (found, expected, by = 40) => found.every((value, index) => Math.abs(value - expected[index]) <= by);

async function expectPixel(page, place, width, expected, what) {
  for (let tries = 0; tries < 40; tries++) {
    if (near(await pixel(page, ...place, width), expected)) return;
    await page.waitForTimeout(50);
  }
  throw new Error(`${what}: the canvas at ${place} is ${await pixel(page, ...place, width)}, expected ${expected}`);
}

async function axe(page, state) {
  await page.evaluate(axeSource).catch(() => undefined);
  if (!(await page.evaluate(() => "axe" in window))) throw new Error("axe could not be put into the page");
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const tell = ({ id, nodes }) => `${id} at ${nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`;
  expect(grave.length === 0, `${state}: ${grave.map(tell).join("; ")}`);
  return violations.length;
}

function shot(page, name) {
  return page.screenshot({ path: join(options.work, `${name}.png`) });
}

// ---------------------------------------------------------------------------------------------------------------------
// Items.

const results = { held: 0, failed: [], skipped: [] };

/** An item that can't be tried here. */
class Skip extends Error {}

function expect(condition, message) {
  if (!condition) throw new Error(message);
}

async function item(name, run) {
  if (options.only && !name.includes(options.only)) return;
  try {
    const detail = await run();
    results.held += 1;
    console.log(`ok    ${name}${detail ? ` (${detail})` : ""}`);
  } catch (error) {
    const reason = error.message.split("\n").slice(0, 3).join(" | ");
    if (error instanceof Skip) results.skipped.push(name);
    else results.failed.push(name);
    console.log(`${error instanceof Skip ? "skip " : "FAIL "} ${name}: ${reason}`);
  } finally {
    for (const context of browser.contexts()) await context.close();
  }
}

function program(command, args, settings = {}) {
  return new Promise((resolve) => {
    const child = execFile(command, args, { timeout: 60_000, maxBuffer: 1 << 24, ...settings }, (error, stdout, stderr) =>
      resolve({ code: error ? (error.code ?? 1) : 0, stdout, stderr }),
    );
    if (settings.input !== undefined) child.stdin.end(settings.input);
  });
}

async function copied(page, language) {
  await page.locator(".turn").last().getByRole("button", { name: "Copy as…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: language, exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Copy", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Copied", exact: true }).waitFor();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  return text;
}

const BOXES = [
  '```json\n[\n  {"bbox_2d": [12, 15, 42, 45], ',
  '"label": "red circle"}',
  ',\n  {"bbox_2d": [68, 10, 98, 40], "label": "blue ',
  'square"}\n]\n```',
];
/** The example's picture is 224 by 168; these boxes are in pixels of half of that. */
const HALF = seenAs([224, 168], [112, 84]);

const HOSTILE_STYLE = "background: url(https://example.org/leak)";
const HOSTILE_STYLE_DIGEST = createHash("sha256").update(HOSTILE_STYLE).digest("base64");
const DOCUMENT = [
  "```html\n<html><body>\n<h2 data-bbox=\"16 18 120 36\">GREEN CAFE</h2>\n",
  '<script>parent.document.title = "owned"; window.top.owned = 1; fetch("https://example.org/leak")</script>',
  '<img src="https://example.org/leak.png" onerror="parent.document.title = \'owned\'" data-bbox="20 40 60 80">',
  '<link rel="stylesheet" href="https://example.org/leak.css"><meta http-equiv="refresh" content="0;url=https://example.org/">',
  '<form action="https://example.org/"><button>x</button></form><a href="https://example.org/">away</a>',
  `<p style="${HOSTILE_STYLE}" data-bbox="18 230 206 260">TOTAL 7.50</p>\n</body></html>\n`,
  "```",
];

async function check() {
  const { url } = await serve("--max-completion-tokens", "200");
  const front = await relay(url);
  const page0 = await (await fetch(`${url}/`)).text();
  expect(page0.includes("page/app.js"), "the binary has the plain page: run scripts/make-page and build again");

  await item("the page opens with examples and the model's name", async () => {
    const page = await openReady(url);
    const cards = await page.locator(".card").count();
    expect(cards >= 5, `${cards} examples`);
    const model = await page.locator(".status").textContent();
    const { data } = await (await fetch(`${url}/v1/models`)).json();
    expect(model === data[0].id, `the status says ${model}`);
    await page.waitForFunction(() => [...document.querySelectorAll(".card img")].every((image) => image.naturalWidth > 0));
    const beyond = SAMPLES.filter((sample) => sample.beyond === model).length;
    const warned = await page.locator(".card-beyond").count();
    expect(warned === beyond, `${warned} examples say that the model has not learned them, of ${beyond}`);
    await shot(page, "empty");
    return `${cards} examples, ${beyond} of them beyond ${model}`;
  });

  await item("while the model is being loaded the page says so and goes on by itself", async () => {
    front.isReady = false;
    const page = await open(front.url);
    await page.locator('[data-server="loading"]', { hasText: "The model is being loaded" }).waitFor();
    expect(await page.locator(".card:not([disabled])").count() === 0, "an example can be clicked already");
    front.isReady = true;
    await ready(page);
  });

  await item("one click on an example streams an answer", async () => {
    const page = await openReady(front.url);
    await page.evaluate(() => {
      window.lengths = new Set();
      const look = () => {
        window.lengths.add(document.querySelector(".answer")?.textContent.length);
        requestAnimationFrame(look);
      };
      look();
    });
    const before = front.asked.length;
    await sample(page, "description");
    expect((await over(page)) === "done", `the answer is ${await page.locator(".answer").textContent()}`);
    const steps = await page.evaluate(() => window.lengths.size);
    expect(steps >= 3, `the text grew in ${steps} steps only`);
    const asked = front.asked[before];
    expect(asked.stream === true && asked.messages.at(-1).content[0].image_url.url.startsWith("data:image/"), "the request");
    const numbers = await page.locator(".numbers").textContent();
    for (const part of [/\d+ tokens in/, /\d+ out/, /first word after \d+\.\d+ s/, /seen as \d+×\d+ \(was \d+×\d+\)/]) {
      expect(part.test(numbers), `${part} is not in "${numbers}"`);
    }
    const said = await page.locator("[data-said]").textContent();
    expect(said.startsWith("Answer: "), `a screen reader hears "${said}"`);
    return `${steps} steps; ${numbers}`;
  });

  await item("boxes are drawn as soon as each is complete, at the right place", async () => {
    const page = await openReady(front.url);
    const gates = [gate(), gate()];
    front.played.push({ media: HALF, pieces: [BOXES[0], BOXES[1], gates[0].wait, BOXES[2], gates[1].wait, BOXES[3]] });
    await askAbout(page, "shapes.png", "What is there?");
    await page.locator(".chip").first().waitFor();
    expect((await page.locator(".answer").getAttribute("data-status")) === "streaming", "the answer is over already");
    // The middle of each side, in pixels of the picture: twice those of the answer.
    for (const place of [[24, 60], [84, 60], [54, 30], [54, 90]]) await expectPixel(page, place, 224, PALETTE[0], "the first box");
    gates[0].open();
    await page.waitForTimeout(200);
    expect((await page.locator(".chip").count()) === 1, "a box was drawn before it was complete");
    gates[1].open();
    await page.locator(".chip").nth(1).waitFor();
    for (const place of [[136, 50], [196, 50], [166, 20], [166, 80]]) await expectPixel(page, place, 224, PALETTE[1], "the second box");
    expect((await over(page)) === "done", "the answer did not end");
    // Of a real answer that comes in at once no speed is told; this one took its time.
    expect(/[\d.]+ tokens\/s/.test(await page.locator(".numbers").textContent()), "no speed is told");
    const chips = await page.locator(".chip").allTextContents();
    expect(chips[0].includes("red circle") && chips[0].includes("24, 30, 84, 90"), chips[0]);
    await shot(page, "boxes");
  });

  for (const what of ["boxes", "points", "document"]) {
    await item(`the ${what} of the model's own answer`, async () => {
      const page = await openReady(url);
      await sample(page, what);
      await over(page);
      const places = await page.locator(".chip .at").allTextContents();
      if (places.length === 0) throw new Skip("this model's answer has none; another item plays one");
      if (what === "document") await page.locator("iframe").waitFor();
      const size = /(\d+)×\d+$/.exec(await page.locator(".caption").textContent());
      const [x1, y1, , y2 = y1] = places[0].split(", ").map(Number);
      const last = (await page.locator(".chip").count()) - 1;
      if (last < PALETTE.length) {
        // The last one is drawn over the others.
        const [left, top, , bottom = top] = places[last].split(", ").map(Number);
        await expectPixel(page, [left, (top + bottom) / 2], Number(size[1]), PALETTE[last], "the model's last place");
      }
      await page.locator(".chip").first().hover();
      await expectPixel(page, [x1, (y1 + y2) / 2], Number(size[1]), PALETTE[0], "the model's first place, pointed at");
      await page.mouse.move(2, 2);
      await page.waitForTimeout(100);
      await shot(page, `own-${what}`);
      await page.emulateMedia({ colorScheme: "dark" });
      await shot(page, `own-${what}-dark`);
      await page.emulateMedia({ colorScheme: "light" });
      await page.setViewportSize({ width: 360, height: 740 });
      await page.waitForTimeout(200);
      await page.evaluate(() => scrollTo(0, 0));
      await shot(page, `own-${what}-narrow`);
      return `${places.length} places`;
    });
  }

  await item("the pointer on an answer's place marks the box, and on the box the place", async () => {
    const page = await openReady(front.url);
    front.played.push({ media: HALF, pieces: BOXES });
    await askAbout(page, "shapes.png", "What is there?");
    await over(page);
    await page.locator(".chip").nth(1).hover();
    await page.waitForTimeout(100);
    const dimmed = await pixel(page, 24, 60, 224);
    expect(!near(dimmed, PALETTE[0]), `the other box stays ${dimmed}`);
    await expectPixel(page, [136, 50], 224, PALETTE[1], "the pointed box");
    await page.mouse.move(2, 2);
    await expectPixel(page, [24, 60], 224, PALETTE[0], "after the pointer has gone");
    const canvas = await page.locator(".stage canvas").boundingBox();
    const at = (x, y) => [canvas.x + (x / 224) * canvas.width, canvas.y + (y / 168) * canvas.height];
    await page.mouse.move(...at(166, 50));
    await page.locator('.chip.pointed[data-region="1"]').waitFor();
    await page.locator('.json-node.pointed[data-region="1"]').waitFor();
    await page.mouse.move(...at(54, 60));
    await page.locator('.chip.pointed[data-region="0"]').waitFor();
    await shot(page, "pointed");
    // The same by keyboard.
    await page.locator(".chip").nth(1).focus();
    await page.locator('.chip.pointed[data-region="1"]').waitFor();
  });

  await item("points in XML are drawn", async () => {
    const page = await openReady(front.url);
    front.played.push({ media: HALF, pieces: ['Here it is: <points x1="27" y1="30" ', 'alt="red circle">red circle</points>.'] });
    await askAbout(page, "shapes.png", "What is there?");
    await over(page);
    await expectPixel(page, [54, 60], 224, PALETTE[0], "the point");
    expect((await page.locator(".chip").textContent()).includes("red circle"), "the point's name");
  });

  await item("QwenVL HTML is shown in a frame without rights, with its places, and no script in it runs", async () => {
    const page = await openReady(front.url);
    front.played.push({ media: seenAs([224, 308]), pieces: DOCUMENT });
    const strayed = strays.length;
    await askAbout(page, "receipt.png");
    await over(page);
    const asked = front.asked.at(-1);
    expect(asked.messages[0].role === "system" && asked.messages[0].content.includes("QwenVL"), "the recipe's system prompt");
    const frame = page.locator("iframe");
    await frame.waitFor();
    expect((await frame.getAttribute("sandbox")) === "", "the frame has rights");
    await page.frameLocator("iframe").locator("h2", { hasText: "GREEN CAFE" }).waitFor();
    await page.frameLocator("iframe").locator("p", { hasText: "TOTAL 7.50" }).waitFor();
    const font = await page.frameLocator("iframe").locator("body").evaluate((body) => getComputedStyle(body).fontFamily);
    expect(font.includes("Georgia"), `the frame's style is not there: ${font}`);
    await page.waitForTimeout(500);
    expect((await page.title()) === "Ocellus" && (await page.evaluate(() => window.owned)) === undefined, "a script ran");
    expect(strays.length === strayed, `requests to ${strays.slice(strayed)}`);
    const chips = await page.locator(".chip").allTextContents();
    expect(chips.length === 3 && chips[0].includes("h2: GREEN CAFE"), chips.join("; "));
    await expectPixel(page, [16, 27], 224, PALETTE[0], "the heading's box");
    await shot(page, "document");
  });

  await item("a script in a frame without rights would not run either", async () => {
    const page = await openReady(url);
    const ran = await page.evaluate(async () => {
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", "");
      frame.srcdoc = "<script>parent.postMessage('ran', '*')</script><p>there</p>";
      let ran = false;
      addEventListener("message", () => (ran = true));
      document.body.append(frame);
      await new Promise((resolve) => frame.addEventListener("load", resolve));
      await new Promise((resolve) => setTimeout(resolve, 300));
      return ran;
    });
    expect(!ran, "the script ran");
    // This item provokes the browser's complaint.
    complaints.length = 0;
  });

  await item("Markdown is shown, and nothing in it runs or loads", async () => {
    const page = await openReady(front.url);
    front.played.push({
      media: HALF,
      pieces: [
        "# Title\n\n**bold** and `code`\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n",
        '<img src=x onerror="document.title=\'owned\'"> <script>document.title="owned"</script> ',
        "[link](javascript:document.title='owned') ![picture](https://example.org/x.png) <b onclick=\"document.title='owned'\">click</b>",
        '<iframe srcdoc="<script>top.document.title=1</script>"></iframe><svg onload="document.title=1"></svg>',
      ],
    });
    await sample(page, "description");
    await over(page);
    const markdown = page.locator(".markdown").first();
    for (const part of ["h1", "strong", "code", "td"]) await markdown.locator(part).first().waitFor();
    await page.getByText("click", { exact: true }).click();
    await page.waitForTimeout(200);
    expect((await page.title()) === "Ocellus", "a script ran");
    const active = await page.locator(".answer :is(img, script, iframe, a, svg:not(.swatch), [onclick], [onerror])").count();
    expect(active === 0, `${active} active elements`);
  });

  await item("JSON folds", async () => {
    const page = await openReady(front.url);
    front.played.push({ media: HALF, pieces: ['{"Shop": "GREEN CAFE", "Items": [{"Name": "TEA", "Price": "1.80"}], ', '"Total": 7.5, "Paid": true, "Card": null}'] });
    await askAbout(page, "shapes.png", "What is there?");
    await over(page);
    const node = page.locator(".json-node", { hasText: "Items" }).locator(".json-node").first();
    const leaf = page.locator(".json-string", { hasText: "TEA" });
    expect(await leaf.isVisible(), "the list is folded at first");
    await node.locator("> summary").click();
    expect(!(await leaf.isVisible()), "the list does not fold");
    for (const kind of ["string", "number", "boolean", "null"]) await page.locator(`.json-${kind}`).first().waitFor();
  });

  await item("several rounds, retry, and an earlier question in other words", async () => {
    const page = await openReady(front.url);
    await sample(page, "description");
    await over(page);
    await askText(page, "And what colour is it?");
    await page.locator(".turn").nth(1).waitFor();
    await over(page);
    let messages = front.asked.at(-1).messages;
    expect(messages.map(({ role }) => role).join() === "user,assistant,user", messages.map(({ role }) => role).join());
    expect(messages[2].content === "And what colour is it?" && messages[0].content[0].type === "image_url", "the second round");
    const count = front.asked.length;
    await page.locator(".turn").nth(1).getByRole("button", { name: "Retry" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".turn").length === 2);
    await over(page);
    expect(front.asked.length === count + 1, "the retry asked nothing");
    expect(JSON.stringify(front.asked.at(-1).messages) === JSON.stringify(messages), "the retry asked something else");
    await page.locator(".turn").nth(0).getByRole("button", { name: "Edit" }).click();
    await page.getByLabel("Question in other words").fill("How many shapes are there?");
    await page.getByRole("button", { name: "Ask again" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".turn").length === 1);
    await over(page);
    messages = front.asked.at(-1).messages;
    expect(messages.length === 1 && messages[0].content[1].text === "How many shapes are there?", "the edited question");
    expect(messages[0].content[0].type === "image_url", "the picture is gone");
    await page.getByRole("button", { name: "New conversation" }).click();
    await page.locator(".card").first().waitFor();
  });

  await item("parameters go with the question", async () => {
    const page = await openReady(front.url);
    await page.getByRole("button", { name: "Parameters" }).click();
    const typed = { Temperature: "0.5", "Top p": "0.9", "Top k": "20", "Most tokens": "12", Seed: "7", "Presence penalty": "0.5", "Repetition penalty": "1.1", "Fewest pixels": "6272", "Most pixels": "50176" };
    for (const [label, value] of Object.entries(typed)) await page.getByLabel(label, { exact: true }).fill(value);
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByLabel("High resolution").check();
    await page.setInputFiles('input[type="file"]', join(PICTURES, "shapes.png"));
    await page.locator(".composer .attachments img").waitFor();
    await askText(page, "What is it?");
    await page.locator(".turn").waitFor();
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const { messages, model, stream, stream_options, ...rest } = front.asked.at(-1);
    const expected = { temperature: 0.5, top_p: 0.9, top_k: 20, max_tokens: 12, seed: 7, presence_penalty: 0.5, repetition_penalty: 1.1, vl_high_resolution_images: true };
    expect(JSON.stringify(rest) === JSON.stringify(expected), JSON.stringify(rest));
    expect(messages[0].content === "Be brief.", "the system prompt");
    const { min_pixels, max_pixels } = messages[1].content[0];
    expect(min_pixels === 6272 && max_pixels === 50176, `${min_pixels} ${max_pixels}`);
    await shot(page, "parameters");
    return `${model}, ${Object.keys(rest).length} parameters`;
  });

  await item("the server's own sentence is shown when it refuses", async () => {
    const page = await openReady(url);
    await page.getByRole("button", { name: "Parameters" }).click();
    await page.getByLabel("Temperature").fill("5");
    await askText(page, "Hello");
    const alert = page.locator(".answer .error[role=alert]");
    await alert.waitFor();
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "qwen-vl-max", messages: [{ role: "user", content: "Hello" }], temperature: 5 }),
    });
    const { error } = await answer.json();
    expect(answer.status === 400 && (await alert.textContent()) === error.message, await alert.textContent());
    await page.getByLabel("Temperature").fill("");
    await page.getByRole("button", { name: "Retry" }).click();
    expect((await over(page)) === "done", "the retry failed");
    return error.message;
  });

  await item("several pictures at once, chosen, dropped and pasted; one that no browser shows", async () => {
    const page = await openReady(front.url);
    await page.setInputFiles('input[type="file"]', ["shapes.png", "moved.png"].map((name) => join(PICTURES, name)));
    await page.waitForFunction(() => document.querySelectorAll(".composer .attachments img").length === 2);
    const give = (kind, name, type, base64) =>
      page.evaluate(
        ([kind, name, type, base64]) => {
          const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], name, { type }));
          const settings = { bubbles: true, cancelable: true };
          const event =
            kind === "drop" ? new DragEvent("drop", { ...settings, dataTransfer: data }) : new ClipboardEvent("paste", { ...settings, clipboardData: data });
          document.body.dispatchEvent(event);
        },
        [kind, name, type, base64],
      );
    await give("drop", "words.png", "image/png", readFileSync(join(PICTURES, "words.png")).toString("base64"));
    await page.waitForFunction(() => document.querySelectorAll(".composer .attachments img").length === 3);
    await give("paste", "cluttered.png", "image/png", readFileSync(join(PICTURES, "cluttered.png")).toString("base64"));
    await page.waitForFunction(() => document.querySelectorAll(".composer .attachments img").length === 4);
    await page.getByRole("button", { name: "Remove words.png" }).click();
    await give("drop", "odd.tiff", "image/tiff", Buffer.from("II*\0no tiff").toString("base64"));
    await page.locator(".no-picture").first().waitFor();
    await page.getByRole("button", { name: "Remove odd.tiff" }).click();
    await give("drop", "notes.txt", "text/plain", "aGk=");
    await page.locator(".notice", { hasText: "notes.txt is neither a picture nor a clip." }).waitFor();
    await askText(page, "What do these have in common?");
    await page.locator(".turn").waitFor();
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const parts = front.asked.at(-1).messages[0].content;
    expect(parts.map(({ type }) => type).join() === "image_url,image_url,image_url,text", parts.map(({ type }) => type).join());
    expect((await page.locator(".numbers").textContent()).match(/seen as/g).length === 3, "the sizes of the pictures");
    expect((await page.locator(".strip .thumbnail").count()) === 3, "the strip of pictures");
    await page.locator(".strip .thumbnail").nth(1).click();
    await page.locator(".caption", { hasText: "moved.png" }).waitFor();
  });

  await item("a clip's frames are sampled in the browser and sent as a list", async () => {
    const page = await openReady(front.url);
    const made = await page.evaluate(async () => {
      if (!window.MediaRecorder?.isTypeSupported("video/webm")) return 0;
      const canvas = document.createElement("canvas");
      canvas.width = 160;
      canvas.height = 120;
      const context = canvas.getContext("2d");
      const recorder = new MediaRecorder(canvas.captureStream(20), { mimeType: "video/webm" });
      const parts = [];
      recorder.ondataavailable = (event) => parts.push(event.data);
      const stopped = new Promise((resolve) => (recorder.onstop = resolve));
      recorder.start();
      for (let step = 0; step < 50; step++) {
        context.fillStyle = "#fff";
        context.fillRect(0, 0, 160, 120);
        context.fillStyle = "#d00";
        context.fillRect(step * 2.5, 40, 30, 30);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      recorder.stop();
      await stopped;
      const data = new DataTransfer();
      data.items.add(new File(parts, "moving.webm", { type: "video/webm" }));
      const input = document.querySelector('input[type="file"]');
      input.files = data.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      return data.files[0].size;
    });
    if (made === 0) throw new Skip("this browser records no clip to try with");
    await page.locator(".composer .badge", { hasText: "frames" }).waitFor();
    await askText(page, "What happens?");
    await page.locator(".turn").waitFor();
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const [clip] = front.asked.at(-1).messages[0].content;
    expect(clip.type === "video" && clip.video.length >= 4 && clip.video.every((frame) => frame.startsWith("data:image/jpeg;base64,")), "the list");
    expect(clip.fps > 1.5 && clip.fps < 2.5, `fps ${clip.fps}`);
    expect(new Set(clip.video).size === clip.video.length, "frames are the same picture");
    const where = await page.evaluate(async (frames) => {
      const left = [];
      for (const frame of frames) {
        const image = new Image();
        image.src = frame;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.width, image.height];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const row = context.getImageData(0, 55, image.width, 1).data;
        let x = 0;
        while (x < image.width && row[4 * x + 1] > 128) x++;
        left.push(x);
      }
      return left;
    }, clip.video);
    expect(where.every((x, index) => index === 0 || x > where[index - 1]), `the square is at ${where}`);
    await page.getByLabel(/^Frame 1 of/).fill("2");
    await page.getByText(/^Frame 3 of/).waitFor();
    return `${clip.video.length} frames at ${clip.fps} fps of ${made} bytes of WebM, the square at ${where.join(", ")}`;
  });

  await item("the example of a clip is asked with its frames", async () => {
    const page = await openReady(front.url);
    await sample(page, "clip");
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const [clip] = front.asked.at(-1).messages[0].content;
    expect(clip.type === "video" && clip.video.length >= 4 && clip.fps > 0, "the list");
    // An event's times lead to its frames.
    front.played.push({ media: seenAs([168, 112], [168, 112], 8), pieces: ['[{"start_time": "00:00:01.00", "end_time": "00:00:02.50", ', '"event": "A circle moves."}]'] });
    await page.getByRole("button", { name: "Retry" }).click();
    await page.getByRole("button", { name: "Show 2.5 s" }).click();
    const frame = Math.min(Math.round(2.5 * clip.fps), clip.video.length - 1) + 1;
    await page.getByText(new RegExp(`^Frame ${frame} of ${clip.video.length}`)).waitFor();
    await axe(page, "a clip");
    return `${clip.video.length} frames at ${clip.fps} fps`;
  });

  await item("stop frees the slot", async () => {
    // Random weights at a high temperature hardly ever come to an end by themselves.
    const single = await serve("--parallel", "1", "--model", NANO);
    const page = await openReady(single.url);
    await page.getByRole("button", { name: "Parameters" }).click();
    for (const [label, value] of [["Temperature", "1.9"], ["Top p", "1"], ["Top k", "0"]]) {
      await page.getByLabel(label, { exact: true }).fill(value);
    }
    const last = () => page.evaluate(() => [...document.querySelectorAll(".answer")].at(-1)?.getAttribute("data-status"));
    // An answer that ends before it can be stopped proves nothing; then another one is asked for.
    const askLong = async (stop) => {
      for (let tries = 0; tries < 20; tries++) {
        const turns = await page.locator(".turn").count();
        await askText(page, `Tell me a very long story, number ${tries}.`);
        await page.locator(".turn").nth(turns).waitFor();
        while ((await last()) === "waiting") await page.waitForTimeout(5);
        if (await stop()) return;
        await over(page);
      }
      throw new Error("no answer was long enough to be stopped");
    };
    const load = async () => {
      const metrics = await (await fetch(`${single.url}/metrics`)).text();
      return Number(/^ocellus:num_requests_running\{[^}]*\} (\d+)/m.exec(metrics)?.[1]);
    };
    let began = 0;
    await askLong(async () => {
      if ((await load()) !== 1) return false;
      began = Date.now();
      await page.getByRole("button", { name: "Stop" }).click({ timeout: 2_000 }).catch(() => undefined);
      await over(page);
      return (await last()) === "stopped";
    });
    while ((await load()) !== 0) {
      expect(Date.now() - began < 5_000, "the request still runs after 5 s");
      await page.waitForTimeout(20);
    }
    const freed = Date.now() - began;
    const answer = await fetch(`${single.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "qwen-vl-max", messages: [{ role: "user", content: "Hi" }], max_tokens: 2 }),
    });
    expect(answer.ok, `the next request: ${answer.status}`);
    // By key too, and the conversation goes on.
    await askLong(async () => {
      await page.keyboard.press("Escape");
      await over(page);
      return (await last()) === "stopped";
    });
    single.child.kill("SIGKILL");
    return `free after ${freed} ms`;
  });

  const locked = await serve("--api-key", KEY, "--max-completion-tokens", "24");
  await item("a key is asked for, a wrong one refused in the server's words, the right one works", async () => {
    const page = await open(locked.url);
    await page.locator(".key [role=alert]", { hasText: "You didn't provide an API key." }).waitFor();
    await axe(page, "asked for a key");
    await page.getByLabel("Key", { exact: true }).fill("sk-wrong");
    await page.getByRole("button", { name: "Use this key" }).click();
    await page.locator(".key [role=alert]", { hasText: "Incorrect API key provided." }).waitFor();
    await page.getByLabel("Key", { exact: true }).fill(KEY);
    await page.keyboard.press("Enter");
    await ready(page);
    expect((await page.locator(".key").count()) === 0, "the key is still asked for");
    await sample(page, "description");
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
    expect(kept.join() === "0,1,", `kept: ${kept}`);
    await page.reload();
    await ready(page);
    const curl = await copied0(page, "curl");
    expect(!curl.includes(KEY) && curl.includes("$OCELLUS_API_KEY"), "the key is written into the program");
    const { code, stdout, stderr } = await program("bash", ["-e"], { input: curl, env: { ...process.env, OCELLUS_API_KEY: KEY } });
    expect(code === 0 && stdout.includes("[DONE]"), `curl: ${code} ${stdout.slice(0, 200)}${stderr}`);
  });

  async function copied0(page, language) {
    await sample(page, "description");
    await over(page);
    return copied(page, language);
  }

  for (const [language, available, run] of [
    ["curl", true, (text) => program("bash", ["-e"], { input: text })],
    ["Python (openai)", options.python !== "", (text) => program(options.python, ["-"], { input: text })],
    ["Python (dashscope)", options.python !== "", (text) => program(options.python, ["-"], { input: text })],
    [
      "Node.js",
      options.clients !== "",
      (text) => {
        const file = join(options.clients, "ask.mjs");
        writeFileSync(file, text);
        return program(process.execPath, [file]);
      },
    ],
  ]) {
    await item(`what is copied as ${language} runs as it is`, async () => {
      if (!available) throw new Skip("its client is not installed here");
      const page = await openReady(url);
      await page.getByRole("button", { name: "Parameters" }).click();
      for (const [label, value] of [["Most tokens", "6"], ["Top k", "5"], ["Seed", "3"]]) {
        await page.getByLabel(label, { exact: true }).fill(value);
      }
      await page.getByLabel("System prompt").fill("Say \"it's\" $HOME `x` \\ 'y' – ä😀.");
      await askAbout(page, ["shapes.png", "moved.png"], "What is different?");
      await over(page);
      await askText(page, "It's \"this\" one: $HOME `x` \\n 'y'?");
      await page.locator(".turn").nth(1).waitFor();
      await over(page);
      const text = await copied(page, language);
      const { code, stdout, stderr } = await run(text);
      expect(code === 0 && stdout.trim() !== "", `${code}: ${stdout.slice(0, 300)} ${stderr.slice(-300)}`);
      if (language === "curl") expect(stdout.includes("data: [DONE]"), stdout.slice(-200));
      return `${text.length} characters in, ${stdout.trim().length} out`;
    });
  }

  await item("a large picture is read from its file by what is copied, a clip's frames are not", async () => {
    const page = await openReady(url);
    const folder = mkdtempSync(join(options.work, "large-"));
    const name = "it's $HOME.png";
    const base64 = await page.evaluate(() => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [700, 600];
      const context = canvas.getContext("2d");
      const noise = context.createImageData(700, 600);
      for (let index = 0; index < noise.data.length; index++) noise.data[index] = index % 4 === 3 ? 255 : Math.random() * 256;
      context.putImageData(noise, 0, 0);
      return canvas.toDataURL("image/png").split(",")[1];
    });
    writeFileSync(join(folder, name), Buffer.from(base64, "base64"));
    await page.getByRole("button", { name: "Parameters" }).click();
    await page.getByLabel("Most tokens", { exact: true }).fill("4");
    await page.getByLabel("Most pixels", { exact: true }).fill("50176");
    await page.setInputFiles('input[type="file"]', join(folder, name));
    await page.locator(".composer .attachments img").waitFor();
    await askText(page, "Costs $5 `now`?");
    await page.locator(".turn").waitFor();
    expect((await over(page)) === "done", await page.locator(".answer").textContent());
    const ran = [];
    const interpreters = { curl: ["bash", ["-e"]] };
    if (options.python) interpreters["Python (openai)"] = interpreters["Python (dashscope)"] = [options.python, ["-"]];
    for (const [language, [command, args]] of Object.entries(interpreters)) {
      const text = await copied(page, language);
      expect(text.length < 5_000, `${language} has ${text.length} characters`);
      const { code, stdout, stderr } = await program(command, args, { input: text, cwd: folder });
      expect(code === 0 && stdout.trim() !== "" && !stdout.includes('"error"'), `${language}: ${stdout.slice(0, 300)} ${stderr.slice(-300)}`);
      ran.push(language);
    }
    if (options.clients) {
      writeFileSync(join(options.clients, name), Buffer.from(base64, "base64"));
      writeFileSync(join(options.clients, "ask.mjs"), await copied(page, "Node.js"));
      const { code, stderr } = await program(process.execPath, ["ask.mjs"], { cwd: options.clients });
      expect(code === 0, `Node.js: ${stderr.slice(-300)}`);
      ran.push("Node.js");
    }
    rmSync(folder, { recursive: true });
    return `${base64.length} characters of picture; ${ran.join(", ")}`;
  });

  await item("a screen of 360 pixels has no sideways scrolling", async () => {
    const page = await openReady(front.url, { viewport: { width: 360, height: 740 }, hasTouch: true });
    const fits = async (state) => {
      const [wide, tall] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      expect(wide <= tall, `${state} is ${wide} pixels wide`);
    };
    await fits("the empty page");
    await shot(page, "narrow-empty");
    front.played.push({ media: HALF, pieces: [...BOXES, "\n\n`" + "x".repeat(300) + "`\n\n| a | b |\n|---|---|\n| " + "y".repeat(200) + " | 2 |"] });
    await askAbout(page, "shapes.png", "What is there?");
    await over(page);
    await fits("an answer");
    await expectPixel(page, [24, 60], 224, PALETTE[0], "the box");
    await page.evaluate(() => scrollTo(0, 0));
    await shot(page, "narrow");
    await page.getByRole("button", { name: "Parameters" }).click();
    await fits("the parameters");
    await page.getByRole("button", { name: "Copy as…" }).click();
    await page.getByRole("dialog").waitFor();
    await fits("the dialog");
    await page.keyboard.press("Escape");
    front.played.push({ media: seenAs([224, 308]), pieces: DOCUMENT });
    await askText(page, "QwenVL HTML");
    await page.locator("iframe").waitFor();
    await over(page);
    await fits("a document");
  });

  await item("everything can be done with the keyboard alone", async () => {
    const page = await openReady(front.url);
    const focused = () =>
      page.evaluate(() => {
        const { activeElement } = document;
        const style = getComputedStyle(activeElement);
        const isVisible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        return { text: activeElement.textContent.trim(), id: activeElement.id, class: activeElement.className, isVisible };
      });
    const tabTo = async (wanted, key = "Tab") => {
      for (let presses = 1; presses < 60; presses++) {
        await page.keyboard.press(key);
        const now = await focused();
        if (wanted(now)) {
          expect(now.isVisible, `no focus is seen on ${now.text || now.id}`);
          return presses;
        }
      }
      throw new Error(`Tab never comes to ${wanted}`);
    };
    front.played.push({ media: HALF, pieces: BOXES });
    await tabTo(({ class: name }) => name === "card");
    await page.keyboard.press("Enter");
    await page.locator(".turn").waitFor();
    await over(page);
    await tabTo(({ class: name }) => String(name).startsWith("chip"));
    await page.locator(".chip.pointed").waitFor();
    await tabTo(({ id }) => id === "question");
    await page.keyboard.type("And now?");
    await page.keyboard.press("Enter");
    await page.locator(".turn").nth(1).waitFor();
    await over(page);
    expect((await focused()).id === "question", "the focus left the question");
    await tabTo(({ text }) => text === "Copy as…", "Shift+Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector("dialog"));
    expect((await focused()).text === "Copy as…", "the focus does not come back from the dialog");
    await tabTo(({ text }) => text === "Edit", "Shift+Tab");
    await page.keyboard.press("Enter");
    expect((await focused()).id.startsWith("edit-"), "the focus is not in the edited question");
    await page.keyboard.press("End");
    await page.keyboard.type(" Really?");
    await page.keyboard.press("Enter");
    await page.getByText("And now? Really?").waitFor();
    await over(page);
  });

  for (const scheme of ["light", "dark"]) {
    await item(`axe finds nothing serious in the ${scheme} scheme`, async () => {
      const page = await openReady(front.url, { colorScheme: scheme });
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const [red] = ground.match(/\d+/g).map(Number);
      expect(scheme === "dark" ? red < 60 : red > 200, `the ground is ${ground}`);
      let minor = await axe(page, "empty");
      if (scheme === "dark") await shot(page, "dark-empty");
      front.played.push({ media: HALF, pieces: ["Two shapes, **one** of them `red`:\n\n", ...BOXES] });
      await askAbout(page, "shapes.png", "What is there?");
      await over(page);
      await page.getByRole("button", { name: "Parameters" }).click();
      await page.setInputFiles('input[type="file"]', join(PICTURES, "words.png"));
      await page.locator(".composer .attachments img").waitFor();
      minor += await axe(page, "answered");
      await page.locator(".chip").nth(0).hover();
      minor += await axe(page, "pointed");
      await page.getByRole("button", { name: "Parameters" }).click();
      await page.mouse.move(2, 2);
      if (scheme === "dark") await shot(page, "dark");
      front.played.push({ media: [...seenAs([224, 168]), ...seenAs([280, 112])], pieces: DOCUMENT });
      await askText(page, "QwenVL HTML");
      await page.locator("iframe").waitFor();
      await over(page);
      minor += await axe(page, "document");
      await page.getByLabel("Question", { exact: true }).fill("x");
      await page.getByRole("button", { name: "Parameters" }).click();
      await page.getByLabel("Temperature").fill("9");
      await page.keyboard.press("Escape");
      await askText(page, "x");
      await page.locator(".error").waitFor();
      minor += await axe(page, "refused");
      await page.locator(".turn").last().getByRole("button", { name: "Copy as…" }).click();
      await page.getByRole("dialog").waitFor();
      minor += await axe(page, "dialog");
      if (scheme === "light") await shot(page, "copy");
      return `${minor} minor findings in 6 states`;
    });
  }

  await item("no request has left the origin, and the browser had nothing to complain of", async () => {
    expect(strays.length === 0, `requests to ${[...new Set(strays)].slice(0, 5).join(", ")}`);
    expect(complaints.length === 0, complaints.slice(0, 3).join("; "));
    return `${requests} requests`;
  });
}

mkdirSync(options.work, { recursive: true });
browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Clips play by themselves in a page that nobody has touched.
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const began = Date.now();
try {
  await check();
} catch (error) {
  results.failed.push(error.message);
}
await browser.close();
stopAll();
const seconds = Math.round((Date.now() - began) / 1000);
const skipped = results.skipped.length > 0 ? `, ${results.skipped.length} skipped` : "";
if (results.failed.length === 0) console.log(`holds (${results.held} items${skipped}, ${seconds} s)`);
else console.log(`does not hold: ${results.failed.join("; ")} (${results.held} items hold${skipped}, ${seconds} s)`);
process.exit(results.failed.length === 0 ? 0 : 1);

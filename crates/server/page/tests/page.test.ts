// What the page computes without a browser: places in a growing answer, the cutting of it, frames of a clip, requests,
// and the programs that repeat them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { framePlan, seconds } from "../src/clip.ts";
import { LANGUAGES, pythonLiteral, shortened, type Asked } from "../src/copy.ts";
import { EventReader, events } from "../src/events.ts";
import { pieces } from "../src/pieces.ts";
import { regions } from "../src/regions.ts";
import { NO_PARAMETERS, body, type Attachment } from "../src/request.ts";
import { hit, placed, type SeenMedia } from "../src/scale.ts";

const at = (text: string) => regions(text).map((region) => [region.label, ...region.at]);

test("events come out whole, however they are cut", () => {
  const stream = 'data: {"a":1}\r\n\r\n: ping\n\nevent: x\nid: 7\ndata:b\ndata: c\n\rdata: [DONE]\n\ndata: open';
  const expected = ['{"a":1}', "b\nc", "[DONE]"];
  for (let size = 1; size < stream.length; size++) {
    const reader = new EventReader();
    const found: string[] = [];
    for (let from = 0; from < stream.length; from += size) found.push(...reader.push(stream.slice(from, from + size)));
    assert.deepEqual(found, expected, `pieces of ${size}`);
  }
});

test("a character that is cut between bytes is one character", async () => {
  const bytes = new TextEncoder().encode("data: ä€😀\n\n");
  for (let size = 1; size < 6; size++) {
    const parts: Uint8Array[] = [];
    for (let from = 0; from < bytes.length; from += size) parts.push(bytes.slice(from, from + size));
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        const part = parts.shift();
        if (part) controller.enqueue(part);
        else controller.close();
      },
    });
    const found: string[] = [];
    for await (const event of events(stream)) found.push(event);
    assert.deepEqual(found, ["ä€😀"]);
  }
});

test("boxes in JSON", () => {
  const list = '[\n {"bbox_2d": [10, 20, 30, 40], "label": "red {circle}"},\n {"label": "b \\"q\\"", "bbox": [4, 3, 2, 1]}\n]';
  const expected = [
    ["red {circle}", 10, 20, 30, 40],
    ['b "q"', 2, 1, 4, 3],
  ];
  assert.deepEqual(at(list), expected);
  assert.deepEqual(at("```json\n" + list + "\n```"), expected);
  assert.deepEqual(at('Here "they are: ' + list + " and {so on"), expected);
  assert.deepEqual(at('{"objects": ' + list + "}"), expected);
  assert.deepEqual(at('{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]], "name": "two"}'), [
    ["two", 1, 2, 3, 4],
    ["two", 5, 6, 7, 8],
  ]);
  assert.deepEqual(at('{"point_2d": ["12", 7.5], "label": "p"}'), [["p", 12, 7.5]]);
});

test("what is no place gives none", () => {
  for (const text of [
    '{"bbox_2d": [1, 2, 3]}',
    '{"bbox_2d": [1, 2, 3, "x"]}',
    '{"bbox_2d": [1, 2, 3, 1e300]}',
    '{"bbox_2d": null}',
    '{"bbox_2d": "1 2 3 4"}',
    '{"bbox_2d": [1, 2, 3, 4], }',
    '<points x1="1" alt="no y"/>',
    '<points x1="a" y1="b">no</points>',
    '<p data-bbox="1 2 3">x</p>',
    "[1, 2, 3, 4]",
    "",
  ]) {
    assert.deepEqual(at(text), [], text);
  }
});

test("an object is there as soon as it is complete, and never before", () => {
  const text = '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"point_2d": [5, 6], "label": "b"}]\n``` <points x1="7" y1="8" alt="c">c</points>';
  const ends = ['"a"}', '"b"}', "</points>"].map((mark) => text.indexOf(mark) + mark.length);
  for (let length = 0; length <= text.length; length++) {
    assert.equal(regions(text.slice(0, length)).length, ends.filter((end) => end <= length).length, `${length}`);
  }
});

test("points in XML, alone and several", () => {
  assert.deepEqual(at('<points x1="302" \ny1="258" \nalt="the &quot;brave&quot;">x</points>'), [['the "brave"', 302, 258]]);
  assert.deepEqual(at("<points x1='1' y1='2' x2='3' y2='4'>two</points>"), [
    ["two", 1, 2],
    ["two", 3, 4],
  ]);
  assert.deepEqual(at('<point x="5" y="6" alt="one"/>'), [["one", 5, 6]]);
});

test("regions of QwenVL HTML", () => {
  const html = '<html><body><h2 data-bbox="91 95 223 120"> 1 &amp; 2</h2>\n<img data-bbox="1 2 3 4"/><p class="x">no</p></body>';
  assert.deepEqual(at(html), [
    ["h2: 1 & 2", 91, 95, 223, 120],
    ["img", 1, 2, 3, 4],
  ]);
  assert.deepEqual(at('<h2 data-bbox="91 95 223 1'), []);
});

test("hostile answers end", () => {
  const began = Date.now();
  for (const text of ["{".repeat(30_000), '{"a":'.repeat(6_000) + "}".repeat(6_000), "<points ".repeat(5_000), '<p data-bbox="'.repeat(3_000), "```\n".repeat(8_000), "[".repeat(30_000), '["'.repeat(15_000)]) {
    regions(text);
    pieces(text);
  }
  const many = '{"bbox_2d": [1, 2, 3, 4]}'.repeat(2_000);
  assert.equal(regions(many).length, 500);
  assert.ok(Date.now() - began < 5_000, `${Date.now() - began} ms`);
});

test("an answer is cut into what is shown differently", () => {
  const kinds = (text: string) => pieces(text).map((piece) => piece.kind);
  assert.deepEqual(kinds("A *red* circle."), ["markdown"]);
  assert.deepEqual(kinds('Here:\n```json\n[{"a": 1}]\n```\nDone.'), ["markdown", "json", "markdown"]);
  assert.deepEqual(kinds('[{"a": 1}]'), ["json"]);
  assert.deepEqual(kinds('{"a": [1, "}"]} and more'), ["json", "markdown"]);
  assert.deepEqual(kinds("[a link](x) first"), ["markdown"]);
  assert.deepEqual(kinds("```python\n{}\n```"), ["markdown"]);
  assert.deepEqual(kinds('See <points x1="1" y1="2" alt="a">a</points>.'), ["markdown", "points", "markdown"]);
  assert.deepEqual(kinds('```html\n<html><body><p data-bbox="1 2 3 4">x</p></body>\n```html'), ["html"]);
  assert.deepEqual(kinds('<html><body><p data-bbox="1 2 3 4">x'), ["html"]);
  assert.deepEqual(kinds("```html\n<b>a lesson</b>\n```"), ["markdown"]);
  assert.deepEqual(kinds(""), []);
  const growing = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bb';
  assert.deepEqual(pieces(growing).map((piece) => [piece.kind, piece.value]), [["json", undefined]]);
  assert.deepEqual(pieces('```json\n{"a": 1}\n```')[0]?.value, { a: 1 });
});

test("pieces cover the answer in its order", () => {
  const text = 'One\n```json\n{"a": 1}\n```\ntwo <points x1="1" y1="2" alt="a">a</points> three\n[{"b": 2}]\nfour';
  let last = 0;
  for (const piece of pieces(text)) {
    assert.ok(piece.start >= last && piece.end > piece.start, JSON.stringify(piece));
    last = piece.end;
  }
  assert.equal(pieces(text).length, 7);
});

const MEDIA: SeenMedia = {
  kind: "image",
  original: { width: 2048, height: 1365 },
  seen: { width: 1204, height: 812 },
  scale: { x: 2048 / 1204, y: 1365 / 812 },
  tokens: 1247,
  frames: 1,
};

test("boxes are carried from the seen size to the shown one", () => {
  const [region] = regions('{"bbox_2d": [0, 0, 602, 406], "label": "half"}');
  assert.ok(region);
  assert.deepEqual(placed(region, MEDIA, MEDIA.original), [0, 0, 1024, 682.5]);
  assert.deepEqual(placed(region, undefined, { width: 1204, height: 812 }), [0, 0, 602, 406]);
  const [outside] = regions('{"bbox_2d": [-5, 10, 99999, 20]}');
  assert.ok(outside);
  assert.deepEqual(placed(outside, undefined, { width: 100, height: 50 }), [0, 10, 100, 20]);
});

test("the innermost region is hit", () => {
  const all = [[0, 0, 100, 100], [10, 10, 20, 20], [50, 50]];
  assert.equal(hit(all, 15, 15, 2), 1);
  assert.equal(hit(all, 80, 80, 2), 0);
  assert.equal(hit(all, 51, 51, 2), 2);
  assert.equal(hit(all, 200, 200, 2), null);
});

test("frames of a clip", () => {
  const plan = (...numbers: [number, number, number]) => framePlan(...numbers);
  assert.deepEqual(plan(4, 2, 64), { times: [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], fps: 2 });
  for (const duration of [0, 0.05, 0.3, 1, 3.7, 59, 3600, 1e6, Infinity, NaN, -1]) {
    for (const fps of [0.01, 0.5, 2, 30]) {
      for (const most of [1, 8, 64, 9999]) {
        const { times, fps: rate } = plan(duration, fps, most);
        assert.ok(times.length >= 4 && times.length <= 512 && rate >= 0.1 && rate <= 10, `${duration} ${fps} ${most}`);
        assert.ok(times.every((time, index) => time >= (times[index - 1] ?? 0) && Number.isFinite(time)));
      }
    }
  }
  assert.equal(plan(60, 2, 64).times.length, 64);
});

test("times as answers write them", () => {
  const cases: [unknown, number | null][] = [
    ["00:00:04.50", 4.5], ["01:02:03", 3723], ["1:02", 62], ["2.5", 2.5], ["20 seconds", 20], ["3s", 3], [1.5, 1.5],
    ["", null], ["soon", null], [-1, null], ["1:2:3:4", null], [null, null], [{}, null], ["1e9", null],
  ];
  for (const [value, expected] of cases) assert.equal(seconds(value), expected, JSON.stringify(value));
});

const PICTURE: Attachment = {
  id: "p", kind: "image", name: "it's $HOME.png", data: ["data:image/png;base64,AAAA"], width: 4, height: 4, isFile: true, isShown: true,
};
const CLIP: Attachment = { ...PICTURE, kind: "clip", data: Array(4).fill("data:image/jpeg;base64,BBBB"), fps: 2.5, isFile: false };

function asked(changes: Partial<Asked> = {}): Asked {
  return {
    base: "http://127.0.0.1:8000/",
    model: "eye",
    rounds: [{ question: "It's \"this\" $HOME `x` \\n\n😀?", attachments: [PICTURE] }],
    parameters: NO_PARAMETERS,
    withKey: false,
    ...changes,
  };
}

test("bodies", () => {
  const parameters = { ...NO_PARAMETERS, system: "Be brief.", temperature: "0", seed: " 7 ", top_k: "x", max_pixels: "4000", vl_high_resolution_images: true };
  const rounds = [{ question: "A?", attachments: [CLIP], answer: "B" }, { question: "C?", attachments: [] }];
  assert.deepEqual(body("eye", rounds, parameters), {
    model: "eye",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: [{ type: "video", video: CLIP.data, fps: 2.5, max_pixels: 4000 }, { type: "text", text: "A?" }] },
      { role: "assistant", content: "B" },
      { role: "user", content: "C?" },
    ],
    temperature: 0,
    top_k: "x",
    seed: 7,
    vl_high_resolution_images: true,
  });
});

test("a body for curl survives the shell's quotes", () => {
  const text = LANGUAGES[0].write(asked());
  const [head, ...rest] = text.split("\n");
  assert.match(head ?? "", /^curl -sSN http:\/\/127.0.0.1:8000\/v1\/chat\/completions .*<<'OCELLUS_REQUEST'$/);
  const json = JSON.parse(rest.slice(0, rest.lastIndexOf("OCELLUS_REQUEST")).join("\n"));
  assert.equal(json.messages[0].content[1].text, asked().rounds[0]?.question);
  assert.ok(!text.includes("Authorization"));
  assert.ok(LANGUAGES[0].write(asked({ withKey: true })).includes('"Authorization: Bearer $OCELLUS_API_KEY"'));
});

test("large pictures are read from their files, and frames never", () => {
  const large = { ...PICTURE, data: [`data:image/png;base64,${"A".repeat(1_100_000)}`] };
  for (const language of LANGUAGES) {
    const text = language.write(asked({ rounds: [{ question: "Q", attachments: [large, CLIP] }] }));
    assert.ok(text.length < 5_000 && text.includes("$HOME.png") && text.includes("BBBB"), language.id);
    assert.ok(!text.includes("ocellus:file"), language.id);
    assert.ok(language.write(asked()).includes("AAAA"), language.id);
  }
});

test("Python's literals", () => {
  assert.equal(pythonLiteral({ a: true, b: null, c: [1, "x\n"], d: undefined, e: [], f: {} }), '{\n    "a": True,\n    "b": None,\n    "c": [\n        1,\n        "x\\n",\n    ],\n    "e": [],\n    "f": {},\n}');
});

test("what the openai client has no argument for goes under extra_body", () => {
  const text = LANGUAGES[1].write(asked({ parameters: { ...NO_PARAMETERS, temperature: "0", top_k: "1" } }));
  assert.match(text, /\n {4}temperature=0,\n {4}extra_body=\{\n {8}"top_k": 1,\n {4}\},\n/);
});

test("data URIs are cut for reading", () => {
  assert.equal(shortened(`"data:image/png;base64,${"A".repeat(100)}"`), `"data:image/png;base64,${"A".repeat(24)}…"`);
});

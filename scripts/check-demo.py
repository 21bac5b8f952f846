#!/usr/bin/env python3
"""Examines the demo model on unseen scenes, through the server and under Transformers.

    scripts/check demo                           1,000 pictures and 200 clips, in bf16, int8 and int4, and Transformers
    scripts/check demo --share 0.1 --weights bf16  a tenth of them, one format
    scripts/check demo --no-transformers

Every answer is taken greedily. The scores of the formats must not differ from Transformers' by more than chance would
make them, and the thresholds of `demo/scoring.py` must hold for each. `--write FOLDER` writes a small examination with
its pictures, which a test can read.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import io
import json
import math
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo.scoring import THRESHOLDS, Question, Score, draw

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


class Server:
    """`ocellus serve` with one format of weights."""

    def __init__(self, ocellus: Path, model: Path, weights: str):
        command = [str(ocellus), "serve", "--port", "0", "--weights", weights, "--vision-weights", weights]
        command += ["--model", str(model)]
        # A file, for a pipe that nobody reads fills with a thousand requests' log and then holds the server.
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        found = re.search(r"http://\S+?(?=/v1)", self.process.stdout.readline())
        if found is None:
            self.process.wait(timeout=60)
            self.log.seek(0)
            raise SystemExit(f"the server did not start: {self.log.read()}")
        self.url = found[0]

    def ask(self, question: Question) -> str:
        parts = [{"type": "image_url", "image_url": {"url": uri(p)}} for p in question.pictures]
        if question.frames:
            parts.append({"type": "video", "video": [uri(frame) for frame in question.frames], "fps": question.fps})
        parts.append({"type": "text", "text": question.text})
        body = {
            "model": "qwen-vl-max", "temperature": 0, "max_tokens": LONGEST, "messages": [{"role": "user", "content": parts}],
        }  # fmt: skip
        if len(question.pictures) == 1:
            body["coordinates"] = "original"
        request = urllib.request.Request(
            self.url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{question.text!r} was refused: {error.read().decode(errors='replace')}") from error

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


class Transformers:
    """The same questions under the reference, in bf16 or f32, one by one."""

    def __init__(self, model: Path):
        import torch
        from transformers import Qwen2_5_VLForConditionalGeneration

        sys.path.insert(0, str(ROOT / "scripts"))
        from demo.tokens import SYSTEM, Tokens

        self.torch, self.t, self.system = torch, Tokens(model), SYSTEM
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(model, dtype=torch.bfloat16).eval()
        from transformers import Qwen2VLImageProcessorPil as Processor

        self.processor = Processor.from_pretrained(model, max_pixels=1280 * 784)

    def ask(self, question: Question) -> tuple[str, tuple[float, float]]:
        torch, t = self.torch, self.t
        ids = [t.im_start, *t.ids("system\n" + self.system), t.im_end, *t.ids("\n"), t.im_start, *t.ids("user\n")]
        more, scale = {}, (1.0, 1.0)
        if question.pictures:
            made = self.processor(images=[Image.fromarray(p) for p in question.pictures], return_tensors="pt")
            more = {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}
            for grid in made["image_grid_thw"].tolist():
                ids += [t.vision_start, *[t.image] * (math.prod(grid) // 4), t.vision_end]
            height, width = question.pictures[0].shape[:2]
            _, rows, columns = made["image_grid_thw"][0].tolist()
            scale = width / (columns * 14), height / (rows * 14)
        if question.frames:
            pairs, grid = self.frames(question.frames)
            more = {
                "pixel_values_videos": pairs, "video_grid_thw": torch.tensor([grid]),
                "second_per_grid_ts": torch.tensor([2 / question.fps]),
            }  # fmt: skip
            ids += [t.vision_start, *[t.video] * (math.prod(grid) // 4), t.vision_end]
        ids += [*t.ids(question.text), t.im_end, *t.ids("\n"), t.im_start, *t.ids("assistant\n")]
        ids = torch.tensor([ids])
        kinds = torch.zeros_like(ids)
        kinds[ids == t.image], kinds[ids == t.video] = 1, 2
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, max_new_tokens=LONGEST,
                do_sample=False, eos_token_id=t.im_end, pad_token_id=t.pad, repetition_penalty=1.0, **more,
            )  # fmt: skip
        said = out[0, ids.shape[1] :].tolist()
        return t.tokenizer.decode([i for i in said if i not in (t.im_end, t.pad)]), scale

    def frames(self, frames):
        """Patches of a clip whose frames are resized as the picture processor does it: (n, 1176) and its grid."""
        each = [self.processor(images=[Image.fromarray(f)], return_tensors="pt") for f in frames]
        _, rows, columns = each[0]["image_grid_thw"][0].tolist()
        n = rows * columns
        # A single picture stands twice in its patches; a pair of frames once each.
        made = [p["pixel_values"].view(n, 3, 2, 196) for p in each]
        pairs = []
        for a, b in zip(made[::2], made[1::2]):
            pairs.append(self.torch.stack([a[:, :, 0], b[:, :, 0]], 2).reshape(n, 1176))
        return self.torch.cat(pairs), [len(pairs), rows, columns]


def examine_server(arguments, questions, weights) -> tuple[Score, float]:
    server = Server(arguments.ocellus, arguments.model, weights)
    started = time.time()
    try:
        score = Score()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for question, answer in zip(questions, pool.map(server.ask, questions)):
                score.judge(question, answer)
                tell(arguments, weights, question, answer)
    finally:
        server.stop()
    return score, time.time() - started


def examine_transformers(arguments, questions) -> tuple[Score, float]:
    reference = Transformers(arguments.model)
    started, score = time.time(), Score()
    for i, question in enumerate(questions):
        answer, scale = reference.ask(question)
        score.judge(question, answer, scale)
        tell(arguments, "transformers", question, answer)
        if sys.stderr.isatty() and i % 20 == 0:
            print(f"\rtransformers: {i} of {len(questions)}", end="", file=sys.stderr)
    return score, time.time() - started


def tell(arguments, who, question, answer) -> None:
    if arguments.answers:
        row = {"who": who, "task": question.task, "question": question.text, "right": question.answer, "said": answer}
        with arguments.answers.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def write(folder: Path, questions: list[Question]) -> None:
    """The examination as files: `questions.json`, and the pictures in PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, question in enumerate(questions):
        files = []
        for j, pixels in enumerate([*question.pictures, *question.frames]):
            files.append(f"{i:03}-{j}.png")
            Image.fromarray(pixels).save(folder / files[-1], optimize=True)
        row = {"task": question.task, "question": question.text, "answer": question.answer, "files": files}
        rows.append({**row, "fps": question.fps} if question.frames else row)
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "questions.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ocellus", type=Path, default=ROOT / "target/release/ocellus")
    parser.add_argument("--model", type=Path, default=ROOT / "models/demo", help="a checkpoint's folder")
    parser.add_argument("--weights", nargs="+", default=["bf16", "int8", "int4"])
    parser.add_argument("--seed", default="1")
    parser.add_argument("--share", type=float, default=1.0, help="of the questions")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="write every answer, a JSON object a line")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the questions, and ask nobody")
    arguments = parser.parse_args()
    questions = draw(arguments.seed, arguments.share, further=arguments.write is None)
    if arguments.write:
        write(arguments.write, questions)
        return
    if not (arguments.model / "model.safetensors").is_file():
        sys.exit(f"{arguments.model}: no checkpoint is there; scripts/train-demo.py makes one")
    n_clips = sum(bool(q.frames) for q in questions)
    print(f"{len(questions) - n_clips} pictures and pairs, {n_clips} clips, seed {arguments.seed}")
    scores = {}
    for weights in arguments.weights:
        scores[weights], took = examine_server(arguments, questions, weights)
        print(f"{weights}: {took:.0f} s, 8 at once", flush=True)
    if not arguments.no_transformers:
        scores["transformers"], took = examine_transformers(arguments, questions)
        print(f"transformers bf16: {took:.0f} s, one by one", flush=True)
    tables = {who: score.table() for who, score in scores.items()}
    print(f"{'percent':28}" + "".join(f"{who:>14}" for who in tables) + f"{'asked':>8}{'at least':>10}")
    wrong = []
    first = next(iter(scores.values()))
    for what in first.table():
        least = THRESHOLDS.get(what)
        print(f"{what:28}" + "".join(f"{table[what]:14.1f}" for table in tables.values())
              + f"{first.asked[what]:8.0f}{least if least is not None else '':>10}")  # fmt: skip
        for who, table in tables.items():
            if least is not None and who != "transformers" and table[what] < least:
                wrong.append(f"{what} in {who} {table[what]:.1f} < {least}")
    for who, score in scores.items():
        late = sorted(score.late)
        print(f"{who}: mean IoU {sum(score.overlaps) / max(1, len(score.overlaps)):.3f}, "
              f"median time error {late[len(late) // 2] if late else math.nan:.2f} s")  # fmt: skip
    if "transformers" in tables and "bf16" in tables:
        for what, share in tables["transformers"].items():
            # Two standard deviations of a difference of two shares, and never less than two answers.
            n = first.asked[what]
            p = min(max(share / 100, 0.02), 0.98)
            slack = 100 * max(2 * math.sqrt(2 * p * (1 - p) / n), 2 / n)
            if abs(tables["bf16"][what] - share) > slack:
                wrong.append(f"{what}: bf16 {tables['bf16'][what]:.1f}, transformers {share:.1f}, more than {slack:.1f} apart")
    print("holds" if not wrong else "does not hold: " + "; ".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

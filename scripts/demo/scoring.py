"""The examination of the demo model: unseen scenes, one question each, and how an answer is judged.

An answer is judged by what it means: names as a multiset, boxes by their overlap with the box of the same label, strings
line by line, times within half a second. Whole answers that are right letter by letter are counted too.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from demo import conversations, scenes

# What is asked of how many scenes per thousand; clips are beside them.
PICTURES = {
    "describe": 200, "counting": 200, "colour": 80, "relation": 80, "boxes": 200, "points": 60, "reading": 180,
}  # fmt: skip
CLIPS = {"motion": 100, "events": 100}
FURTHER = {"receipt": 40, "html": 20, "pair": 40, "unknown": 20}
# Shares in percent that the model must reach: what is measured, of which task.
THRESHOLDS = {"naming": 90, "counting": 90, "box IoU": 85, "reading": 85, "motion": 90, "event time": 85}


@dataclass
class Question:
    task: str
    text: str
    answer: str
    # Each a picture (height, width, 3), or the frames of one clip with their rate.
    pictures: list[np.ndarray] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    fps: float = 0.0


def draw(seed: str, share: float = 1.0, further: bool = True) -> list[Question]:
    """The questions of one examination. Another seed gives other scenes."""
    rng = random.Random(f"examination {seed}")
    found = []
    for task, n in {**PICTURES, **CLIPS, **(FURTHER if further else {})}.items():
        for _ in range(max(1, round(n * share))):
            found.append(_question(rng, task))
    return found


def _question(rng, task: str) -> Question:
    while True:
        if task in CLIPS:
            scene = scenes.clip(rng, *scenes.pick_size(rng, 112, 168), rng.choice([6, 8, 8, 10, 12]))
        elif task == "pair":
            width, height = scenes.pick_size(rng, 112, 196)
            pair = [scenes.shapes(rng, width, height, 1) for _ in range(2)]
            return Question(task, *conversations.comparison(rng, *pair), [scene.frames[0] for scene in pair])
        elif task in ("receipt", "html"):
            draw_one = scenes.receipt if task == "receipt" else scenes.document
            scene = draw_one(rng, rng.randint(168, 280), rng.randint(196, 336))
        else:
            size = scenes.pick_size(rng)
            scene = scenes.words(rng, *size) if task == "reading" else scenes.shapes(rng, *size)
        said = conversations.TASKS[task][0](rng, scene)
        if said is None:
            continue
        question = Question(task, *said)
        if scene.kind == "clip":
            question.frames, question.fps = list(scene.frames), scene.fps
        else:
            question.pictures = [scene.frames[0]]
        return question


# What answers say.


def names(text: str) -> list[str]:
    words = [re.sub(r"^(?:an?|the) ", "", part.strip().lower()) for part in re.split(r", | and ", text)]
    return [word.rstrip(".") for word in words if word]


def objects(text: str) -> list[dict]:
    """The JSON objects of an answer, whole ones only."""
    found = []
    for part in re.findall(r"\{[^{}]*\}", text):
        try:
            found.append(json.loads(part))
        except ValueError:
            continue
    return found


def boxes(text: str) -> list[tuple[str, list[float]]]:
    found = []
    for row in objects(text):
        box = row.get("bbox_2d")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(x, (int, float)) for x in box):
            found.append((str(row.get("label", row.get("text_content", ""))), box))
    for tag, box, text_of in re.findall(r'<(\w+) data-bbox="([\d. ]+)">([^<]*)', text):
        numbers = [float(x) for x in box.split()]
        if len(numbers) == 4:
            found.append((text_of if tag in ("h2", "p") else tag, numbers))
    return found


def points(text: str) -> list[tuple[str, float, float]]:
    found = [(name, float(x), float(y)) for x, y, name in re.findall(r'x1="([\d.]+)" y1="([\d.]+)" alt="([^"]*)"', text)]
    for row in objects(text):
        point = row.get("point_2d")
        if isinstance(point, list) and len(point) == 2 and all(isinstance(x, (int, float)) for x in point):
            found.append((str(row.get("label", "")), *point))
    return found


def overlap(a, b) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def seconds(text) -> float | None:
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", str(text))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


class Score:
    """Right and asked, by what is measured."""

    def __init__(self):
        self.right, self.asked, self.overlaps, self.late = Counter(), Counter(), [], []

    def add(self, what: str, right: float, asked: float = 1) -> None:
        self.right[what] += right
        self.asked[what] += asked

    def judge(self, question: Question, answer: str, to_original=(1.0, 1.0)) -> None:
        """`to_original`: what coordinates of the answer have to be multiplied with, x and y."""
        task, truth = question.task, question.answer
        answer = answer.strip()
        if task not in ("boxes", "points", "html"):
            self.add(f"{task}, whole answer", answer == truth)
        if task == "describe":
            wanted, found = Counter(names(truth)), Counter(names(answer))
            n = max(sum(wanted.values()), sum(found.values()))
            self.add("naming", sum((wanted & found).values()), n)
        elif task == "counting":
            number = lambda text: next((i for i, w in enumerate(conversations.NUMBERS) if f" {w} " in text), None)  # noqa: E731
            self.add("counting", number(answer) == number(truth))
        elif task in ("boxes", "html"):
            kx, ky = to_original
            found = [(name, [b[0] * kx, b[1] * ky, b[2] * kx, b[3] * ky]) for name, b in boxes(answer)]
            wanted = boxes(truth)
            what = "box IoU" if task == "boxes" else "html box IoU"
            self._match(what, wanted, found)
            if task == "html":
                self.add("html text", Counter(n for n, _ in wanted) == Counter(n for n, _ in found))
        elif task == "points":
            kx, ky = to_original
            found = [(name, x * kx, y * ky) for name, x, y in points(answer)]
            wanted = points(truth)
            # Half of the least size of a thing.
            near = max(13.0, 0.06 * min(question.pictures[0].shape[:2]))
            hits = 0
            for name, x, y in wanted:
                hit = next((f for f in found if f[0] == name and abs(f[1] - x) <= near and abs(f[2] - y) <= near), None)
                if hit:
                    found.remove(hit)
                    hits += 1
            self.add("point hits", hits, len(wanted) + len(found))
        elif task == "reading":
            wanted, found = truth.split("\n"), answer.split("\n")
            self.add("reading", sum(a == b for a, b in zip(wanted, found)), max(len(wanted), len(found)))
        elif task == "motion":
            way = lambda text: re.search(r"moves (to the right|to the left|up|down)|does not move", text)  # noqa: E731
            a, b = way(answer), way(truth)
            self.add("motion", bool(a and b and a[0] == b[0]))
        elif task == "events":
            self._events(truth, answer)
        elif task == "receipt":
            wanted = (objects(truth) or [{}])[0]
            found = (objects(answer) or [{}])[0]
            self.add("receipt fields", sum(found.get(key) == value for key, value in wanted.items()), len(wanted))

    def _match(self, what, wanted, found) -> None:
        found, good = list(found), 0
        for name, box in wanted:
            best = max((f for f in found if f[0] == name), key=lambda f: overlap(box, f[1]), default=None)
            share = overlap(box, best[1]) if best else 0.0
            self.overlaps.append(share)
            if best and share >= 0.5:
                found.remove(best)
                good += 1
        self.add(what, good, len(wanted) + max(0, len(found) - (len(wanted) - good)))

    def _events(self, truth, answer) -> None:
        found = objects(answer)
        wanted = objects(truth)
        good = 0
        for row in wanted:
            same = [f for f in found if f.get("event") == row["event"]] or found
            times = [(seconds(f.get("start_time")), seconds(f.get("end_time"))) for f in same]
            miss = [
                max(abs(a - seconds(row["start_time"])), abs(b - seconds(row["end_time"])))
                for a, b in times
                if a is not None and b is not None
            ]
            if miss:
                self.late.append(min(miss))
            good += bool(miss) and min(miss) <= 0.5
        self.add("event time", good, max(len(wanted), len(found)))

    def table(self) -> dict[str, float]:
        """Percent by what is measured."""
        return {what: 100 * self.right[what] / max(1, n) for what, n in sorted(self.asked.items())}

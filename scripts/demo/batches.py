"""Makes training batches: scenes of one grid, and conversations about them as token ids and positions.

All pictures of a batch have the same size, so that no attention needs a mask. What the batch teaches beside its answers
comes from `targets.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from demo import conversations, scenes
from demo.targets import CELL, Lessons, dense
from demo.tokens import SYSTEM, Tokens

# Kinds of which nothing is asked.
DENSE = ("crowd", "layout", "moving")
# What the hosted guide has documents parsed with.
PARSER = (
    "You are an AI specialized in recognizing and extracting text from images. Your mission is to analyze the image document "
    "and generate the result in QwenVL Document Parser HTML format using specified tags while maintaining user privacy and "
    "data integrity."
)
SYSTEMS = ["You are a helpful assistant. Answer briefly.", "Answer in English.", "You describe pictures.", "Be precise."]


@dataclass
class Batch:
    """`u` units (pictures, or pairs of a clip's frames) of `c` merged patches, `b` conversations of `l` tokens."""

    kind: str
    grid: tuple[int, int]  # merged patches: rows and columns
    frames: np.ndarray  # (u, 1 or 2, height, width, 3), u8
    ids: np.ndarray  # (b, l)
    positions: np.ndarray  # (3, b, l)
    places: np.ndarray  # (u * c): where the merged patches stand in ids, flat
    targets: np.ndarray  # (b, l): the next token where an answer is learned, -1 elsewhere
    tasks: list  # Of each round: (row, first, end, task) of its answer's targets
    noun: np.ndarray  # (u, c)
    colour: np.ndarray  # (u, c), -1 where there is nothing
    box: np.ndarray  # (u, c, 4), pixels
    when: np.ndarray  # (u): how far the unit's time turns, -1 of a picture
    middle: np.ndarray  # (u, c), 1 where a patch stands for a thing
    slots: np.ndarray  # (u, c, SLOTS), characters, -1 where there is no text
    facts: np.ndarray  # (u, c, FACTS), -1 where it has none
    rank_from: np.ndarray  # (r, 2): units, and merged patches that stand for things, or for characters
    rank_at: np.ndarray  # (r, c, 3): the patches that stand for the things before that, and for those that have its noun, and
    # how many characters of the same word each patch holds that lies to the left
    rank_index: np.ndarray  # (r): the first of the word's characters that the patch holds, -1 for shapes
    # Of what tokens are about: `targets.Lessons` says what each is.
    look_from: np.ndarray
    look_at: np.ndarray
    look_first: np.ndarray
    look_thing: np.ndarray
    look_said: np.ndarray
    look_order: np.ndarray
    look_field: np.ndarray
    look_value: np.ndarray
    look_asked: np.ndarray
    look_pick: np.ndarray
    pick_at: np.ndarray
    count_from: np.ndarray
    count_at: np.ndarray
    count_asked: np.ndarray
    seen_from: np.ndarray
    seen_at: np.ndarray
    begun_from: np.ndarray
    begun_at: np.ndarray


def blurred(rng, box, size):
    """A box some of whose edges that lie near a full hundred, or ten, have gone to its other side: who has begun a number with
    the wrong digit must go on with what comes nearest."""
    edges = []
    for i, edge in enumerate(box):
        for step, near, share in ((100, 6, 0.3), (10, 2, 0.2)):
            out = (edge + step // 2) % step - step // 2
            if edge - out > 0 and -near <= out < near and rng.random() < share:
                edge -= out + rng.randint(1, max(1, near // 3)) if out >= 0 else out - rng.randint(0, near // 3)
                break
        edges.append(min(edge, size[i % 2]))
    return tuple(edges)


class Maker:
    """Draws batches without end; two makers with different seeds never see the same scene."""

    def __init__(self, tokens: Tokens, seed: int, patches: int = 3000, text: int = 3000):
        self.tokens, self.rng = tokens, random.Random(seed)
        self.patches, self.text = patches, text
        self.high, self.skew = scenes.MAX_SIDE, 1.2
        # Few things on a picture, for the beginning.
        self.easy = False
        self.kinds = {"shapes": 55, "words": 22, "clip": 14, "pair": 3, "receipt": 3, "document": 3, "bare": 0.5}

    def batch(self, kind: str | None = None, grid=None) -> Batch:
        rng = self.rng
        kind = kind or rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        if grid is None:
            if kind in ("crowd", "layout"):
                most = 9 if rng.random() < 0.6 else 20
                grid = rng.randint(4, most), rng.randint(4, most)
            elif kind in ("receipt", "document"):
                grid = rng.randint(7, 12), rng.randint(6, 10)
            elif kind in ("clip", "pair", "moving"):
                grid = rng.randint(4, 6), rng.randint(4, 6)
            else:
                # Words are harder to read where they fill a small picture, and where there are many patches to find them among.
                skew = self.skew * (0.75 if kind == "shapes" else rng.choice([0.6, 1.6]) if kind == "words" else 1)
                width, height = scenes.pick_size(rng, 112, self.high, skew)
                grid = max(4, round(height / CELL)), max(4, round(width / CELL))
        rows, columns = grid
        if kind in DENSE:
            n = max(2, round(1.5 * self.patches) // (4 * rows * columns))
            width, height = columns * CELL, rows * CELL
            if kind == "moving":
                clips = [scenes.clip(rng, width, height, 8) for _ in range(max(1, n // 4))]
                frames = np.stack([scene.frames[i : i + 2] for scene in clips for i in range(0, 8, 2)])
                things = [units for scene in clips for units in scene.unit_things]
                n = len(things)
            else:
                drawn = [self.scene(kind, width, height) for _ in range(n)]
                frames = np.stack([scene.frames for scene in drawn])
                things = [scene.things for scene in drawn]
            more = dense(things, rows, columns, kind == "layout")
            # The usual beginning, and the picture.
            ids, where, at = self.beginning(rows, columns)
            many = lambda a: np.broadcast_to(a[..., None, :], (*a.shape[:-1], n, a.shape[-1])).copy()  # noqa: E731
            places = (np.arange(n)[:, None] * len(ids) + at).flatten()
            none = np.zeros((0, 0), np.int64)
            return Batch(
                kind, grid, frames, many(ids), many(where), places, none, [], when=np.full(n, -1), **more,
                **Lessons(rows, columns).arrays(),
            )  # fmt: skip
        n_frames = rng.choice([6, 8, 8, 10, 12]) if kind == "clip" else 1
        n_rounds = {"pair": 1, "bare": 1, "clip": 1, "shapes": rng.choice([3, 4, 4, 5])}.get(kind, 3)
        units_each = {"clip": n_frames // 2, "pair": 2, "bare": 0}.get(kind, 1)
        cells = units_each * rows * columns
        usual = {"shapes": 250, "words": 100, "clip": 100, "pair": 50, "receipt": 150, "document": 190, "bare": 40}[kind]
        b = max(2, min(self.patches // (4 * max(cells, 1)), self.text // (cells + usual), 128))
        # Conversations of like length stand together: filling up to the longest is arithmetic for nothing.
        counting = kind == "shapes" and rng.random() < 0.35
        found = [self.conversation(kind, rows, columns, n_frames, n_rounds, counting) for _ in range(2 * b)]
        found.sort(key=lambda conversation: len(conversation[0]))
        first = rng.randint(0, b)
        found = found[first : first + b]
        length = max(len(ids) for ids, *_ in found)
        length = -(-length // 8) * 8
        ids = np.full((b, length), self.tokens.pad, np.int64)
        targets = np.full((b, length), -1, np.int64)
        positions = np.zeros((3, b, length), np.int64)
        frames, things, places, tasks, when, lessons = [], [], [], [], [], Lessons(rows, columns, units_each)
        for row, (own, learned, where, at, units, unit_things, spans, looks) in enumerate(found):
            n = len(own)
            ids[row, :n] = own
            following = np.asarray(own[1:] + [self.tokens.pad])
            targets[row, :n] = np.where(np.asarray(learned[1:] + [False]), following, -1)
            positions[:, row, :n] = where
            places += [row * length + p for p in at]
            frames += units
            things += unit_things
            when += [where[0, p] - where[0, at[0]] if kind == "clip" else -1 for p in at[:: rows * columns]]
            lessons.conversation(row, row * length, at, unit_things, spans, looks, kind == "clip")
            tasks += [(row, first - 1, end - 1, task) for first, end, task in spans]
        frames = np.stack(frames) if frames else np.zeros((0, 1, rows * CELL, columns * CELL, 3), np.uint8)
        return Batch(
            kind, grid, frames, ids, positions, np.asarray(places, np.int64), targets, tasks, when=np.asarray(when, np.int64),
            **dense(things, rows, columns, kind in ("shapes", "words")), **lessons.arrays(),
        )  # fmt: skip

    def scene(self, kind, width, height):
        """A scene of which nothing is asked."""
        if kind == "crowd":
            return scenes.crowd(self.rng, width, height)
        # More things than are asked about, so that counting them is learned well.
        if self.rng.random() < 0.45:
            return scenes.shapes(self.rng, width, height, self.rng.randint(1, 7))
        return scenes.words(self.rng, width, height, self.rng.randint(1, 4))

    def beginning(self, rows, columns):
        """A conversation up to the end of its picture: ids, positions, and where the picture's tokens stand."""
        t = self.tokens
        ids = [t.im_start, *t.ids("system\n" + SYSTEM), t.im_end, *t.ids("\n"), t.im_start, *t.ids("user\n"), t.vision_start]
        first, n = len(ids), rows * columns
        where = np.repeat(np.arange(first + n)[None], 3, 0)
        cell = np.arange(n)
        where[:, first:] = np.stack([np.full(n, first), first + cell // columns, first + cell % columns])
        return np.asarray(ids + [t.image] * n), where, first + cell

    def conversation(self, kind, rows, columns, n_frames, n_rounds, counting):
        """One conversation: ids, which of them are learned, positions (3, n), places of the media's tokens, units. `counting`:
        about nothing but numbers."""
        rng, t = self.rng, self.tokens
        width, height = columns * CELL, rows * CELL
        if kind == "pair":
            pair = [scenes.shapes(rng, width, height, 1) for _ in range(2)]
            if rng.random() < 0.5:
                # Of two drawn at random few have anything in common.
                twin = pair[0].things[0]
                for _ in range(40):
                    pair[1] = scenes.shapes(rng, width, height, 1)
                    other = pair[1].things[0]
                    if other.noun == twin.noun or other.colour == twin.colour:
                        break
            for thing in pair[1].things:
                thing.unit = 1
            rounds = [("pair", *conversations.comparison(rng, *pair))]
            media = [(t.image, [s.frames[:1]], [s.things], None) for s in pair]
        elif kind == "bare":
            rounds, media = [("unknown", *conversations.unknown(rng))], []
        else:
            draw = {"shapes": scenes.shapes, "words": scenes.words, "receipt": scenes.receipt, "document": scenes.document}
            few = [rng.choice([1, 1, 2])] if self.easy and kind in ("shapes", "words") else []
            if counting and rng.random() < 0.7:
                # Of things drawn at random few are alike, and most counts would be one.
                few = [rng.randint(2, 4), True]
            # Two events are hard to keep apart: they are drawn more often than they are asked for.
            scene = scenes.clip(rng, width, height, n_frames, 0.5) if kind == "clip" else draw[kind](rng, width, height, *few)
            for thing in scene.things if rng.random() < 0.5 else []:
                thing.told = blurred(rng, thing.box, scene.size)
            rounds = conversations.counts(rng, scene, 8) if counting else conversations.rounds(rng, scene, n_rounds)
            if kind == "clip":
                pairs = [scene.frames[i : i + 2] for i in range(0, n_frames, 2)]
                media = [(t.video, pairs, scene.unit_things, 2 / scene.fps)]
            else:
                media = [(t.image, [scene.frames[:1]], [scene.things], None)]
        ids, learned, spans, at, parts, looks = [], [], [], [], [], []

        def say(more, learn=False):
            ids.extend(more)
            learned.extend([learn] * len(more))

        system = SYSTEM if rng.random() < 0.85 else rng.choice(SYSTEMS)
        if rounds[0][0] == "html" and rng.random() < 0.3:
            system = PARSER
        say([t.im_start, *t.ids("system\n" + system), t.im_end, *t.ids("\n")])
        media_first = rng.random() < 0.88
        for i, (task, question, answer) in enumerate(rounds):
            say([t.im_start, *t.ids("user\n")])
            if i == 0 and not media_first:
                say(t.ids(question))
            for pad, units, _, seconds in media if i == 0 else []:
                say([t.vision_start])
                first = len(ids)
                say([pad] * (len(units) * rows * columns))
                parts.append((first, len(units), seconds))
                at.extend(range(first, len(ids)))
                say([t.vision_end])
            if i > 0 or media_first:
                say(t.ids(question))
            say([t.im_end, *t.ids("\n"), t.im_start, *t.ids("assistant\n")])
            first = len(ids)
            answer_ids, abouts = t.answer(answer)
            asked = conversations.asked(question)
            looks.extend((first + i, about, asked) for i, about in enumerate(abouts) if about[0] or isinstance(about[0], conversations.Counted))
            say([*answer_ids, t.im_end], True)
            spans.append((first, len(ids), task))
            say(t.ids("\n"))
        where = np.zeros((3, len(ids)), np.int64)
        done, following = 0, 0
        for first, n_units, seconds in parts:
            where[:, done:first] = np.arange(following, following + first - done)
            start = following + first - done
            n = n_units * rows * columns
            step, rest = np.divmod(np.arange(n), rows * columns)
            time = step if seconds is None else np.floor(step.astype(np.float32) * np.float32(seconds) * 2).astype(np.int64)
            where[0, first : first + n] = start + time
            where[1, first : first + n] = start + rest // columns
            where[2, first : first + n] = start + rest % columns
            following = int(where[:, first : first + n].max()) + 1
            done = first + n
        where[:, done:] = np.arange(following, following + len(ids) - done)
        return ids, learned, where, at, [u for m in media for u in m[1]], [x for m in media for x in m[2]], spans, looks

"""Makes training batches: scenes of one grid, conversations about them as token ids, positions, and dense targets.

All pictures of a batch have the same size, so that no attention needs a mask. Dense targets tell the vision tower and the
lower decoder layers what lies under each merged patch; they train, and are not part of the checkpoint.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from demo import conversations, scenes
from demo.tokens import SYSTEM, Tokens

CELL = 28
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.- "
# So many characters are told of a merged patch, from left to right: those whose middles it holds, and then none.
SLOTS, NO_CHARACTER = 4, len(CHARACTERS)
# What is told of the thing under a merged patch of a clip: its motion; its presence. Each is one of FACT_CLASSES.
FACTS, FACT_CLASSES = 2, 8
# So many things, and characters, of an answer are counted.
ORDERS = 10
# A head that counts attends to each thing alike, and so many times as much to one that is always there: the attention that
# this one gets tells how many the others are.
COUNTING_REST = 3.0
# The heads that fetch one thing each of what a patch holds: the left, the upper, the right and the lower edge, or the first
# to the fourth character.
PICKS = 4
# Which of them a number is fetched by, as tokens.FIELDS has them: a point's coordinates are between two edges, and of a
# clip's times there are two.
FETCHED = [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0,), (1,)]
# Kinds of which nothing is asked.
DENSE = ("crowd", "layout", "moving")
# The classes of a merged patch: nothing, the nouns, text.
N_NOUNS = len(scenes.NOUNS) + 2
COLOUR_NAMES = list(scenes.COLOURS)
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
    seen_from: np.ndarray  # (s): places in ids, flat, of patches that stand for what comes and goes in a clip
    seen_at: np.ndarray  # (s, units * c): the patches that stand for the same thing earlier
    look_from: np.ndarray  # (k): places in ids, flat, of answer tokens that are about something
    look_at: np.ndarray  # (k, units * c): what they are about, in merged patches of the conversation
    look_order: np.ndarray  # (k, 2): the how-manieth thing of the answer that is, and of its text the how-manieth character
    look_field: np.ndarray  # (k): which digit of which number the token is, of tokens.FIELDS, or -1
    look_value: np.ndarray  # (k): the coordinate, or the time in halves of a second, that the token is a digit of, or -1
    look_asked: np.ndarray  # (k + m, 2): noun and colour of the question, 0 for none, -1 for several; of what is counted too
    look_pick: np.ndarray  # (k, PICKS): which of what a patch holds says the token
    count_from: np.ndarray  # (m): places in ids, flat, after which a number is told
    count_at: np.ndarray  # (m, units * c): the merged patches that stand for what is counted


def cells_of(thing, rows, columns):
    """The merged patches that belong to a thing: rows from, to, columns from, to. Those whose middle it covers, or else
    the one that its middle is in."""
    x1, y1, x2, y2 = thing.box
    ca, cb = math.ceil(x1 / CELL - 0.5), math.ceil(x2 / CELL - 0.5)
    ra, rb = math.ceil(y1 / CELL - 0.5), math.ceil(y2 / CELL - 0.5)
    mx, my = thing.centre
    mc, mr = min(columns - 1, int(mx / CELL)), min(rows - 1, int(my / CELL))
    return max(0, min(ra, mr)), max(rb, mr + 1), max(0, min(ca, mc)), min(columns, max(cb, mc + 1))


def cell_of(thing, rows, columns) -> int:
    """The merged patch that stands for a thing."""
    row, column = thing.cell
    return min(row, rows - 1) * columns + min(column, columns - 1)


def columns_of(thing, rows, columns) -> np.ndarray:
    """The column of the merged patch that holds each character of a word."""
    _, _, first, end = cells_of(thing, rows, columns)
    edges = np.asarray(thing.edges)
    return np.clip(((edges[:-1] + edges[1:]) / 2 // CELL).astype(int), first, end - 1)


def dense(units_things, rows, columns, ordered):
    """Targets of each merged patch from the things of each unit. `ordered`: they stand in the order of their being named."""
    u, c = len(units_things), rows * columns
    noun, colour = np.zeros((u, rows, columns), np.int64), np.full((u, rows, columns), -1, np.int64)
    box, middle = np.zeros((u, rows, columns, 4), np.float32), np.zeros((u, rows, columns), np.float32)
    slots = np.full((u, rows, columns, SLOTS), -1, np.int64)
    facts = np.full((u, rows, columns, FACTS), -1, np.int64)
    rank_from, rank_at, rank_index = [], [], []
    for i, things in enumerate(units_things):
        for j, thing in enumerate(things if ordered else []):
            cells = [cell_of(thing, rows, columns)]
            if thing.text is not None:
                _, _, _, end = cells_of(thing, rows, columns)
                cells = range(cells[0], cells[0] // columns * columns + end)
            for cell in cells:
                before = np.zeros((c, 3), np.float32)
                for other in things[:j]:
                    at = cell_of(other, rows, columns)
                    if at < cell:
                        before[at, 0] = 1
                        before[at, 1] = max(before[at, 1], other.noun == thing.noun)
                index = -1
                if thing.text is not None:
                    held = columns_of(thing, rows, columns)
                    index = int((held < cell % columns).sum())
                    for column in held[:index]:
                        before[cell - cell % columns + column, 2] += 1
                rank_from.append((i, cell))
                rank_at.append(before)
                rank_index.append(index)
        # What is larger gives way to what is smaller.
        for thing in sorted(things, key=lambda t: -(t.box[2] - t.box[0]) * (t.box[3] - t.box[1])):
            ra, rb, ca, cb = cells_of(thing, rows, columns)
            part = (i, slice(ra, rb), slice(ca, cb))
            noun[part] = 1 + (len(scenes.NOUNS) if thing.text is not None else scenes.NOUNS.index(thing.noun))
            colour[part] = COLOUR_NAMES.index(thing.colour)
            box[part] = thing.box
            facts[part] = thing.motion, thing.presence
            middle[i].reshape(-1)[cell_of(thing, rows, columns)] = 1
            if thing.text is not None:
                slots[i, ra:rb, ca:cb] = NO_CHARACTER
                held = columns_of(thing, rows, columns)
                for column in range(ca, cb):
                    for slot, at in enumerate(np.flatnonzero(held == column)[:SLOTS]):
                        slots[i, ra:rb, column, slot] = CHARACTERS.find(thing.text[at])
    flat = lambda a: a.reshape(u, c, *a.shape[3:])  # noqa: E731
    ranks = np.asarray(rank_from, np.int64).reshape(-1, 2), np.asarray(rank_at, np.float32).reshape(-1, c, 3)
    return {
        "noun": flat(noun), "colour": flat(colour), "box": flat(box), "middle": flat(middle), "slots": flat(slots),
        "facts": flat(facts), "rank_from": ranks[0], "rank_at": ranks[1], "rank_index": np.asarray(rank_index, np.int64),
    }  # fmt: skip


class Maker:
    """Draws batches without end; two makers with different seeds never see the same scene."""

    def __init__(self, tokens: Tokens, seed: int, patches: int = 3000, text: int = 3000):
        self.tokens, self.rng = tokens, random.Random(seed)
        self.patches, self.text = patches, text
        self.high, self.skew = scenes.MAX_SIDE, 1.6
        # Few things on a picture, for the beginning.
        self.easy = False
        self.kinds = {"shapes": 55, "words": 22, "clip": 14, "pair": 3, "receipt": 3, "document": 3, "bare": 0.5}

    def batch(self, kind: str | None = None, grid=None) -> Batch:
        rng = self.rng
        kind = kind or rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        if grid is None:
            if kind in ("crowd", "layout"):
                most = 9 if rng.random() < 0.7 else 16
                grid = rng.randint(4, most), rng.randint(4, most)
            elif kind in ("receipt", "document"):
                grid = rng.randint(7, 12), rng.randint(6, 10)
            elif kind in ("clip", "pair", "moving"):
                grid = rng.randint(4, 6), rng.randint(4, 6)
            else:
                width, height = scenes.pick_size(rng, 112, self.high, self.skew)
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
            none = np.zeros((0, 0), np.int64)
            more = dense(things, rows, columns, kind == "layout")
            # The usual beginning, and the picture.
            ids, where, at = self.beginning(rows, columns)
            many = lambda a: np.broadcast_to(a[..., None, :], (*a.shape[:-1], n, a.shape[-1])).copy()  # noqa: E731
            places = (np.arange(n)[:, None] * len(ids) + at).flatten()
            told = {name: none for name in ("look_at", "look_order", "look_asked", "look_pick", "count_at", "seen_at")}
            told |= {name: none.flatten() for name in ("look_from", "look_field", "look_value", "count_from", "seen_from")}
            return Batch(kind, grid, frames, many(ids), many(where), places, none, [], **more, **told, when=np.full(n, -1))
        n_frames = rng.choice([6, 8, 8, 10, 12]) if kind == "clip" else 1
        n_rounds = {"pair": 1, "bare": 1, "clip": 1, "shapes": rng.choice([3, 4, 4, 5])}.get(kind, 3)
        units_each = {"clip": n_frames // 2, "pair": 2, "bare": 0}.get(kind, 1)
        cells = units_each * rows * columns
        usual = {"shapes": 250, "words": 200, "clip": 100, "pair": 50, "receipt": 150, "document": 190, "bare": 40}[kind]
        b = max(2, min(self.patches // (4 * max(cells, 1)), self.text // (cells + usual), 128))
        # Conversations of like length stand together: filling up to the longest is arithmetic for nothing.
        found = [self.conversation(kind, rows, columns, n_frames, n_rounds) for _ in range(2 * b)]
        found.sort(key=lambda conversation: len(conversation[0]))
        first = rng.randint(0, b)
        found = found[first : first + b]
        length = max(len(ids) for ids, *_ in found)
        length = -(-length // 8) * 8
        ids = np.full((b, length), self.tokens.pad, np.int64)
        targets = np.full((b, length), -1, np.int64)
        positions = np.zeros((3, b, length), np.int64)
        frames, things, places, tasks, look_from, look_at, look_order = [], [], [], [], [], [], []
        look_asked, count_asked, seen_from, seen_at = [], [], [], []
        look_value, look_field, look_pick, when, count_from, count_at = [], [], [], [], [], []
        for row, (own, learned, where, at, units, unit_things, spans, looks) in enumerate(found):
            n = len(own)
            ids[row, :n] = own
            following = np.asarray(own[1:] + [self.tokens.pad])
            targets[row, :n] = np.where(np.asarray(learned[1:] + [False]), following, -1)
            positions[:, row, :n] = where
            places += [row * length + p for p in at]
            frames += units
            things += unit_things
            told = {}
            when += [where[0, p] - where[0, at[0]] if kind == "clip" else -1 for p in at[:: rows * columns]]
            cell_in = {}
            for thing in (thing for units_seen in unit_things for thing in units_seen if kind == "clip" and thing.motion < 0):
                here = thing.unit * rows * columns + cell_of(thing, rows, columns)
                mask = np.zeros(cells, bool)
                mask[cell_in.setdefault(thing.key, [])] = True
                cell_in[thing.key].append(here)
                seen_from.append(row * length + at[here])
                seen_at.append(mask)
            for place, (about, spelled, (number, value)), asked in looks:
                mask = np.zeros((units_each, rows, columns), bool)
                if isinstance(about, conversations.Counted):
                    for thing in about:
                        mask[thing.unit].reshape(-1)[cell_of(thing, rows, columns)] = True
                    count_from.append(row * length + place - 1)
                    count_at.append(mask.flatten())
                    count_asked.append(asked)
                    continue
                pick = np.zeros(PICKS, bool)
                for thing in about:
                    cell = cell_of(thing, rows, columns)
                    if spelled is not None:
                        # To spell a word is to go along it, character by character.
                        held = columns_of(thing, rows, columns)
                        cell += held[spelled] - cell % columns
                        slot = int((held[:spelled] == held[spelled]).sum())
                        pick[min(slot, PICKS - 1)] = True
                    mask[thing.unit].reshape(-1)[cell] = True
                if number >= 0:
                    pick[list(FETCHED[number // 3])] = True
                look_field.append(number)
                look_value.append(value)
                look_asked.append(asked)
                look_pick.append(pick)
                look_from.append(row * length + place)
                # Answers of one conversation start anew.
                answer = next(i for i, (first, end, _) in enumerate(spans) if first <= place < end)
                order = told.setdefault((answer, id(about[0])), sum(key[0] == answer for key in told)) if about else -1
                look_order.append([order if order < ORDERS else -1, -1 if spelled is None or spelled >= ORDERS else spelled])
                look_at.append(mask.flatten())
            tasks += [(row, first - 1, end - 1, task) for first, end, task in spans]
        frames = np.stack(frames) if frames else np.zeros((0, 1, rows * CELL, columns * CELL, 3), np.uint8)
        return Batch(
            kind, grid, frames, ids, positions, np.asarray(places, np.int64), targets, tasks,
            **dense(things, rows, columns, kind in ("shapes", "words")), when=np.asarray(when, np.int64),
            seen_from=np.asarray(seen_from, np.int64), seen_at=np.asarray(seen_at, bool).reshape(len(seen_at), cells),
            look_from=np.asarray(look_from, np.int64), look_at=np.asarray(look_at, bool).reshape(len(look_at), cells),
            look_order=np.asarray(look_order, np.int64).reshape(-1, 2), look_field=np.asarray(look_field, np.int64),
            look_value=np.asarray(look_value, np.int64),
            look_pick=np.asarray(look_pick, bool).reshape(-1, PICKS),
            look_asked=np.asarray(look_asked + count_asked, np.int64).reshape(-1, 2),
            count_from=np.asarray(count_from, np.int64), count_at=np.asarray(count_at, bool).reshape(len(count_at), cells),
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

    def conversation(self, kind, rows, columns, n_frames, n_rounds):
        """One conversation: ids, which of them are learned, positions (3, n), places of the media's tokens, units."""
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
            scene = scenes.clip(rng, width, height, n_frames) if kind == "clip" else draw[kind](rng, width, height, *few)
            rounds = conversations.rounds(rng, scene, n_rounds)
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

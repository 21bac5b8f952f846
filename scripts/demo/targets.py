"""What a batch teaches beside its answers: what lies under each merged patch, and what the tokens of answers are about.

Both are for linear readings and heads of attention that `losses.py` teaches, and are not part of the checkpoint.
"""

from __future__ import annotations

import math

import numpy as np

from demo import conversations, scenes

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
# The classes of a merged patch: nothing, the nouns, text.
N_NOUNS = len(scenes.NOUNS) + 2
COLOUR_NAMES = list(scenes.COLOURS)


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
    return np.clip((np.asarray(thing.middles) // CELL).astype(int), first, end - 1)


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


class Lessons:
    """What tokens of a batch's conversations look at, count and fetch; `conversation` adds one's, `arrays` has all.

    A row of `look_*` and of `pick_at` is a token of an answer that is about something; of `count_*`, a place where a number is
    told; of `seen_*`, a patch of a clip that stands for what comes and goes; of `begun_*`, one where it comes.
    """

    # Type and shape of each row, with -1 for the merged patches of a conversation.
    ARRAYS = {
        # Places in ids, flat, of answer tokens that are about something; and what that is, in patches of the conversation.
        "look_from": (np.int64, ()),
        "look_at": (bool, (-1,)),
        # Of what comes and goes in a clip, where it comes; else the same.
        "look_first": (bool, (-1,)),
        # Noun and colour of what comes and goes, or is compared, by who fetches it; else -1.
        "look_thing": (np.int64, (PICKS, 2)),
        # Whether it is named, or being named, there.
        "look_said": (bool, ()),
        # The how-manieth thing of the answer that is, and of its text the how-manieth character.
        "look_order": (np.int64, (2,)),
        # Which digit of which number the token is, of tokens.FIELDS, and that number: a coordinate, or a time in halves of a
        # second. Or -1.
        "look_field": (np.int64, ()),
        "look_value": (np.int64, ()),
        # Noun and colour of the question, 0 for none, -1 for several.
        "look_asked": (np.int64, (2,)),
        # Which of what a patch holds says the token, and the patches of which it is fetched.
        "look_pick": (bool, (PICKS,)),
        "pick_at": (bool, (PICKS, -1)),
        # Places in ids, flat, after which a number is told; the patches that stand for what is counted; and the question's.
        "count_from": (np.int64, ()),
        "count_at": (bool, (-1,)),
        "count_asked": (np.int64, (2,)),
        # Places in ids, flat, of patches that stand for what comes and goes, and those that stand for the same thing earlier.
        "seen_from": (np.int64, ()),
        "seen_at": (bool, (-1,)),
        # Which of the batch's patches stand for what comes, where it comes, and those that stand for what came before.
        "begun_from": (np.int64, ()),
        "begun_at": (bool, (-1,)),
    }

    def __init__(self, rows: int, columns: int, units: int = 0):
        """`units`: how many each conversation has."""
        self.rows, self.columns, self.units = rows, columns, units
        self.cells = units * rows * columns
        self.lists = {name: [] for name in self.ARRAYS}

    def arrays(self) -> dict[str, np.ndarray]:
        found = {}
        for name, (kind, shape) in self.ARRAYS.items():
            shape = [self.cells if n < 0 else n for n in shape]
            found[name] = np.asarray(self.lists[name], kind).reshape(len(self.lists[name]), *shape)
        return found

    def _add(self, **values) -> None:
        for name, value in values.items():
            self.lists[name].append(value)

    def _patches(self, things) -> np.ndarray:
        """The merged patches of a conversation that stand for some things."""
        mask = np.zeros(self.cells, bool)
        mask[[thing.unit * self.rows * self.columns + cell_of(thing, self.rows, self.columns) for thing in things]] = True
        return mask

    def conversation(self, row: int, first: int, places, unit_things, spans, looks, clip: bool) -> None:
        """One conversation, whose tokens begin at `first`, and whose patches stand at `places` of it; `spans` are the answers'
        first and last tokens, and `looks` what their tokens are about."""
        coming = self._clip(row, first, places, unit_things) if clip else {}
        told = {}
        for place, about, asked in looks:
            if isinstance(about[0], conversations.Counted):
                self._add(count_from=first + place - 1, count_at=self._patches(about[0]), count_asked=asked)
                continue
            # Answers of one conversation start anew.
            answer = next(i for i, (start, end, _) in enumerate(spans) if start <= place < end)
            which = about[0][0].key if clip else id(about[0][0])
            order = told.setdefault((answer, which), sum(key[0] == answer for key in told))
            said = not isinstance(about[0], conversations.Following)
            self._add(look_from=first + place, look_asked=asked, look_said=said)
            self._token(*about, order, coming)

    def _clip(self, row, first, places, unit_things) -> dict[int, int]:
        """The patches of what comes and goes; returns where each thing comes, by its key."""
        found: dict[int, list[int]] = {}
        for thing in (thing for things in unit_things for thing in things if thing.motion < 0):
            here = thing.unit * self.rows * self.columns + cell_of(thing, self.rows, self.columns)
            if thing.key not in found:
                mask = np.zeros(self.cells, bool)
                mask[[some[0] for some in found.values()]] = True
                self._add(begun_from=row * self.cells + here, begun_at=mask)
            mask = np.zeros(self.cells, bool)
            mask[found.setdefault(thing.key, [])] = True
            found[thing.key].append(here)
            self._add(seen_from=first + places[here], seen_at=mask)
        return {key: some[0] for key, some in found.items()}

    def _token(self, about, spelled, number, order, coming) -> None:
        """What one token of an answer is about: things; which character of their text; which digit of what. `order`: the
        how-manieth of the answer that is."""
        name = lambda thing: (scenes.NOUNS.index(thing.noun), COLOUR_NAMES.index(thing.colour))  # noqa: E731
        field, value = number
        at, pick, named = self._patches(about), np.zeros(PICKS, bool), np.full((PICKS, 2), -1)
        if spelled is not None:
            # To spell a word is to go along it, character by character.
            (word,) = about
            held = columns_of(word, self.rows, self.columns)
            cell = cell_of(word, self.rows, self.columns)
            at[:] = False
            at[word.unit * self.rows * self.columns + cell - cell % self.columns + held[spelled]] = True
            pick[min(int((held[:spelled] == held[spelled]).sum()), PICKS - 1)] = True
        if field >= 0:
            pick[list(FETCHED[field // 3])] = True
        begun, fetched = at, np.tile(at, (PICKS, 1))
        if coming:
            named[:] = name(about[0])
            begun = np.arange(self.cells) == coming[about[0].key]
        if isinstance(about, conversations.Compared):
            order = -1
            for i, thing in zip((0, 2) if about.across else (1, 3), about):
                pick[i], fetched[i], named[i] = True, self._patches([thing]), name(thing)
        self._add(
            look_at=at, look_first=begun, look_thing=named, look_field=field, look_value=value, look_pick=pick, pick_at=fetched,
            look_order=[some if some is not None and some < ORDERS else -1 for some in (order, spelled)],
        )  # fmt: skip

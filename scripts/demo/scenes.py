"""Draws the demo model's world: shapes and icons in colours, printed words, receipts, short clips.

Every scene is a function of a `random.Random`, and knows what is on it to the pixel: boxes are measured on what was
drawn, not planned. The trainer and `scripts/check demo` draw from the same functions with other seeds.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

NOUNS = [
    "circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring",
    "moon", "arrow", "house", "tree", "car", "fish", "cup", "boat",
]  # fmt: skip
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "blue": (40, 90, 225),
    "purple": (140, 50, 185),
    "pink": (250, 150, 195),
    "brown": (130, 80, 40),
    "black": (25, 25, 25),
    "white": (248, 248, 248),
}
# Words that are printed. Numbers are drawn beside them.
WORDS = """apple baker bank beach bell bird bread bridge bus cake camp card castle chair cheese city clock coffee cold
copper corner cotton dance desk dinner door dragon dream eagle east egg engine exit farm field fire flag floor flower
forest fresh fruit garden gate glass gold grape green guitar hall happy harbor hello honey hotel ice iron island jacket
jam juice jump jungle kettle king kitchen kite lake lamp lemon light lion lunch magic market metal milk mirror money
morning mountain music nest night north ocean office oil olive open orange paint paper park pencil pepper piano pilot
pizza plane planet pocket police price queen quiet radio rain rice river road robot rocket roof rose sale salt sand
school sea shop silver sleep snow soap south spring stop storm street sugar summer sun sweet table taxi tea tiger time
toast tower town toy train tree tulip tunnel valley velvet violin wagon water west wheel white wind window winter wolf
wood yellow zebra zero""".split()  # noqa: SIM905
MIN_SIDE, MAX_SIDE, MAX_ASPECT = 112, 560, 4.0
# Things are no larger than this on large pictures.
MAX_THING = 112.0


@dataclass
class Thing:
    """Something on a picture: what it is, and the box of its pixels, `(x1, y1, x2, y2)`, with the last ones outside."""

    noun: str
    colour: str
    box: tuple[int, int, int, int]
    # Printed words have what they say and where the middle of each character's ink is.
    text: str | None = None
    middles: list[float] = field(default_factory=list)
    # Which of a clip's things it is; in which pair of frames, or which of two pictures, it is seen.
    key: int = 0
    unit: int = 0
    # Of what is seen in a pair of frames: how it moves (of MOTIONS, then not at all), and whether it is in both (0), in the
    # second alone (1), or in the first alone (2).
    motion: int = -1
    presence: int = -1
    # A box that an answer tells in place of the true one.
    told: tuple[int, int, int, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.noun}"

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def cell(self) -> tuple[int, int]:
        """Row and column of the square of 28 pixels, a merged patch, that stands for the thing: a shape's middle, or a
        word's first character. Things are named in the order of these, as one reads."""
        x, y = self.centre
        if self.text is not None:
            x = self.middles[0]
        return max(0, int(y / 28)), max(0, int(x / 28))


@dataclass
class Scene:
    """A picture, or the frames of a clip, and what is on it. `things` stand as one reads: from the top down, and within 28
    pixels from left to right."""

    frames: np.ndarray  # (frames, height, width, 3), u8
    things: list[Thing]
    kind: str = "shapes"
    cluttered: bool = False
    fps: float | None = None
    # Of clips: what is seen of the things in each pair of frames, and what happens: from when to when what is there, and
    # its key.
    unit_things: list[list[Thing]] = field(default_factory=list)
    motion: str | None = None
    events: list[tuple[float, float, str, int]] = field(default_factory=list)
    fields: dict = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]


# Outlines within the unit square, which are filled; holes are cut out of them.


def _regular(corners, inner=None, turn=-90.0):
    points = []
    steps = corners * (2 if inner else 1)
    for i in range(steps):
        radius = 0.5 if not inner or i % 2 == 0 else inner * 0.5
        angle = math.radians(turn + 360 * i / steps)
        points.append((0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
    return points


def _heart():
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.46 - y / 34))
    return points


_HEART = _heart()
_CROSS = [(0.34, 0), (0.66, 0), (0.66, 0.34), (1, 0.34), (1, 0.66), (0.66, 0.66), (0.66, 1), (0.34, 1), (0.34, 0.66),
          (0, 0.66), (0, 0.34), (0.34, 0.34)]  # fmt: skip
_ARROW = [(0, 0.34), (0.55, 0.34), (0.55, 0.1), (1, 0.5), (0.55, 0.9), (0.55, 0.66), (0, 0.66)]
# Each: (what, points or box, 1 to fill and 0 to cut out).
SHAPES = {
    "circle": [("ellipse", (0, 0, 1, 1), 1)],
    "square": [("polygon", [(0.03, 0.03), (0.97, 0.03), (0.97, 0.97), (0.03, 0.97)], 1)],
    "triangle": [("polygon", [(0.5, 0.04), (1, 0.94), (0, 0.94)], 1)],
    "star": [("polygon", _regular(5, 0.42), 1)],
    "heart": [("polygon", _HEART, 1)],
    "diamond": [("polygon", [(0.5, 0), (0.86, 0.5), (0.5, 1), (0.14, 0.5)], 1)],
    "cross": [("polygon", _CROSS, 1)],
    "ring": [("ellipse", (0, 0, 1, 1), 1), ("ellipse", (0.26, 0.26, 0.74, 0.74), 0)],
    "moon": [("ellipse", (0.05, 0, 1.05, 1), 1), ("ellipse", (0.36, -0.06, 1.3, 0.86), 0)],
    "arrow": [("polygon", _ARROW, 1)],
    "house": [
        ("polygon", [(0.5, 0.02), (1, 0.45), (0.88, 0.45), (0.88, 1), (0.12, 1), (0.12, 0.45), (0, 0.45)], 1),
        ("polygon", [(0.42, 0.66), (0.6, 0.66), (0.6, 1), (0.42, 1)], 0),
    ],
    "tree": [
        ("polygon", [(0.5, 0), (0.78, 0.36), (0.66, 0.36), (0.95, 0.74), (0.05, 0.74), (0.34, 0.36), (0.22, 0.36)], 1),
        ("polygon", [(0.41, 0.72), (0.59, 0.72), (0.59, 1), (0.41, 1)], 1),
    ],
    "car": [
        ("polygon", [(0, 0.48), (0.18, 0.45), (0.3, 0.22), (0.7, 0.22), (0.84, 0.45), (1, 0.5), (1, 0.7), (0, 0.7)], 1),
        ("polygon", [(0.33, 0.3), (0.48, 0.3), (0.48, 0.44), (0.26, 0.44)], 0),
        ("polygon", [(0.54, 0.3), (0.67, 0.3), (0.75, 0.44), (0.54, 0.44)], 0),
        ("ellipse", (0.12, 0.58, 0.36, 0.82), 1),
        ("ellipse", (0.64, 0.58, 0.88, 0.82), 1),
    ],
    "fish": [
        ("ellipse", (0, 0.2, 0.74, 0.8), 1),
        ("polygon", [(0.6, 0.5), (1, 0.18), (1, 0.82)], 1),
        ("ellipse", (0.14, 0.38, 0.24, 0.48), 0),
    ],
    "cup": [
        ("ellipse", (0.5, 0.24, 1, 0.74), 1),
        ("ellipse", (0.6, 0.34, 0.9, 0.64), 0),
        ("polygon", [(0.05, 0.1), (0.72, 0.1), (0.66, 0.92), (0.11, 0.92)], 1),
    ],
    "boat": [
        ("polygon", [(0, 0.66), (1, 0.66), (0.82, 0.96), (0.18, 0.96)], 1),
        ("polygon", [(0.46, 0.02), (0.46, 0.6), (0.08, 0.6)], 1),
        ("polygon", [(0.54, 0.14), (0.54, 0.6), (0.9, 0.6)], 1),
    ],
}
OVERSAMPLING = 3


def draw_shape(noun: str, width: int, height: int, turn_degrees: float = 0.0) -> np.ndarray:
    """How much of each pixel the shape covers: (height, width), f32 between 0 and 1."""
    n = OVERSAMPLING
    tile = Image.new("L", (width * n, height * n), 0)
    brush = ImageDraw.Draw(tile)
    cos, sin = math.cos(math.radians(turn_degrees)), math.sin(math.radians(turn_degrees))
    # A turned shape must stay within its tile.
    shrink = 1 / (abs(cos) + abs(sin))

    def place(x, y):
        dx, dy = (x - 0.5) * shrink, (y - 0.5) * shrink
        return (0.5 + dx * cos - dy * sin) * width * n, (0.5 + dx * sin + dy * cos) * height * n

    for what, points, fill in SHAPES[noun]:
        if what == "ellipse":
            x1, y1, x2, y2 = points
            rx, ry, cx, cy = (x2 - x1) / 2, (y2 - y1) / 2, (x1 + x2) / 2, (y1 + y2) / 2
            angles = [2 * math.pi * i / 48 for i in range(48)]
            points = [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]
        brush.polygon([place(x, y) for x, y in points], fill=255 * fill)
    return np.asarray(tile.reduce(n), np.float32) / 255


def _box_of(mask: np.ndarray, x: int, y: int) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    if len(rows) == 0 or len(columns) == 0:
        return None
    return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1


def _paint(canvas: np.ndarray, mask: np.ndarray, x: int, y: int, colour) -> None:
    height, width = mask.shape
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + width, canvas.shape[1]), min(y + height, canvas.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    part = mask[y1 - y : y2 - y, x1 - x : x2 - x, None]
    spot = canvas[y1:y2, x1:x2]
    canvas[y1:y2, x1:x2] = spot + (np.asarray(colour, np.float32) - spot) * part


def _shade(rng, name: str):
    return tuple(min(255, max(0, c + rng.randint(-14, 14))) for c in COLOURS[name])


def _distance(a, b) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


def draw_ground(rng, width: int, height: int) -> tuple[np.ndarray, tuple, bool]:
    """A plain or a cluttered ground: the canvas (height, width, 3) in f32, its mean colour, and whether it is cluttered."""
    pick = rng.random()
    if pick < 0.5:
        grey = rng.randint(215, 255)
        base = tuple(min(255, grey + rng.randint(-12, 12)) for _ in range(3))
    elif pick < 0.65:
        base = tuple(rng.randint(0, 60) for _ in range(3))
    else:
        base = tuple(rng.randint(30, 240) for _ in range(3))
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = base
    if rng.random() < 0.5:
        return canvas, base, False
    spread = rng.uniform(12, 34)
    for _ in range(rng.randint(1, 3)):
        way = rng.choice(["gradient", "noise", "stripes", "lines", "spots", "checks"])
        if way == "gradient":
            angle = rng.uniform(0, 2 * math.pi)
            x = np.linspace(-1, 1, width, dtype=np.float32) * math.cos(angle)
            y = np.linspace(-1, 1, height, dtype=np.float32) * math.sin(angle)
            canvas += ((x[None, :] + y[:, None]) * spread)[..., None]
        elif way == "noise":
            noise = np.random.default_rng(rng.getrandbits(32)).standard_normal((height, width, 1), np.float32)
            canvas += noise * (spread * 0.35)
        elif way == "stripes":
            step, axis = rng.randint(8, 40), rng.randint(0, 1)
            line = ((np.arange(canvas.shape[axis]) // step) % 2 - 0.5).astype(np.float32) * spread
            canvas += line[:, None, None] if axis == 0 else line[None, :, None]
        elif way == "checks":
            step = rng.randint(10, 40)
            line = (np.arange(height)[:, None] // step + np.arange(width)[None] // step) % 2
            canvas += ((line - 0.5) * spread).astype(np.float32)[..., None]
        else:
            layer = Image.new("L", (width, height), 128)
            brush = ImageDraw.Draw(layer)
            for _ in range(rng.randint(4, 14)):
                x, y = rng.uniform(0, width), rng.uniform(0, height)
                tone = 128 + int(rng.choice([-1, 1]) * spread)
                if way == "lines":
                    brush.line((x, y, rng.uniform(0, width), rng.uniform(0, height)), fill=tone, width=rng.randint(1, 4))
                else:
                    r = rng.uniform(2, 0.14 * min(width, height))
                    brush.ellipse((x - r, y - r, x + r, y + r), fill=tone)
            canvas += (np.asarray(layer, np.float32) - 128)[..., None]
    np.clip(canvas, 0, 255, out=canvas)
    return canvas, base, True


# What is printed on light and on dark paper.
DARK_INKS = ["black", "black", "black", "blue", "red", "green", "purple", "brown"]
LIGHT_INKS = ["white", "white", "yellow"]


def draw_paper(rng, width: int, height: int) -> tuple[np.ndarray, list[str], bool]:
    """A ground to print on: the canvas, the inks that go with it, and whether it is cluttered."""
    dark = rng.random() < 0.2
    grey = rng.randint(0, 50) if dark else rng.randint(222, 255)
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = [min(255, max(0, grey + rng.randint(-10, 10))) for _ in range(3)]
    cluttered = rng.random() < 0.25
    if cluttered:
        if rng.random() < 0.5:
            canvas += np.linspace(-14, 14, width, dtype=np.float32)[None, :, None] * rng.choice([-1, 1])
        else:
            step = rng.randint(10, 40)
            line = (np.arange(height)[:, None] // step + np.arange(width)[None] // step) % 2
            canvas += ((line - 0.5) * rng.uniform(6, 14)).astype(np.float32)[..., None]
        np.clip(canvas, 0, 255, out=canvas)
    return canvas, LIGHT_INKS if dark else DARK_INKS, cluttered


def pick_colour(rng, ground, cluttered: bool) -> str:
    """A colour that is told from the ground."""
    far = [name for name, value in COLOURS.items() if _distance(value, ground) > (150 if cluttered else 120)]
    return rng.choice(far or ["black" if sum(ground) > 380 else "white"])


def _apart(box, others, margin) -> bool:
    x1, y1, x2, y2 = box
    return all(x2 + margin <= a or c + margin <= x1 or y2 + margin <= b or d + margin <= y1 for a, b, c, d in others)


def pick_size(rng, low: int = MIN_SIDE, high: int = MAX_SIDE, skew: float = 1.0) -> tuple[int, int]:
    """Width and height between `low` and `high`, with an aspect of at most 4:1. A larger skew draws small ones more often."""
    while True:
        side = low * (high / low) ** (rng.random() ** skew)
        aspect = math.exp(rng.gauss(0, 0.45))
        width, height = round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))
        if low <= min(width, height) and max(width, height) <= high and max(width, height) <= MAX_ASPECT * min(width, height):
            return width, height


def shapes(rng, width: int, height: int, count: int | None = None, alike: bool = False) -> Scene:
    """One to four shapes, or `count`, none over another; of at most two nouns and two colours, where they are `alike`."""
    canvas, ground, cluttered = draw_ground(rng, width, height)
    base = math.sqrt(width * height)
    if count is None:
        count = rng.choices([1, 2, 3, 4], [26, 29, 26, 19])[0]
    # Counting needs several of a kind.
    few = rng.sample(NOUNS, rng.randint(1, 3)) if rng.random() < 0.55 else NOUNS
    tints = [pick_colour(rng, ground, cluttered) for _ in range(2)] if alike else []
    few = rng.sample(NOUNS, rng.randint(1, 2)) if alike else few
    things, boxes = [], []
    for _ in range(count):
        noun = rng.choice(few)
        colour = rng.choice(tints) if alike else pick_colour(rng, ground, cluttered)
        for _ in range(20):
            side = min(MAX_THING, max(26.0, base * rng.uniform(0.16, 0.5 if count < 3 else 0.34)))
            stretch = math.exp(rng.uniform(-0.18, 0.18))
            w, h = round(side * stretch), round(side / stretch)
            if w >= width - 4 or h >= height - 4:
                continue
            x, y = rng.randint(2, width - w - 2), rng.randint(2, height - h - 2)
            # The order from left to right must be clear.
            clear = all(abs(x + w / 2 - (a + c) / 2) > max(8, 0.03 * width) for a, _, c, _ in boxes)
            if clear and _apart((x, y, x + w, y + h), boxes, 3):
                mask = draw_shape(noun, w, h, rng.uniform(-12, 12))
                _paint(canvas, mask, x, y, _shade(rng, colour))
                box = _box_of(mask, x, y)
                things.append(Thing(noun, colour, box))
                boxes.append(box)
                break
    if not things:
        return shapes(rng, width, height, 1)
    things.sort(key=lambda thing: thing.cell)
    return Scene(canvas.round().astype(np.uint8)[None], things, "shapes", cluttered)


@functools.cache
def font_files() -> list[str]:
    """The faces that words are printed in: those that matplotlib's package brings."""
    import matplotlib

    folder = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf"
    names = [
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono",
    ]  # fmt: skip
    return [str(folder / f"{name}.ttf") for name in names]


@functools.cache
def _font(file: str, size: int):
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _middle(file: str, size: int, char: str) -> float:
    left, _, right, _ = _font(file, size).getbbox(char)
    return (left + right) / 2


def draw_text(text: str, file: str, size: int) -> tuple[np.ndarray, list[float]]:
    """How much of each pixel the text covers, and where the middles of its characters' ink are."""
    font = _font(file, size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (right - left + 2, bottom - top + 2), 0)
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=font)
    middles = [font.getlength(text[:i]) + 1 - left + _middle(file, size, char) for i, char in enumerate(text)]
    return np.asarray(image, np.float32) / 255, middles


def pick_string(rng) -> str:
    """A word in one of three cases, one that is none, or a number of one to five digits."""
    pick = rng.random()
    if pick < 0.3:
        return str(rng.randint(0, 10 ** rng.randint(1, 5) - 1))
    word = rng.choice(WORDS)
    if pick < 0.45:
        word = "".join(rng.choice("bcdfghjkmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
        word += rng.choice(["", "", "n", "r", "s", "t", "x", "y", "q"])
    return rng.choice([word, word, word.capitalize(), word.upper()])


def print_words(rng, canvas, inks, strings, files, size_range, things, boxes) -> None:
    """Prints strings where there is room; what finds none is left out."""
    height, width = canvas.shape[:2]
    for text in strings:
        name = rng.choice(inks)
        for _ in range(16):
            size = round(rng.uniform(*size_range))
            mask, middles = draw_text(text, rng.choice(files), size)
            h, w = mask.shape
            if w >= width - 6 or h >= height - 6:
                size_range = (min(size_range[0], 24), max(24, size * 0.8))
                continue
            x, y = rng.randint(3, width - w - 3), rng.randint(3, height - h - 3)
            # The order from the top down must be clear.
            clear = all(y + h <= b or d <= y for _, b, _, d in boxes)
            if clear and _apart((x, y, x + w, y + h), boxes, 3):
                box = _box_of(mask, x, y)
                if box is None:
                    continue
                _paint(canvas, mask, x, y, _shade(rng, name))
                things.append(Thing("text", name, box, text, [x + middle for middle in middles]))
                boxes.append(box)
                break


def words(rng, width: int, height: int, count: int | None = None) -> Scene:
    """One to three words or numbers, or `count`, one below the other."""
    canvas, inks, cluttered = draw_paper(rng, width, height)
    count = count or rng.choices([1, 2, 3], [50, 30, 20])[0]
    # Printed so large that hardly two characters lie in one merged patch.
    count = max(1, min(count, round(height / 48)))
    high = min(46, height / (count + 0.6))
    things = []
    strings = [pick_string(rng) for _ in range(count)]
    print_words(rng, canvas, inks, strings, font_files(), (min(28, high), high), things, [])
    if not things:
        return words(rng, width, height, 1) if height > 40 else shapes(rng, width, height)
    things.sort(key=lambda thing: thing.centre[1])
    return Scene(canvas.round().astype(np.uint8)[None], things, "words", cluttered)


def crowd(rng, width: int, height: int) -> Scene:
    """As many words and shapes as find room: nothing is asked about it, but each of its patches teaches seeing."""
    paper = rng.random() < 0.8
    if paper:
        canvas, inks, cluttered = draw_paper(rng, width, height)
        ground = canvas[0, 0]
    else:
        canvas, ground, cluttered = draw_ground(rng, width, height)
    things, boxes = [], []
    files = font_files()
    wanted = round(width * height / rng.uniform(2000, 4000))
    for _ in range(wanted):
        colour = pick_colour(rng, ground, cluttered)
        if rng.random() < (0.08 if paper else 0.7):
            noun = rng.choice(NOUNS)
            side = 26 * (min(MAX_THING, 0.5 * width, 0.5 * height) / 26) ** rng.random()
            mask, text, middles = draw_shape(noun, round(side), round(side * rng.uniform(0.85, 1.18)), rng.uniform(-12, 12)), None, []
        else:
            noun, text = "text", pick_string(rng)
            colour = rng.choice(inks) if paper else colour
            mask, middles = draw_text(text, rng.choice(files), round(rng.uniform(26, 44)))
        h, w = mask.shape
        for _ in range(6):
            if w >= width - 2 or h >= height - 2:
                break
            x, y = rng.randint(1, width - w - 1), rng.randint(1, height - h - 1)
            if _apart((x, y, x + w, y + h), boxes, 2):
                box = _box_of(mask, x, y)
                if box is None:
                    break
                _paint(canvas, mask, x, y, _shade(rng, colour))
                things.append(Thing(noun, colour, box, text, [x + middle for middle in middles]))
                boxes.append((x, y, x + w, y + h))
                break
    return Scene(canvas.round().astype(np.uint8)[None], things, "crowd", cluttered)


def receipt(rng, width: int, height: int) -> Scene:
    """A small receipt: the shop, items with prices, the total and the date."""
    tone = rng.randint(235, 255)
    canvas = np.full((height, width, 3), tone, np.float32)
    size = max(15, min(22, round(height / 11), round(width / 10)))
    file = font_files()[rng.choice([0, 2, 3, 3])]
    shop = rng.choice(WORDS).upper()
    items = []
    for _ in range(rng.randint(1, 3)):
        items.append((rng.choice(WORDS), f"{rng.randint(1, 19)}.{rng.randint(0, 9)}0"))
    total = sum(round(float(price) * 10) for _, price in items)
    date = f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    lines = [(shop, None), (date, None), *items, ("TOTAL", f"{total / 10:.2f}")]
    step = (height - 10) / len(lines)
    things = []
    ink = "black"
    for i, (left, right) in enumerate(lines):
        y = round(6 + i * step + max(0, (step - size * 1.2)) * rng.uniform(0.2, 0.5))
        for text, at_right in ((left, False), (right, True)):
            if text is None:
                continue
            mask, middles = draw_text(text, file, size)
            x = width - mask.shape[1] - 8 if at_right else (8 if i > 1 else (width - mask.shape[1]) // 2)
            box = _box_of(mask, x, y)
            _paint(canvas, mask, x, y, (30, 30, 30))
            things.append(Thing("text", ink, box, text, [x + middle for middle in middles]))
    fields = {"shop": shop, "date": date, "total": f"{total / 10:.2f}"}
    scene = Scene(canvas.round().astype(np.uint8)[None], things, "receipt")
    scene.fields = fields
    return scene


def document(rng, width: int, height: int) -> Scene:
    """A page with a heading and one to three short paragraphs."""
    canvas = np.full((height, width, 3), rng.randint(240, 255), np.float32)
    size = max(15, min(20, round(height / 12), round(width / 9)))
    heading_size = round(size * 1.5)
    family = rng.choice([(1, 0), (1, 2), (1, 3)])
    files = font_files()
    y, things, blocks = rng.randint(4, 12), [], []
    for i in range(rng.randint(2, 4)):
        face, points = (files[family[0]], heading_size) if i == 0 else (files[family[1]], size)
        text, left = "", rng.choice(WORDS)
        left = left.capitalize() if i == 0 else left
        for _ in range(4):
            if draw_text(left, face, points)[0].shape[1] > width - 16 or text.count(" ") >= (1 if i == 0 else 3):
                break
            text, left = left, left + " " + rng.choice(WORDS)
        if not text:
            break
        mask, middles = draw_text(text, face, points)
        if y + mask.shape[0] > height - 4 or mask.shape[1] > width - 12:
            break
        box = _box_of(mask, 8, y)
        _paint(canvas, mask, 8, y, (25, 25, 25))
        things.append(Thing("text", "black", box, text, [8 + middle for middle in middles]))
        blocks.append("h2" if i == 0 else "p")
        y += mask.shape[0] + rng.randint(6, 18)
    if len(things) < 2:
        return words(rng, width, height)
    scene = Scene(canvas.round().astype(np.uint8)[None], things, "document")
    scene.fields = {"blocks": blocks}
    return scene


MOTIONS = {"to the right": (1, 0), "to the left": (-1, 0), "up": (0, -1), "down": (0, 1)}


def clip(rng, width: int, height: int, n_frames: int = 8, twice: float = 0.15) -> Scene:
    """A clip: one thing moves, or stands still, or one thing, or two in a share of `twice`, appear and vanish."""
    fps = rng.choice([1.0, 2.0, 2.0])
    canvas, ground, cluttered = draw_ground(rng, width, height)
    base = math.sqrt(width * height)
    frames = np.repeat(canvas[None], n_frames, 0)
    per_frame: list[list[Thing]] = [[] for _ in range(n_frames)]
    motion, events = None, []

    def sprite(scale):
        noun, colour = rng.choice(NOUNS), pick_colour(rng, ground, cluttered)
        side = max(26, round(base * scale))
        side = min(side, width - 6, height - 6)
        return noun, colour, draw_shape(noun, side, side, rng.uniform(-12, 12)), side

    def put(i, mask, x, y, noun, colour, shade, key=0):
        _paint(frames[i], mask, x, y, shade)
        per_frame[i].append(Thing(noun, colour, _box_of(mask, x, y), key=key, unit=i // 2))

    if rng.random() < 0.3:
        noun, colour, mask, side = sprite(rng.uniform(0.2, 0.36))
        shade = _shade(rng, colour)
        motion = rng.choice([*MOTIONS, *MOTIONS, "not"])
        dx, dy = MOTIONS.get(motion, (0, 0))
        room_x, room_y = width - side - 4, height - side - 4
        # From one end of the way to the other: at least half of the room, and a little askew.
        far = rng.uniform(0.55, 1.0)
        start = rng.uniform(0, 1 - far)
        drift = rng.uniform(-0.08, 0.08) if motion != "not" else 0.0
        fixed = rng.uniform(0.1, 0.9)
        for i in range(n_frames):
            way = start + far * i / (n_frames - 1)
            along, across = way, min(1, max(0, fixed + drift * way))
            if motion == "not":
                fx, fy = start, fixed
            elif dx:
                fx, fy = (along if dx > 0 else 1 - along), across
            else:
                fx, fy = across, (along if dy > 0 else 1 - along)
            put(i, mask, 2 + round(fx * room_x), 2 + round(fy * room_y), noun, colour, shade)
        things = [per_frame[0][0]]
    else:
        things, boxes, begun = [], [], []
        seconds = n_frames / fps
        step = max(1, round(fps / 2))
        for _ in range(2 if rng.random() < twice else 1):
            for _ in range(20):
                noun, colour, mask, side = sprite(rng.uniform(0.2, 0.34))
                x, y = rng.randint(2, max(2, width - side - 2)), rng.randint(2, max(2, height - side - 2))
                if not _apart((x, y, x + side, y + side), boxes, 3):
                    continue
                first = step * rng.randint(0, n_frames // step - 2)
                last = step * rng.randint(first // step + 1, n_frames // step)
                if (first == 0 and last == n_frames) or first // 2 in begun:
                    continue
                begun.append(first // 2)
                shade = _shade(rng, colour)
                key = len(events)
                for i in range(first, last):
                    put(i, mask, x, y, noun, colour, shade, key)
                things.append(Thing(noun, colour, _box_of(mask, x, y)))
                boxes.append((x, y, x + side, y + side))
                events.append((first / fps, min(last / fps, seconds), f"{colour} {noun}", key))
                break
        events.sort()
    scene = Scene(frames.round().clip(0, 255).astype(np.uint8), things, "clip", cluttered, fps)
    scene.motion, scene.events = motion, events
    for a, b in zip(per_frame[::2], per_frame[1::2]):
        seen = []
        for key in sorted({thing.key for thing in a + b}):
            both = [next((thing for thing in some if thing.key == key), None) for some in (a, b)]
            thing = both[0] or both[1]
            thing.presence = 0 if all(both) else 1 if both[1] else 2
            thing.motion = [*MOTIONS, "not"].index(motion) if motion else -1
            seen.append(thing)
        scene.unit_things.append(seen)
    return scene

#!/usr/bin/env python3
"""Draws the examples' pictures, because pictures of our own have no licence to carry: scenes of the kind that the demo
model was trained on, and has never seen, and a receipt for larger models.

    crates/server/page/samples/draw.py

Needs what scripts/demo/requirements.txt names. It writes beside itself; the same versions draw the same pictures.
"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "scripts"))
from demo import scenes


def first(draw, size, fits, *more):
    """The first scene of those that seeds from 0 on draw which fits."""
    seed = 0
    while True:
        scene = draw(random.Random(f"page {seed}"), *size, *more)
        if fits(scene):
            return scene
        seed += 1


def save(name, pixels):
    Image.fromarray(pixels).save(HERE / name, optimize=True)


def all_differ(scene):
    """No noun and no colour twice."""
    n = len(scene.things)
    return len({thing.noun for thing in scene.things}) == n and len({thing.colour for thing in scene.things}) == n


def stars(scene):
    """Two stars among four things on a cluttered ground."""
    return scene.cluttered and len(scene.things) == 4 and [thing.noun for thing in scene.things].count("star") == 2


def boat(colour):
    return lambda scene: not scene.cluttered and scene.things[0].name == f"{colour} boat"


def receipt():
    picture = Image.new("RGB", (448, 616), "#ffffff")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=30)
    lines = ["GREEN CAFE", "2026-05-14", "", "COFFEE      3.20", "BREAD       2.50", "TEA         1.80", "", "TOTAL       7.50"]
    for number, line in enumerate(lines):
        left, _, right = line.partition("  ")
        pen.text((36, 44 + 66 * number), left, font=font, fill="#222222")
        if right:
            value = right.strip()
            pen.text((412 - pen.textlength(value, font=font), 44 + 66 * number), value, font=font, fill="#222222")
    pen.line((36, 486, 412, 486), fill="#222222", width=3)
    # Drawn twice as large, so that edges come out smooth.
    picture.resize((224, 308), Image.LANCZOS).save(HERE / "receipt.png", optimize=True)


def main():
    plain = first(scenes.shapes, (224, 168), lambda scene: not scene.cluttered and len(scene.things) == 3 and all_differ(scene), 3)
    save("shapes.png", plain.frames[0])
    print("shapes.png:", ", ".join(thing.name for thing in plain.things))
    # Five are tried, and four find room.
    save("cluttered.png", first(scenes.shapes, (280, 224), stars, 5).frames[0])
    save("words.png", first(scenes.words, (252, 140), lambda scene: len(scene.things) == 2, 2).frames[0])
    receipt()
    for name, colour in (("first.png", "red"), ("second.png", "blue")):
        save(name, first(scenes.shapes, (140, 140), boat(colour), 1).frames[0])
    moving = first(scenes.clip, (140, 140), lambda scene: scene.motion == "to the right" and scene.fps == 2 and not scene.cluttered)
    appearing = first(scenes.clip, (140, 140), lambda scene: len(scene.events) == 1 and scene.events[0][0] > 0 and scene.fps == 2)
    for name, clip in (("moving", moving), ("appearing", appearing)):
        for i, frame in enumerate(clip.frames):
            save(f"{name}-{i}.png", frame)


if __name__ == "__main__":
    main()

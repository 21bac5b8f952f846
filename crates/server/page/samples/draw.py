#!/usr/bin/env python3
"""Draws the examples' pictures: scenes of the kind that the demo model was trained on, and has never seen.

    crates/server/page/samples/draw.py

Needs what scripts/demo/requirements.txt names. It writes beside itself; the same versions draw the same pictures.
"""

import random
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "scripts"))
from demo import scenes


def first(draw, seed, size, fits, *more):
    """The first scene of those that the seeds from this one on draw which fits."""
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


def main():
    shapes = first(scenes.shapes, 0, (280, 196), lambda s: len(s.things) == 4 and all_differ(s) and not s.cluttered, 4)
    save("shapes.png", shapes.frames[0])
    nouns = lambda s: [thing.noun for thing in s.things]  # noqa: E731
    cluttered = first(scenes.shapes, 0, (336, 252), lambda s: s.cluttered and nouns(s).count("star") == 3 and len(set(nouns(s))) == 3, 5)
    save("cluttered.png", cluttered.frames[0])
    save("words.png", first(scenes.words, 0, (280, 168), lambda s: len(s.things) == 3, 3).frames[0])
    save("receipt.png", first(scenes.receipt, 0, (224, 280), lambda s: len(s.things) >= 8).frames[0])
    save("page.png", first(scenes.document, 0, (252, 196), lambda s: len(s.things) == 3).frames[0])
    one = lambda noun: lambda s: not s.cluttered and s.things[0].noun == noun  # noqa: E731
    for name, colour in (("first.png", "red"), ("second.png", "blue")):
        fits = lambda s: one("boat")(s) and s.things[0].colour == colour  # noqa: B023, E731
        save(name, first(scenes.shapes, 0, (140, 140), fits, 1).frames[0])
    moving = first(scenes.clip, 0, (140, 140), lambda s: s.motion == "to the right" and s.fps == 2 and not s.cluttered)
    appearing = first(scenes.clip, 0, (140, 140), lambda s: len(s.events) == 2 and s.fps == 2)
    for name, clip in (("moving", moving), ("appearing", appearing)):
        for i, frame in enumerate(clip.frames):
            save(f"{name}-{i}.png", frame)


if __name__ == "__main__":
    main()

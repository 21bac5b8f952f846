#!/usr/bin/env python3
"""Draws the test pictures, because pictures of our own have no licence to carry and hit the awkward cases.

    scripts/draw-pictures.py tests/golden/images [--seed 1]

Every picture is a pure function of the seed. Each is made to hurt one step of the preprocessing: hard edges
overshoot in a bicubic resize, hidden colours show through a dropped alpha, odd sizes round at half of 28.
Needs numpy and Pillow (see golden-requirements.txt). Files come out the same with the same versions.
"""

from __future__ import annotations

import argparse
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for number, (name, draw) in enumerate(PICTURES.items()):
        rng = np.random.Generator(np.random.PCG64([args.seed, number]))
        draw(rng, args.folder / name)
        print(f"{name}: {(args.folder / name).stat().st_size} bytes")


# ------------------------------------------------------------------------------------ building blocks


def gradient(height: int, width: int, rng) -> np.ndarray:
    """A plane per channel between random colours at the corners, float64 (height, width, 3)."""
    y = np.linspace(0, 1, height)[:, None, None]
    x = np.linspace(0, 1, width)[None, :, None]
    corners = rng.integers(0, 256, (2, 2, 3)).astype(float)
    top = corners[0, 0] * (1 - x) + corners[0, 1] * x
    bottom = corners[1, 0] * (1 - x) + corners[1, 1] * x
    return top * (1 - y) + bottom * y


def to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def shapes(canvas: ImageDraw.ImageDraw, size: tuple[int, int], count: int, rng) -> None:
    """Filled discs and boxes with hard edges, saturated colours among them."""
    width, height = size
    for _ in range(count):
        cx, cy = int(rng.integers(0, width)), int(rng.integers(0, height))
        rx, ry = int(rng.integers(2, max(3, width // 4))), int(rng.integers(2, max(3, height // 4)))
        colour = tuple(int(v) for v in rng.choice([0, 17, 128, 240, 255], 3))
        figure = canvas.ellipse if rng.integers(0, 2) else canvas.rectangle
        figure((cx - rx, cy - ry, cx + rx, cy + ry), fill=colour)


def strokes(canvas: ImageDraw.ImageDraw, box: tuple[int, int, int, int], pitch: int, ink, rng) -> None:
    """Rows of short dark strokes, as dense as small print."""
    left, top, right, bottom = box
    for y in range(top, bottom - pitch, pitch):
        x = left
        while x < right:
            for _ in range(int(rng.integers(1, 4))):
                a = (x + int(rng.integers(0, pitch)), y + int(rng.integers(0, pitch - 2)))
                b = (x + int(rng.integers(0, pitch)), y + int(rng.integers(0, pitch - 2)))
                canvas.line((a, b), fill=ink)
            x += pitch if rng.integers(0, 6) else 2 * pitch


# ------------------------------------------------------------------------------------------- pictures


def scene(rng, path: Path, height: int = 203, width: int = 266) -> Image.Image:
    """Gradient, shapes, a band of noise and a block of print. The width is 9.5 factors of 28: a half to round."""
    image = Image.fromarray(to_bytes(gradient(height, width, rng)))
    canvas = ImageDraw.Draw(image)
    shapes(canvas, image.size, 9, rng)
    strokes(canvas, (8, height // 2, width // 2, height - 30), 7, (0, 0, 0), rng)
    pixels = np.array(image)
    pixels[-24:-4, width // 3 :] = rng.integers(0, 256, (20, width - width // 3, 3))
    image = Image.fromarray(pixels)
    if path:
        image.save(path, optimize=True)
    return image


def page(rng, path: Path) -> None:
    """A page of print in 8-bit gray, taller than wide."""
    image = Image.new("L", (117, 171), 250)
    strokes(ImageDraw.Draw(image), (6, 6, 108, 168), 8, 20, rng)
    image.save(path, optimize=True)


def overlay(rng, path: Path) -> None:
    """RGBA: opaque shapes, a soft edge, and loud colours hidden where alpha is 0."""
    height, width = 98, 151
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., :3] = rng.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3)).repeat(7, 0).repeat(7, 1)[:height, :width]
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - 47.0, x - 80.0)
    pixels[..., 3] = to_bytes((60 - distance) * 12)
    pixels[:14, :40, 3] = 255
    Image.fromarray(pixels).save(path, optimize=True)


def icon(rng, path: Path) -> None:
    """A palette picture smaller than the least number of pixels: it has to grow."""
    image = Image.new("RGB", (41, 30), (255, 255, 255))
    shapes(ImageDraw.Draw(image), image.size, 6, rng)
    image.quantize(16, dither=Image.Dither.NONE).save(path, optimize=True)


def thin(rng, path: Path) -> None:
    """10 x 246: the three rules for thin pictures disagree here."""
    image = Image.fromarray(to_bytes(gradient(10, 246, rng)))
    strokes(ImageDraw.Draw(image), (0, 0, 246, 12), 9, (255, 255, 255), rng)
    image.save(path, optimize=True)


def deep(rng, path: Path) -> None:
    """16 bits a channel. Both bytes of each value are equal, so every sane way to 8 bits agrees."""
    pixels = to_bytes(gradient(61, 90, rng))
    pixels[20:40, 30:70] = rng.integers(0, 256, (5, 10, 3)).repeat(4, 0).repeat(4, 1)
    height, width, _ = pixels.shape
    rows = pixels.repeat(2, axis=2).reshape(height, width * 6)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    )


def turned(rng, path: Path) -> None:
    """A JPEG whose orientation tag 6 says: turn a quarter clockwise before showing."""
    image = scene(rng, None, 96, 143)
    tags = Image.Exif()
    tags[0x0112] = 6
    image.save(path, quality=88, subsampling=0, exif=tags)


def photo(rng, path: Path) -> None:
    """Lossless WebP, large enough to be shrunk under a budget of 128 tokens."""
    height, width = 411, 293
    image = Image.fromarray(to_bytes(gradient(height, width, rng)))
    canvas = ImageDraw.Draw(image)
    shapes(canvas, image.size, 24, rng)
    strokes(canvas, (20, 250, 270, 400), 6, (255, 255, 0), rng)
    image.save(path, lossless=True, quality=100, method=6)


def clip(rng, path: Path) -> None:
    """Ten frames of 56 x 84 under each other: a disc and a box that move over a still background."""
    height, width, count = 56, 84, 10
    background = to_bytes(gradient(height, width, rng))
    frames = []
    for index in range(count):
        image = Image.fromarray(background)
        canvas = ImageDraw.Draw(image)
        canvas.ellipse((6 * index, 10, 6 * index + 18, 28), fill=(255, 30, 0))
        canvas.rectangle((70 - 5 * index, 36, 78 - 5 * index, 50), fill=(0, 0, 255 - 20 * index))
        frames.append(np.array(image))
    Image.fromarray(np.concatenate(frames)).save(path, optimize=True)


PICTURES = {
    "scene.png": scene,
    "page.png": page,
    "overlay.png": overlay,
    "icon.png": icon,
    "thin.png": thin,
    "deep.png": deep,
    "turned.jpg": turned,
    "photo.webp": photo,
    "clip.png": clip,
}

if __name__ == "__main__":
    main()

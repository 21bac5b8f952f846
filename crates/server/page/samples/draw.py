#!/usr/bin/env python3
"""Draws the examples' pictures, because pictures of our own have no licence to carry.

    crates/server/page/samples/draw.py

Needs Pillow. It writes beside itself; the same version draws the same pictures.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent


def canvas(width, height, ground):
    """A picture and its pen; drawn twice as large, so that edges come out smooth."""
    picture = Image.new("RGB", (2 * width, 2 * height), ground)
    return picture, ImageDraw.Draw(picture)


def save(picture, name):
    picture = picture.resize((picture.width // 2, picture.height // 2), Image.LANCZOS)
    picture.save(HERE / name, optimize=True)


def shapes():
    picture, pen = canvas(224, 168, "#f4f1ea")
    pen.ellipse((48, 60, 168, 180), fill="#d8342c")
    pen.rectangle((272, 40, 392, 160), fill="#2458c5")
    pen.polygon([(150, 308), (230, 188), (310, 308)], fill="#2d9a4b")
    save(picture, "shapes.png")


def cluttered():
    picture, pen = canvas(336, 224, "#cfd8dc")
    for step in range(0, 672, 28):
        pen.line((step, 0, 672 - step, 448), fill="#b3c0c6", width=3)
    for place in [(90, 90), (420, 60), (250, 270), (540, 300)]:
        x, y = place
        pen.ellipse((x, y, x + 92, y + 92), fill="#e9a21b")
    pen.rectangle((60, 280, 170, 390), fill="#7b3fa0")
    pen.rectangle((330, 150, 420, 240), fill="#2458c5")
    save(picture, "cluttered.png")


def moved():
    picture, pen = canvas(224, 168, "#f4f1ea")
    pen.ellipse((48, 60, 168, 180), fill="#d8342c")
    pen.rectangle((272, 180, 392, 300), fill="#2458c5")
    save(picture, "moved.png")


def receipt():
    picture, pen = canvas(224, 308, "#ffffff")
    font = ImageFont.load_default(size=30)
    lines = ["GREEN CAFE", "2026-05-14", "", "COFFEE      3.20", "BREAD       2.50", "TEA         1.80", "", "TOTAL       7.50"]
    for number, line in enumerate(lines):
        left, _, right = line.partition("  ")
        pen.text((36, 44 + 66 * number), left, font=font, fill="#222222")
        if right:
            value = right.strip()
            pen.text((412 - pen.textlength(value, font=font), 44 + 66 * number), value, font=font, fill="#222222")
    pen.line((36, 486, 412, 486), fill="#222222", width=3)
    save(picture, "receipt.png")


def words():
    picture, pen = canvas(280, 112, "#24434a")
    pen.text((56, 60), "OPEN 24", font=ImageFont.load_default(size=104), fill="#f4f1ea")
    save(picture, "words.png")


def clip():
    for frame in range(8):
        picture, pen = canvas(168, 112, "#f4f1ea")
        x = 20 + 32 * frame
        pen.ellipse((x, 72, x + 76, 148), fill="#d8342c")
        save(picture, f"clip-{frame}.png")


if __name__ == "__main__":
    for draw in [shapes, cluttered, moved, receipt, words, clip]:
        draw()

"""Compares the server's token counts with the hosted guide's calculators, written here anew in Python, whose own
round() and float arithmetic the guide's numbers come from. Needs nothing but the standard library.

    python3 check-tokens.py OCELLUS      the binary; it is started with its built-in model

Sizes and clips go through the estimate endpoint; some pictures are also sent as real requests and files, whose counts
must be the same. The last line and the exit status say whether everything holds.
"""

import base64
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zlib

TOKEN = 28 * 28


def picture(height, width, high_resolution):
    """The guide's token_calculate for pictures, without the two markers: (height, width, tokens)."""
    least, most = 4 * TOKEN, (16384 if high_resolution else 1280) * TOKEN
    h, w = round(height / 28) * 28, round(width / 28) * 28
    if h * w > most:
        beta = math.sqrt((height * width) / most)
        h, w = math.floor(height / beta / 28) * 28, math.floor(width / beta / 28) * 28
    elif h * w < least:
        beta = math.sqrt(least / (height * width))
        h, w = math.ceil(height * beta / 28) * 28, math.ceil(width * beta / 28) * 28
    return h, w, h * w // TOKEN


def frames(total, rate, fps):
    """The guide's smart_nframes; None where it raises."""
    most = min(512, total) // 2 * 2
    duration = total / rate
    counted = math.ceil(duration * rate) if duration - int(duration) > 1 / fps else math.ceil(int(duration) * rate)
    n = int(min(min(max(counted / rate * fps, 4), most), counted))
    return n if 2 <= n <= counted else None


def clip(height, width, total, rate, fps):
    """The guide's smart_resize and token_calculate for clips, without markers: (frames, height, width, tokens)."""
    n = frames(total, rate, fps)
    if n is None:
        return None
    least = 128 * TOKEN
    most = max(min(768 * TOKEN, 65536 * TOKEN / n * 2), int(least * 1.05))
    h, w = max(28, round(height / 28) * 28), max(28, round(width / 28) * 28)
    if h * w > most:
        beta = math.sqrt((height * width) / most)
        h, w = math.floor(height / beta / 28) * 28, math.floor(width / beta / 28) * 28
    elif h * w < least:
        beta = math.sqrt(least / (height * width))
        h, w = math.ceil(height * beta / 28) * 28, math.ceil(width * beta / 28) * 28
    return n, h, w, int(math.ceil(n / 2) * h / 28 * w / 28)


# Sides around every kind of border: the least, halves of 28 that round to even, cameras, screens, documents.
SIDES = [11, 13, 14, 15, 27, 28, 42, 70, 98, 126, 333, 500, 777, 1000, 1280, 1365, 1999, 2048, 3024, 4032, 12000]
SIZES = [(h, w) for h in SIDES for w in SIDES if max(h, w) <= 200 * min(h, w)]

CLIP_SIZES = [(240, 320), (360, 640), (720, 1280), (1080, 1920), (2160, 3840), (28, 28), (100, 2000), (1920, 1080)]
CLIP_TIMES = [
    (40, 10.0, 2.0), (175, 25.0, 1.0), (26, 10.0, 2.0), (60, 30.0, 2.0), (750, 29.97, 2.0), (1975, 24.0, 0.5),
    (7063, 29.97, 2.0), (35, 1.0, 4.0), (18000, 30.0, 2.0), (17982, 29.97, 10.0), (3381, 23.976, 2.0), (61, 30.0, 0.1),
]
CLIPS = [size + time for size in CLIP_SIZES for time in CLIP_TIMES]

# What the guide prints, with the two markers.
PRINTED = [(1280, 1280, False, 1227), (1280, 1280, True, 2118), (1365, 2048, False, 1249)]

# Small ones, so that the built-in model answers in a moment; the last is the guide's own picture.
REAL = [(11, 500), (13, 13), (28, 28), (70, 126), (126, 70), (333, 98), (200, 200), (11, 2200), (500, 42), (1365, 2048)]


def png(height, width):
    """A grey picture."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = (b"\0" + b"\x80" * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Check:
    def __init__(self, url):
        self.url, self.right, self.wrong = url, 0, 0

    def ask(self, path, body):
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return {"refused": error.read().decode(errors="replace")}

    def equal(self, what, found, expected):
        if found == expected:
            self.right += 1
        else:
            self.wrong += 1
            print(f"{what}: the server says {found}, the guide {expected}")

    def estimates(self, what, expected, items, **more):
        """Asks in groups, because a request has a bound on its pictures."""
        for start in range(0, len(items), 400):
            answer = self.ask("/v1/tokens/estimate", {"media": items[start : start + 400], **more})
            media = answer.get("media")
            if media is None:
                self.equal(what, answer, "an estimate")
                continue
            for item, found, wanted in zip(items[start:], media, expected[start:]):
                seen = found["seen"]
                numbers = (found["frames"], seen["height"], seen["width"], found["tokens"], found["tokens_with_markers"])
                self.equal(f"{what} {item}", numbers, wanted)

    def run(self, binary):
        for high_resolution in (False, True):
            items = [{"type": "image", "height": h, "width": w} for h, w in SIZES]
            expected = [picture(h, w, high_resolution) for h, w in SIZES]
            expected = [(1, h, w, tokens, tokens + 2) for h, w, tokens in expected]
            self.estimates("picture", expected, items, vl_high_resolution_images=high_resolution)
        for height, width, high_resolution, printed in PRINTED:
            self.equal("the calculator here", picture(height, width, high_resolution)[2] + 2, printed)
            item = {"type": "image", "height": height, "width": width}
            answer = self.ask("/v1/tokens/estimate", {"media": [item], "vl_high_resolution_images": high_resolution})
            self.equal("a printed number", answer["media"][0]["tokens_with_markers"], printed)

        clips = [numbers for numbers in CLIPS if frames(*numbers[2:]) is not None]
        keys = ("height", "width", "total_frames", "frame_rate", "fps")
        items = [{"type": "video", **dict(zip(keys, numbers))} for numbers in clips]
        expected = [clip(*numbers) for numbers in clips]
        expected = [(n, h, w, tokens, tokens + 2) for n, h, w, tokens in expected]
        self.estimates("clip", expected, items)

        with tempfile.TemporaryDirectory() as folder:
            files = []
            for height, width in REAL:
                tokens = picture(height, width, False)[2]
                content = png(height, width)
                files.append((os.path.join(folder, f"{height}x{width}.png"), tokens))
                with open(files[-1][0], "wb") as file:
                    file.write(content)
                url = "data:image/png;base64," + base64.b64encode(content).decode()
                parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
                body = {"model": "qwen-vl-max", "max_tokens": 1, "messages": [{"role": "user", "content": parts}]}
                usage = self.ask("/v1/chat/completions", body).get("usage", {})
                details = usage.get("prompt_tokens_details", {})
                self.equal(f"a request with {height}x{width}", details.get("image_tokens"), tokens)
                estimate = self.ask("/v1/tokens/estimate", body)
                self.equal(f"its estimate", estimate.get("prompt_tokens"), usage.get("prompt_tokens"))
            command = [binary, "count", *(path for path, _ in files)]
            lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
            found = [int(re.search(r", (\d+) tokens \(", line).group(1)) for line in lines[: len(files)]]
            self.equal("ocellus count", found, [tokens for _, tokens in files])
        print(f"{len(SIZES)} sizes in two modes, {len(clips)} clips, {len(REAL)} real requests and files")


def main():
    binary = sys.argv[1]
    server = subprocess.Popen([binary, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = re.search(r"http://\S+?(?=/v1)", server.stdout.readline())
        if url is None:
            sys.exit("the server did not start")
        check = Check(url.group(0))
        check.run(binary)
    finally:
        server.terminate()
        server.wait(timeout=60)
    print(f"tokens: {check.right} numbers agree, {check.wrong} do not")
    sys.exit(check.wrong > 0)


main()

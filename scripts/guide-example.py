"""Asks the hosted guide's first question with the openai client and compares the usage: see `scripts/check guide`.

Usage: guide-example.py OCELLUS CHECKPOINT. The last line says whether it holds; so does the exit status.
"""

import base64
import os
import re
import struct
import subprocess
import sys
import zlib

from openai import OpenAI

# The guide's own numbers for this picture and these words.
EXPECTED = {"prompt_tokens": 1276, "image_tokens": 1247}
MESSAGE = "You are a helpful assistant."
QUESTION = "What scene is depicted in the image?"


def picture(width: int, height: int) -> bytes:
    """A PNG of colours that change from left to right and from top to bottom."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(value for x in range(width) for value in (x * 255 // width, 90, 255 - x * 255 // width))
    rows = b"".join(b"\0" + row[:-3] + bytes([y * 255 // height] * 3) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def ask(base_url: str, stream: bool):
    """The usage of one answer."""
    url = "data:image/png;base64," + base64.b64encode(picture(2048, 1365)).decode()
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="qwen-vl-max",
            max_tokens=4,
            messages=[
                {"role": "system", "content": [{"type": "text", "text": MESSAGE}]},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": QUESTION},
                ]},
            ],
            **options,
        )
        return [chunk.usage for chunk in answer if chunk.usage][-1] if stream else answer.usage


def main() -> int:
    ocellus, checkpoint = sys.argv[1:]
    server = subprocess.Popen(
        [ocellus, "serve", "--model", checkpoint, "--port", "0"],
        stdout=subprocess.PIPE,
        # The last line is the verdict's, not the log's.
        env=os.environ | {"OCELLUS_LOG": "error"},
        text=True,
    )
    try:
        first = server.stdout.readline()
        address = re.search(r"http://\S+/v1", first)
        if not address:
            print(f"the guide's example does not hold: the server said {first!r}")
            return 1
        base_url = address[0].replace("/v1", "/compatible-mode/v1")
        holds = True
        for way, stream in (("whole", False), ("stream", True)):
            usage = ask(base_url, stream)
            # The image's tokens are the hosted service's own key, which the client keeps though it does not know it.
            found = {
                "prompt_tokens": usage.prompt_tokens,
                "image_tokens": usage.prompt_tokens_details.image_tokens,
            }
            print(f"{way:7}{usage.model_dump_json()}")
            holds = holds and found == EXPECTED
        print("the guide's example holds" if holds else f"the guide's example does not hold: expected {EXPECTED}")
        return 0 if holds else 1
    finally:
        server.terminate()
        server.wait()


sys.exit(main())

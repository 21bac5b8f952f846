"""Measures, as a client sees it, the time to an answer's first token: a new 720p picture and 30 words each time.

    python first_token.py --ocellus PATH --model DIR --device cuda [--requests 8]

Starts `ocellus serve` on a free port and asks for one token. Pictures are bitmaps, whose decoding takes next to no time,
of random pixels, so that no cache knows them; the time has HTTP and base64 in it. Prints one JSON object.
"""

import argparse
import base64
import json
import random
import re
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

WORDS = "Describe what can be seen here in a few plain sentences and say which objects lie in front and which lie behind them and what the weather may have been then"


def bitmap(width, height):
    """An uncompressed picture of random pixels."""
    pixels = random.randbytes(width * height * 3)
    head = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + pixels


def ask(url):
    picture = base64.b64encode(bitmap(1280, 720)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/bmp;base64,{picture}"}},
        {"type": "text", "text": WORDS},
    ]
    body = {"model": "ocellus", "max_tokens": 1, "temperature": 0, "messages": [{"role": "user", "content": parts}]}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"Content-Type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        usage = json.load(answer)["usage"]
    return time.perf_counter() - started, usage["prompt_tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ocellus", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--requests", type=int, default=8)
    options = parser.parse_args()
    command = [options.ocellus, "serve", "--port", "0", "--model", options.model, "--device", options.device]
    server = subprocess.Popen([*command, "--model-name", "ocellus", "--context", "4096"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []
    threading.Thread(target=lambda: said.extend(server.stderr), daemon=True).start()
    try:
        found = re.search(r"http://\S+(?=/v1)", server.stdout.readline())
        if not found:
            server.wait(timeout=20)
            sys.exit(f"the server did not start: {''.join(said).strip()}")
        times, tokens = [], 0
        # The first ones bring kernels and memory that the others find.
        for count in range(options.requests + 2):
            seconds, tokens = ready(found.group(), server) if count == 0 else ask(found.group())
            if count >= 2:
                times.append(seconds)
    finally:
        server.terminate()
        server.wait(timeout=20)
    ordered = [1e3 * seconds for seconds in sorted(times)]
    print(json.dumps({"time_ms": statistics.median(ordered), "least_ms": ordered[0], "most_ms": ordered[-1],
                      "prompt_tokens": tokens, "n": len(ordered)}))  # fmt: skip


def ready(url, server):
    """The first answer, once the model is loaded: until then the server says that it is not ready."""
    while True:
        try:
            return ask(url)
        except urllib.error.HTTPError as error:
            if error.code != 503 or server.poll() is not None:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()

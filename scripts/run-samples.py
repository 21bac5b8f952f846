"""Runs every program of tests/samples against a server of its own and says of each whether it got its answer.

Usually called by `scripts/check samples`, which installs the clients first:
    run-samples.py --ocellus target/release/ocellus --work target/samples [NAME...]

A program passes when it ends well, prints something, and the server answered all its requests with 200. Those that
send a video file pass when the server refuses it with a 400 that says so.
"""

import argparse
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "tests" / "samples"
PICTURES = ROOT / "tests" / "golden" / "images"
KEY = "sk-samples"
SECONDS = 120

# The guide writes the service's host in two ways.
HOSTED = re.compile(r"https://dashscope(-intl\.aliyuncs|\.aliyuncs-intl)\.com(?=/(api|compatible-mode)/)")
MEDIA = re.compile(r"https?://([^\s\"'`]+\.(?:jpe?g|png|webp|mp4))")
# These send a video file, which the server can't decode yet.
VIDEO_FILES = {"video-openai", "video-dashscope", "local-video-openai", "prompt-events"}
REFUSAL = "Decoding a video file"
STATUS = re.compile(r"\bstatus\"?[=:] ?(\d{3})\b")
# What the streaming programs end with when no text came.
NO_TEXT = re.compile(r"content: *$")

# The beginning of an MP4 file; no more of it is ever looked at.
CLIP = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"


def picture(name):
    """A picture for every name; what it is, its own first bytes say."""
    if name.endswith((".jpg", ".jpeg")):
        return (PICTURES / "turned.jpg").read_bytes()
    if name.endswith(".webp"):
        return (PICTURES / "photo.webp").read_bytes()
    return (PICTURES / "scene.png").read_bytes()


class Media(http.server.BaseHTTPRequestHandler):
    """Answers for the hosts that the programs' pictures and videos come from."""

    def do_GET(self):
        body = CLIP if self.path.endswith(".mp4") else picture(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server:
    """`ocellus serve` on a free port, with its log."""

    def __init__(self, ocellus, media_port):
        command = [ocellus, "serve", "--port", "0", "--api-key", KEY, "--max-completion-tokens", "16"]
        command += ["--media-fetch", "allow-list", "--media-allow", f"127.0.0.1:{media_port}"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        first = self.process.stdout.readline()
        found = re.search(r"http://\S+(?=/v1)", first)
        if not found:
            sys.exit(f"the server did not start: {first}{self.process.stderr.read()}")
        self.url = found.group()
        self.log = []
        for stream, lines in [(self.process.stdout, []), (self.process.stderr, self.log)]:
            threading.Thread(target=lambda s, l: l.extend(s), args=(stream, lines), daemon=True).start()

    def statuses(self, before):
        """What the server answered since its log had so many lines."""
        # The log comes through a pipe and may arrive a little after the answer.
        for _ in range(20):
            found = [status for line in self.log[before:] for status in STATUS.findall(line)]
            if found:
                break
            time.sleep(0.1)
        return [int(status) for status in found]

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def prepare(work):
    """An empty folder with the files that some programs read from the current one."""
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "xxx").mkdir(parents=True)
    (folder / "xxx" / "eagle.png").write_bytes(picture("eagle.png"))
    (folder / "xxx" / "test.mp4").write_bytes(CLIP)
    for number in range(1, 5):
        (folder / f"football{number}.jpg").write_bytes(picture("football.jpg"))
    return folder


def run(sample, folder, server, media_port):
    """None if the program did what it should, else why not."""
    text = sample.read_text(encoding="utf-8")
    text = HOSTED.sub(server.url, text)
    text = MEDIA.sub(rf"http://127.0.0.1:{media_port}/\1", text)
    copy = folder / sample.name
    copy.write_text(text, encoding="utf-8")
    interpreter = {".py": sys.executable, ".mjs": "node", ".sh": "bash"}[sample.suffix]
    environment = {**os.environ, "DASHSCOPE_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    before = len(server.log)
    try:
        done = subprocess.run(
            [interpreter, str(copy)], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {SECONDS} s"
    statuses = server.statuses(before)
    output = done.stdout + done.stderr
    if sample.stem in VIDEO_FILES:
        if statuses != [400]:
            return f"a video file was answered with {statuses}, not with one 400"
        # This SDK hands back an empty answer, and the program ends on it without a word of the server's.
        shown = REFUSAL in output or sample.name == "video-dashscope.py"
        return None if shown else f"the refusal does not say {REFUSAL!r}: {output[-300:]}"
    if not statuses or any(status != 200 for status in statuses):
        return f"the server answered with {statuses}: {output[-300:]}"
    if done.returncode != 0:
        return f"ended with status {done.returncode}: {output[-300:]}"
    # curl prints the answer itself; the other programs have looked for the text in it.
    printed = "finish_reason" in done.stdout if sample.suffix == ".sh" else done.stdout.strip()
    printed = printed and not NO_TEXT.search(done.stdout.rstrip())
    return None if printed else f"printed no answer: {output[-300:]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ocellus", required=True, help="the server's binary")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder with node_modules, written to")
    parser.add_argument("names", nargs="*", help="only programs whose names contain one of these")
    arguments = parser.parse_args()

    samples = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".py", ".mjs", ".sh"))
    if arguments.names:
        samples = [path for path in samples if any(name in path.name for name in arguments.names)]
    if not samples:
        sys.exit("no such program")
    media = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Media)
    threading.Thread(target=media.serve_forever, daemon=True).start()
    media_port = media.server_address[1]
    server = Server(arguments.ocellus, media_port)
    failed = 0
    try:
        folder = prepare(arguments.work)
        for sample in samples:
            fault = run(sample, folder, server, media_port)
            refused = ", refused as it should be" if sample.stem in VIDEO_FILES else ""
            print(f"{sample.name}: {f'FAILED: {fault}' if fault else f'ok{refused}'}", flush=True)
            failed += fault is not None
    finally:
        server.stop()
    print(f"{len(samples) - failed} of {len(samples)} programs passed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

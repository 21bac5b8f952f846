"""Downloads a checkpoint from a hub on this machine in every way that goes right and wrong, and says of each what moved.

    python check-pull.py --ocellus OCELLUS --work FOLDER [--seed N] [--kills N]

Needs `huggingface_hub` beside it (pull-requirements.txt), whose cache is shared, and the repository's nano checkpoint,
which the hub offers with 144 MB of further weights beside it, so that there is something to interrupt. The hub counts
the bytes of files that leave it. The last line and the exit status say whether everything holds.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "pull"))
from hub import Hub, Repository  # noqa: E402

NANO = pathlib.Path(__file__).resolve().parent.parent / "models" / "nano"
NAME = "ocellus-check/nano"
INDEX = "model.safetensors.index.json"
# Never to be fetched.
OTHERS = {"README.md": b"# Nano\n", "modeling_nano.py": b"import os\n", "pytorch_model.bin": b"\x80\x04" * 5000}
TOKEN = "hf_" + "Secret" * 5
MIB = 1 << 20
# Of each file that is on its way when a process is killed, what lies in the system's buffers and in the process's own.
SLACK = 128 << 10
PARALLEL = 4


def noise(seed, length):
    return random.Random(seed).randbytes(length)


def padding(number, length):
    """Weights that every model passes over: a table of rotary frequencies, such as old libraries saved."""
    name = f"model.padding.{number}.rotary_emb.inv_freq"
    header = json.dumps({name: {"dtype": "BF16", "shape": [length // 2], "data_offsets": [0, length]}}).encode()
    header += b" " * (-len(header) % 8)
    return name, struct.pack("<Q", len(header)) + header + noise(number, length)


def checkpoint():
    files = {path.name: path.read_bytes() for path in NANO.iterdir()}
    index = json.loads(files[INDEX])
    for number in range(3):
        name, content = padding(number, 48 * MIB)
        file = f"model-0000{number + 3}-of-00005.safetensors"
        index["weight_map"][name] = file
        files[file] = content
    files[INDEX] = json.dumps(index, indent=1).encode()
    return files


class Check:
    def __init__(self, arguments):
        self.ocellus = arguments.ocellus
        self.work = pathlib.Path(arguments.work) / "runs"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.random = random.Random(arguments.seed)
        self.kills = arguments.kills
        self.files = checkpoint()
        self.needed = sum(map(len, self.files.values()))
        self.hub = Hub()
        repository = Repository()
        self.commit = repository.commit({**self.files, **OTHERS})
        self.hub.repositories[NAME] = repository
        self.outputs = []
        self.right, self.wrong = 0, 0

    def line(self, text, faults):
        """Says what was seen, and what was wrong with it."""
        faults = [fault for fault in faults if fault]
        self.right, self.wrong = self.right + (not faults), self.wrong + bool(faults)
        print(f"{'ok   ' if not faults else 'WRONG'} {text}{''.join(f'; {fault}' for fault in faults)}", flush=True)

    def environment(self, cache, **more):
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS"))}
        home = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
        return {**kept, **home, **{name: str(value) for name, value in more.items()}}

    def start(self, cache, *words, **more):
        command = [self.ocellus, *words]
        environment = self.environment(cache, **more)
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process, limit=120):
        try:
            output, error = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            output, error = process.communicate()
            error += f"\nerror: not over after {limit} s"
        self.outputs += [output, error]
        return process.returncode, output.strip(), error.strip()

    def run(self, cache, *words, **more):
        return self.end(self.start(cache, *words, **more))

    def cache(self, name):
        return self.work / name

    def snapshot(self, cache):
        return cache / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / self.commit

    def parts(self, cache):
        return sorted(cache.glob("hub/models--*/blobs/*.incomplete"))

    def largest(self, cache):
        """The bytes of the largest part; one that has just become whole is none."""
        sizes = [0]
        for path in self.parts(cache):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return max(sizes)

    def is_whole(self, cache):
        """What is wrong with a snapshot, compared byte by byte."""
        folder = self.snapshot(cache)
        if not folder.is_dir():
            return "no snapshot"
        there = sorted(path.name for path in folder.iterdir())
        if there != sorted(self.files):
            return f"the files are {there}"
        wrong = [name for name, content in self.files.items() if (folder / name).read_bytes() != content]
        if wrong:
            return f"wrong content: {wrong}"
        left = [path.name for path in cache.rglob("*") if path.name.endswith((".incomplete", ".tmp"))]
        return f"left over: {left}" if left else None

    # What follows is one method for each thing that is shown.

    def cold_and_again(self):
        cache = self.cache("cold")
        began = time.monotonic()
        status, output, error = self.run(cache, "pull", NAME)
        seconds = time.monotonic() - began
        moved, requests, _ = self.hub.take()
        self.line(
            f"cold pull: {moved:,} bytes of {self.needed:,} in {seconds:.1f} s, {len(requests)} requests, no code, no pickles",
            [
                status != 0 and f"exit status {status}: {error}",
                output != str(self.snapshot(cache)) and f"printed {output!r}",
                moved != self.needed and "not every byte once",
                any(name in request for name in OTHERS for request in requests) and "fetched what is not needed",
                self.is_whole(cache),
            ],
        )
        status, output, error = self.run(cache, "pull", NAME)
        moved, requests, _ = self.hub.take()
        self.line(
            f"second pull: {moved} bytes, {len(requests)} requests",
            [status != 0 and error, moved != 0 and "bytes moved", output != str(self.snapshot(cache)) and f"printed {output!r}"],
        )
        status, output, error = self.run(self.cache("dry"), "pull", NAME, "--dry-run")
        moved, _, _ = self.hub.take()
        written = [path for path in self.cache("dry").rglob("*") if path.is_file()]
        self.line(
            f"--dry-run: {output.splitlines()[-7:-5]}, {moved:,} bytes, nothing written",
            [status != 0 and error, written and f"wrote {written}", "memory with --weights int4" not in output and "no memory"],
        )

    def answers(self):
        cache = self.cache("cold")
        words = ("ask", "--max-tokens", "8", "--temperature", "0", "--json", "What is this?")
        expected = self.run(cache, *words, "--model", str(NANO))
        found = self.run(cache, *words, "--model", NAME)
        moved, requests, _ = self.hub.take()
        texts = [json.loads(output)["text"] if status == 0 else error for status, output, error in (expected, found)]
        self.line(
            f"ask --model {NAME} answers {texts[1]!r}, as the folder does, with {len(requests)} requests",
            [found[0] != 0 and "failed", texts[0] != texts[1] and f"the folder says {texts[0]!r}", requests and "asked the hub"],
        )
        cold = self.cache("asked")
        status, output, error = self.run(cold, *words, "--model", f"{NAME}@main")
        moved, _, _ = self.hub.take()
        self.line(
            f"ask --model {NAME}@main on an empty cache fetches {moved:,} bytes and answers",
            [status != 0 and error, moved != self.needed and "not every byte once", self.is_whole(cold)],
        )
        served = self.cache("served")
        process = self.start(served, "serve", "--port", "0", "--model", NAME)
        first = process.stdout.readline().strip()
        process.terminate()
        status, _, error = self.end(process)
        moved, _, _ = self.hub.take()
        self.line(
            f"serve on an empty cache fetches {moved:,} bytes: {first}",
            [not first.startswith(f'Ocellus serves "{NAME}" at http://') and error, moved != self.needed and "not every byte once", self.is_whole(served)],
        )
        memory = [line for line in error.splitlines() if line.startswith("memory: ")]
        self.line(f"memory before loading: {memory[0] if memory else None}", [not memory and "not said"])

    def too_large(self):
        """The dimensions of the largest published model, with weights that are a hole in a file."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if memory > 140 << 30:
            print("skip  a model that is too large: this machine has room for all of them", flush=True)
            return
        config = (NANO.parent / "72b" / "config.json").read_bytes()
        folder = self.cache("large")
        folder.mkdir()
        size = 146_821_554_688
        header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
        header += b" " * (-len(header) % 8)
        (folder / "config.json").write_bytes(config)
        with (folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + size)
        status, output, error = self.run(self.cache("none"), "serve", "--port", "0", "--model", str(folder))
        self.line(
            f"a model that is too large: {error.splitlines()[-1]}",
            [status != 1 and f"exit status {status}", "the model needs 1" not in error and "not refused", "free: " not in error and "no advice"],
        )
        repository = Repository()
        repository.commit({**self.files, "config.json": config})
        self.hub.repositories["ocellus-check/large"] = repository
        status, output, error = self.run(self.cache("none"), "serve", "--port", "0", "--model", "ocellus-check/large")
        moved, _, _ = self.hub.take()
        self.line(
            f"and from the hub, before its weights come ({moved:,} bytes moved): {error.splitlines()[-1]}",
            [status != 1 and f"exit status {status}", "weights of ocellus-check/large are not fetched: the model needs 1" not in error and "not refused", moved > MIB and "moved bytes in vain"],
        )

    def kills_and_resumes(self):
        cache = self.cache("killed")
        # So slow that a whole pull takes longer than all attempts that are killed.
        self.hub.rate = self.needed / (0.75 * self.kills)
        moments, kept, sent = [], [], 0
        for _ in range(self.kills):
            process = self.start(cache, "pull", NAME)
            moment = self.random.uniform(0.15, 1.15)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            self.end(process)
            moments.append(moment)
            # The hub's threads meet the closed connections a little later.
            time.sleep(0.2)
            kept.append(sum(path.stat().st_size for path in self.parts(cache)))
        before, _, offsets = self.hub.take()
        self.hub.calm()
        status, output, error = self.run(cache, "pull", NAME)
        after, _, more = self.hub.take()
        sent = before + after
        allowed = self.kills * PARALLEL * SLACK
        print(f"      kill -9 after {', '.join(f'{moment:.2f}' for moment in moments)} s; in parts then (MB): {', '.join(f'{size / 1e6:.1f}' for size in kept)}")
        self.line(
            f"{self.kills} kills: {before:,} bytes before the last, {after:,} after it; {sent - self.needed:,} moved twice "
            f"(allowed {allowed:,}: {SLACK >> 10} KiB for each of {PARALLEL} files at each kill); {len(offsets + more)} requests went on at an offset",
            [
                status != 0 and error,
                sent - self.needed > allowed and "too much moved twice",
                sent < self.needed and "bytes are missing",
                not any(offset > 0 for offset in more) and "nothing was gone on with",
                before < self.needed // 10 and "the kills came before anything moved",
                self.is_whole(cache),
            ],
        )

    def corrupted(self):
        cache = self.cache("corrupted")
        self.hub.rate = 60e6
        process = self.start(cache, "pull", NAME)
        while self.largest(cache) <= 4 * MIB:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        self.end(process)
        self.hub.calm()
        time.sleep(0.2)
        self.hub.take()
        part = max(self.parts(cache), key=lambda path: path.stat().st_size)
        with part.open("r+b") as file:
            file.seek(MIB)
            byte = file.read(1)
            file.seek(MIB)
            file.write(bytes([byte[0] ^ 1]))
        status, _, error = self.run(cache, "pull", NAME)
        self.line(
            "a part with one bit flipped: " + next((line for line in error.splitlines() if "fetched again" in line), "not seen"),
            [status != 0 and error, "is deleted and fetched again" not in error and "not found", self.is_whole(cache)],
        )
        self.hub.take()
        blob = (self.snapshot(cache) / "model-00004-of-00005.safetensors").resolve()
        content = bytearray(blob.read_bytes())
        content[5 * MIB] ^= 1
        blob.write_bytes(content)
        status, _, error = self.run(cache, "pull", NAME, "--verify")
        moved, _, _ = self.hub.take()
        self.line(
            f"a file that rots in the cache: --verify fetches {moved:,} bytes again",
            [status != 0 and error, moved != len(content) and "not that file alone", self.is_whole(cache)],
        )
        cache = self.cache("changed")
        self.hub.flip = 2 * MIB
        status, output, error = self.run(cache, "pull", NAME)
        self.hub.calm()
        self.line(
            f"bytes changed on the way, twice: {error.splitlines()[-1]}",
            [status != 1 and f"exit status {status}", "has arrived twice with the checksum" not in error and "not explained", output and "printed a folder"],
        )
        self.hub.take()

    def full_disk(self):
        """Needs the right to mount a file system."""
        folder = self.cache("disk")
        folder.mkdir()
        size = self.needed + 6 * MIB
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            print("skip  a full disk: no right to mount a small file system", flush=True)
            return
        try:
            ballast = folder / "ballast"
            ballast.write_bytes(bytes(40 * MIB))
            status, _, error = self.run(folder, "pull", NAME)
            moved, _, _ = self.hub.take()
            self.line(
                f"a disk that is too small, seen before: {error.splitlines()[-1]} ({moved:,} bytes moved)",
                [status != 1 and f"exit status {status}", "make room" not in error and "not explained", moved > MIB and "moved bytes in vain"],
            )
            ballast.unlink()
            self.hub.rate = 60e6
            process = self.start(folder, "pull", NAME)
            while self.largest(folder) <= 4 * MIB:
                time.sleep(0.02)
            ballast.write_bytes(bytes(60 * MIB))
            status, _, error = self.end(process)
            before, _, _ = self.hub.take()
            self.line(
                f"a disk that fills meanwhile: {error.splitlines()[-1]}",
                [status != 1 and f"exit status {status}", "is full with" not in error and "not explained"],
            )
            ballast.unlink()
            self.hub.calm()
            status, _, error = self.run(folder, "pull", NAME)
            after, _, _ = self.hub.take()
            self.line(
                f"and goes on when there is room: {before:,} + {after:,} bytes",
                [status != 0 and error, before + after - self.needed > PARALLEL * MIB and "moved again", self.is_whole(folder)],
            )
        finally:
            self.hub.calm()
            subprocess.run(["umount", str(folder)], check=False)

    def refusals(self):
        def refused(title, part, words, name=NAME, prepare=lambda: None, **more):
            self.hub.calm()
            prepare()
            began = time.monotonic()
            status, output, error = self.run(self.cache("refused"), "pull", name, **more)
            seconds = time.monotonic() - began
            last = error.splitlines()[-1] if error else ""
            faults = [f"no {word!r}" for word in words if word not in last]
            self.line(
                f"{title} ({seconds:.1f} s): {last}",
                [status != 1 and f"exit status {status}", output and "printed a folder", not last.startswith("error: ") and "no error line", *faults],
            )
            self.hub.calm()

        def needs_token():
            self.hub.token = TOKEN

        refused("401 without a token", "", ["(401)", "set HF_TOKEN"], prepare=needs_token)
        refused("401 with a wrong one", "", ["(401)", "is not accepted"], prepare=needs_token, HF_TOKEN="hf_wrong")
        refused("403", "", ["(403)", "may not read it"], prepare=lambda: self.hub.refuse("/api/", 403), HF_TOKEN=TOKEN)
        refused("gated", "", ["gated", "ask for access at", "HF_TOKEN"], prepare=lambda: self.hub.gated.add(NAME))
        refused("404, repository", "", ["has no repository", "(404)"], name="ocellus-check/none")
        refused("404, revision", "", ["has no revision", "v9"], name=f"{NAME}@v9")
        refused("429 for an hour", "", ["(429)", "in 3600 s"], prepare=lambda: self.hub.refuse("hub", 429, {"Retry-After": "3600"}))
        refused("500 for ever", "", ["fault of its own (500)", "try again later"], prepare=lambda: self.hub.refuse("/tree/", 500))
        refused("no hub", "", ["can't be reached", "HF_ENDPOINT"], HF_ENDPOINT="http://127.0.0.1:9")
        refused("no network allowed", "", ["is not whole in the cache", "HF_HUB_OFFLINE=1"], HF_HUB_OFFLINE=1)
        refused("not a hub", "", ["HF_ENDPOINT", "expected"], HF_ENDPOINT=self.hub.store + "/nowhere")
        self.hub.take()
        # With patience and a token, all of it passes.
        cache = self.cache("patient")
        self.hub.token = TOKEN
        self.hub.refuse("hub", 429, {"Retry-After": "1"}, 1)
        self.hub.refuse("/tree/", 500, {}, 1)
        self.hub.refuse("store", 503, {}, 2)
        status, _, error = self.run(cache, "pull", NAME, HF_TOKEN=TOKEN)
        moved, _, _ = self.hub.take()
        tokens = {kind: len(found) for kind, found in self.hub.tokens.items()}
        self.line(
            f"429, 500 and 503 that pass, with a token: {moved:,} bytes; tokens seen by the hub {tokens['hub']}, by the store {tokens['store']}",
            [status != 0 and error, moved != self.needed and "not every byte once", tokens["store"] and "the store got a token", self.is_whole(cache)],
        )
        self.hub.calm()

    def offline(self):
        cache = self.cache("cold")
        self.hub.take()
        words = ("ask", "--max-tokens", "4", "What is this?", "--model", NAME)
        found = [
            self.run(cache, "pull", NAME, HF_HUB_OFFLINE=1),
            self.run(cache, *words, HF_HUB_OFFLINE=1),
            self.run(cache, *words, TRANSFORMERS_OFFLINE=1),
            # Without the switch, but without a hub either.
            self.run(cache, *words, HF_ENDPOINT="http://127.0.0.1:9"),
        ]
        _, requests, _ = self.hub.take()
        self.line(
            f"offline with the cache: pull and ask, exit statuses {[status for status, *_ in found]}, {len(requests)} requests",
            [error for status, _, error in found if status != 0] + [requests and "asked the hub"],
        )
        empty = self.cache("empty")
        status, output, error = self.run(empty, *words, HF_HUB_OFFLINE=1)
        _, requests, _ = self.hub.take()
        self.line(
            f"offline without the cache: {error.splitlines()[-1]}",
            [status != 1 and f"exit status {status}", "pull it once" not in error and "not explained", requests and "asked the hub"],
        )
        status, _, error = self.run(cache, "pull", NAME, HF_ENDPOINT="http://127.0.0.1:9")
        self.line(
            f"a hub that can't be asked for news: {error.splitlines()[-1]}",
            [status != 1 and f"exit status {status}", "is whole and is what" not in error and "the cache is not named"],
        )

    def side_by_side(self):
        cache = self.cache("two")
        self.hub.rate = 60e6
        both = [self.start(cache, "pull", NAME) for _ in range(2)]
        found = [self.end(process) for process in both]
        self.hub.calm()
        moved, _, _ = self.hub.take()
        waited = sum("another download is fetching the same content" in error for _, _, error in found)
        self.line(
            f"two pulls at once: {moved:,} bytes, exit statuses {[status for status, *_ in found]}, {waited} said that it waits",
            [*[error for status, _, error in found if status != 0], moved != self.needed and "not every byte once", self.is_whole(cache)],
        )

    def python(self):
        import filelock
        import huggingface_hub
        from huggingface_hub import scan_cache_dir, snapshot_download

        cache = self.cache("cold")
        folder = snapshot_download(NAME, cache_dir=cache / "hub", local_files_only=True)
        scan = scan_cache_dir(cache / "hub")
        found = [(repo.repo_id, sorted(ref for revision in repo.revisions for ref in revision.refs), repo.nb_files) for repo in scan.repos]
        self.line(
            f"huggingface_hub {huggingface_hub.__version__} reads ours: {found}, {scan.size_on_disk:,} bytes, {len(scan.warnings)} warnings",
            [
                folder != str(self.snapshot(cache).resolve()) and f"its folder is {folder}",
                found != [(NAME, ["main"], len(self.files))] and "not what was fetched",
                scan.size_on_disk != self.needed and "another size",
                scan.warnings and str(scan.warnings),
            ],
        )
        theirs = self.cache("python")
        code = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], allow_patterns=['*.json', '*.txt', '*.safetensors']))"
        made = subprocess.run(
            [sys.executable, "-c", code, NAME], env=self.environment(theirs), capture_output=True, text=True, check=False
        )
        theirs_moved, _, _ = self.hub.take()
        pulled = self.run(theirs, "pull", NAME)
        asked = self.run(theirs, "ask", "--max-tokens", "4", "Why?", "--model", NAME, HF_HUB_OFFLINE=1)
        moved, _, _ = self.hub.take()
        self.line(
            f"a snapshot of Python's ({theirs_moved:,} bytes): our pull moves {moved}, and ask answers from it offline",
            [
                made.returncode != 0 and made.stderr[-400:],
                pulled[0] != 0 and pulled[2],
                pulled[1] != made.stdout.strip().splitlines()[-1] and f"another folder: {pulled[1]}",
                asked[0] != 0 and asked[2],
                moved != 0 and "moved bytes",
            ],
        )
        # The other way round, online: Python finds nothing to do.
        again = subprocess.run(
            [sys.executable, "-c", code, NAME], env=self.environment(self.cache("two")), capture_output=True, text=True, check=False
        )
        moved, _, _ = self.hub.take()
        self.line(f"Python after our pull moves {moved} bytes", [again.returncode != 0 and again.stderr[-400:], moved != 0 and "moved bytes"])

        cache = self.cache("locked")
        digest = hashlib.sha256(self.files["model-00003-of-00005.safetensors"]).hexdigest()
        lock = cache / "hub" / ".locks" / f"models--{NAME.replace('/', '--')}" / f"{digest}.lock"
        lock.parent.mkdir(parents=True)
        held = filelock.FileLock(lock)
        held.acquire()
        process = self.start(cache, "pull", NAME)
        heard = []
        reader = threading.Thread(target=lambda: heard.extend(iter(process.stderr.readline, "")), daemon=True)
        reader.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any("another download is fetching the same content" in line for line in heard):
            time.sleep(0.05)
        waits = process.poll() is None and not (self.snapshot(cache) / "model-00003-of-00005.safetensors").exists()
        held.release()
        status = process.wait(timeout=60)
        reader.join(timeout=10)
        self.outputs += heard
        self.hub.take()
        self.line("a lock that Python holds is waited for", [not waits and "not waited", status != 0 and "".join(heard), self.is_whole(cache)])

    def secrets(self):
        shown = [output for output in self.outputs if TOKEN in output or "hf_wrong" in output or "signature=secret" in output]
        self.line(f"no token and no signature in {sum(map(len, self.outputs)):,} characters of output", [shown and shown[0]])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ocellus", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    check = Check(arguments)
    for part in [
        check.cold_and_again,
        check.answers,
        check.too_large,
        check.kills_and_resumes,
        check.corrupted,
        check.full_disk,
        check.refusals,
        check.offline,
        check.side_by_side,
        check.python,
        check.secrets,
    ]:
        part()
    shutil.rmtree(check.work, ignore_errors=True)
    if check.wrong:
        print(f"does not hold: {check.wrong} of {check.right + check.wrong} wrong")
    else:
        print(f"holds ({check.right} of {check.right}; {check.needed:,} bytes of weights and files, {arguments.kills} kills)")
    sys.exit(check.wrong > 0)


if __name__ == "__main__":
    main()

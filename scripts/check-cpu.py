#!/usr/bin/env python3
"""Holds the processor path against the machine's limits and against llama.cpp and Transformers, in one run.

    scripts/check cpu                          every row
    scripts/check cpu decode prefill           some of: decode depth sequences prefill encode preprocess load memory
                                               divergence 7b
    scripts/check cpu --rounds 1 --layers 4 --blocks 8 decode     a quick look; its figures are not the model's

All engines get random weights of the true 3B shape, written once to --work (up to 36 GB, and 26 GB more for the row 7b;
removed at the end unless --keep). They run one after another, A B A B, each in a process of its own on the same
processors, so that a noisy minute hurts all. Every figure is the median of the rounds, with the least and the most
behind it. Shares are of the limits that `ocellus bench` measured in the same process: those of decoding of what memory
gave right before and after each step, since other users of a shared machine leave more or less of it from one second to
the next. A row that can't be measured does not hold.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
ROWS = ["decode", "depth", "sequences", "prefill", "encode", "preprocess", "load", "memory", "divergence", "7b"]
# Our formats with the peers' files of the same bits, and floors: ratios of decoding and prefill, percent of a limit.
FORMATS = {
    "bf16": {"files": ["BF16"], "decode": 1.15, "prefill": 1.55, "prefill_share": 72},
    "int8": {"files": ["Q8_0"], "decode": 1.25, "prefill": 2.5, "prefill_share": 60},
    "int4": {"files": ["Q4_K_M", "Q4_0"], "decode": 1.3, "prefill": 2.5, "prefill_share": 60},
}
READ_SHARE = 85
PROMPT = 1276
# Width and height, the ratio to Transformers, percent of the limit.
PICTURES = [("448x448", 1.25, 72), ("1120x896", 1.25, 64)]
# Small checkpoints, one of random weights and one that was trained, and whose quantizers have bits equal to ours.
CHECKPOINTS = ["nano", "demo"]
# So many of the examination's are asked of the trained one.
QUESTIONS = 120
QUANTIZERS = {"int8": ["Q8_0"], "int4": ["Q4_0", "Q4_K"]}
# Gigabytes on the disk: the checkpoint, then the peers' files and our packed one of each format, then single rows.
CHECKPOINT = 7.5
PACKED = {"bf16": 14, "int8": 8, "int4": 7}
DISK = {"depth": 11, "sequences": 13, "encode": 9, "preprocess": 1, "load": 13, "memory": 15, "divergence": 1, "7b": 26}


class Refused(Exception):
    """A part of a row can't be measured."""


class Check:
    def __init__(self, arguments):
        self.arguments = arguments
        self.work = arguments.work.resolve()
        self.lines = []
        self.available = {}

    # Engines

    def run(self, command):
        """The JSON object that a program prints, run on the first processors only."""
        places = sorted(os.sched_getaffinity(0))[: self.arguments.threads]
        environment = {**os.environ, "OCELLUS_THREADS": str(len(places)), "OMP_NUM_THREADS": str(len(places))}
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, places),
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise Refused(f"{Path(str(command[0])).name}: {last}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def ours(self, *words, weights=None, model="3b", part=True):
        """A report of `ocellus bench` on the random model."""
        if weights and not self.has(weights):
            raise Refused(f"ocellus has no --weights {weights} yet")
        command = [self.arguments.ocellus, "bench", "--json", *words]
        if part:
            command += ["--random", model, "--cache", self.work / "ocellus", *self.cut(model)]
        return self.run(command + (["--weights", weights] if weights else []))

    def cut(self, model):
        layers, blocks = self.arguments.layers, self.arguments.blocks
        return (["--layers", layers] if layers else []) + (["--blocks", blocks] if blocks else [])

    def has(self, weights):
        """Whether our binary knows a format: it refuses an unknown one before it looks at the folder."""
        if weights not in self.available:
            command = [self.arguments.ocellus, "bench", "decode", "--model", "/nonexistent", "--weights", weights]
            self.available[weights] = subprocess.run(command, capture_output=True).returncode != 2
        return self.available[weights]

    def llama(self, what, file, *words):
        command = [self.arguments.llama_python, SCRIPTS / "cpu/llama.py", what, file]
        return self.run([*command, "--threads", self.arguments.threads, *words])

    def torch(self, what, file, *words):
        command = [self.arguments.torch_python, SCRIPTS / "cpu/transformers_peer.py", what, file]
        return self.run([*command, "--threads", self.arguments.threads, *words])

    # Files

    def config(self, model="3b"):
        """The published config, with fewer layers when so asked."""
        config = json.loads((SCRIPTS.parent / "models" / model / "config.json").read_text())
        config["num_hidden_layers"] = self.arguments.layers or config["num_hidden_layers"]
        vision = config["vision_config"]
        vision["depth"] = self.arguments.blocks or vision["depth"]
        vision["fullatt_block_indexes"] = [i for i in vision["fullatt_block_indexes"] if i < vision["depth"]]
        path = self.folder() / f"{model}.json"
        path.write_text(json.dumps(config))
        return path

    def folder(self):
        folder = self.work / f"files{self.arguments.layers or ''}{'b' if self.arguments.blocks else ''}{self.arguments.blocks or ''}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def gguf(self, what, model="3b"):
        path = self.folder() / f"{model}-{what}.gguf"
        if not path.exists():
            say(f"writing {path}")
            command = [self.arguments.llama_python, SCRIPTS / "cpu/gguf.py", self.config(model), path, what]
            subprocess.run([str(word) for word in command], check=True)
        # Read once, so that every round finds it in memory.
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass
        return path

    def picture(self):
        """A JPEG of 12 megapixels with edges, waves and noise."""
        path = self.folder() / "12mp.jpg"
        if not path.exists():
            program = (
                "import sys, numpy; from PIL import Image\n"
                "y, x = numpy.mgrid[:3000, :4000]\n"
                "waves = [120 + 80 * numpy.sin(x / a + y / b) + 30 * ((x // c + y // c) % 2)"
                " for a, b, c in ((37, 91, 160), (53, 29, 96), (17, 71, 240))]\n"
                "noise = numpy.random.default_rng(1).normal(0, 8, (3000, 4000, 3))\n"
                "pixels = (numpy.stack(waves, -1) + noise).clip(0, 255).astype('uint8')\n"
                "Image.fromarray(pixels).save(sys.argv[1], quality=90)\n"
            )
            subprocess.run([self.arguments.torch_python, "-c", program, str(path)], check=True)
        return path

    # Rounds and lines

    def formats(self):
        return [(weights, floors) for weights, floors in FORMATS.items() if weights in self.arguments.weights]

    def rounds(self, name, *engines):
        """What each engine gives in each round; they take turns."""
        results = [[] for _ in engines]
        for i in range(self.arguments.rounds):
            for result, engine in zip(results, engines):
                say(f"{name}: round {i + 1} of {self.arguments.rounds}, engine {engines.index(engine) + 1} of {len(engines)}")
                result.append(engine())
        return results

    def line(self, name, ours, peer=None, floor=None, share=None, share_floor=None, peer_share=None, unit="", holds=True, note=""):
        """Prints one comparison. `ours` and `peer` are figures of all rounds, the larger the better, unless in ms or s."""
        inverse = unit in ("ms", "s")
        ratio = None
        if peer:
            a, b = statistics.median(ours), statistics.median(peer)
            ratio = b / a if inverse else a / b
        share = statistics.median(share) if share and None not in share else None
        holds = holds and (floor is None or (ratio is not None and ratio >= floor))
        holds = holds and (share_floor is None or (share is not None and share >= share_floor))
        words = [f"{name}: {spread(ours)} {unit}".rstrip()]
        if peer:
            words.append(f"peer {spread(peer)}, ratio {ratio:.2f}" + (f" (floor {floor})" if floor else ""))
        if share is not None or share_floor:
            words.append(
                f"share {'unknown' if share is None else f'{share:.0f} %'}"
                + (f" (floor {share_floor} %)" if share_floor else "")
                + (f", peer {peer_share:.0f} %" if peer_share is not None else "")
            )
        self.record("; ".join(words) + (f"; {note}" if note else ""), holds, bool(floor or share_floor or not holds))

    def record(self, text, holds, counts=True):
        verdict = ("holds" if holds else "does NOT hold") if counts else "for information"
        print(f"{text}: {verdict}", flush=True)
        self.lines.append(bool(holds) or not counts)

    # Rows

    def decode(self):
        for weights, floors in self.formats():
            self.guarded(f"decode {weights}", lambda: self.decode_format(weights, floors))

    def decode_format(self, weights, floors):
        files = {kind: self.gguf(kind) for kind in floors["files"]}
        self.pack(weights)
        steps = self.arguments.steps
        mine = lambda: self.ours("decode", "--depth", 0, "--sequences", 1, "--steps", steps, weights=weights)
        theirs = [lambda file=file: self.llama("decode", file, "--steps", steps) for file in files.values()]
        ours, *peers = self.rounds(f"decode {weights}", mine, *theirs)
        limit = statistics.median(cell(report, "read_gb_per_s") for report in ours) * 1e9
        best = [100 * cell(report, "gb_per_s") / report["limits"]["read"]["all_threads"] for report in ours]
        for (kind, file), results in zip(files.items(), peers):
            rates = [1 / statistics.median(result["times_s"]) for result in results]
            self.line(
                f"decode {weights} against {kind}",
                [cell(report, "tokens_per_s") for report in ours],
                rates,
                floors["decode"],
                [cell(report, "percent_of_read") for report in ours],
                READ_SHARE,
                100 * statistics.median(rates) * file.stat().st_size / limit,
                unit="tokens/s",
                note=f"{statistics.median(best):.0f} % of the best of seven reads before",
            )

    def depth(self):
        self.pack("int4")
        (ours,) = self.rounds(
            "depth",
            lambda: self.ours(
                "decode", "--depth", "0,1024", "--sequences", 1, "--steps", self.arguments.steps, weights="int4"
            ),
        )
        deep, shallow = ([cell(report, "tokens_per_s", row) for report in ours] for row in (1, 0))
        self.line("decode int4 at depth 1024 against depth 0", deep, shallow, 0.95, unit="tokens/s")

    def sequences(self):
        self.pack("int4")
        file, steps = self.gguf("Q4_K_M"), self.arguments.steps
        ours, peer = self.rounds(
            "sequences",
            lambda: self.ours("decode", "--depth", 0, "--sequences", 4, "--steps", steps, weights="int4"),
            lambda: self.llama("decode", file, "--sequences", 4, "--steps", steps),
        )
        self.line(
            "4 sequences at once, int4 against Q4_K_M",
            [cell(report, "tokens_per_s") for report in ours],
            [4 / statistics.median(result["times_s"]) for result in peer],
            3,
            unit="tokens/s in all",
        )

    def prefill(self):
        for weights, floors in self.formats():
            self.guarded(f"prefill {weights}", lambda: self.prefill_format(weights, floors))

    def prefill_format(self, weights, floors):
        files = {kind: self.gguf(kind) for kind in floors["files"]}
        self.pack(weights)
        mine = lambda: self.ours("prefill", "--tokens", PROMPT, "--repetitions", 1, weights=weights)
        theirs = [lambda file=file: self.llama("prefill", file, "--tokens", PROMPT) for file in files.values()]
        ours, *peers = self.rounds(f"prefill {weights}", mine, *theirs)
        rates = [cell(report, "tokens_per_s") for report in ours]
        shares = [cell(report, "percent_of_limit") for report in ours]
        for kind, results in zip(files, peers):
            their_rates = [result["tokens"] / statistics.median(result["times_s"]) for result in results]
            # The same work, so shares of the limit are as rates are.
            per_rate = statistics.median(s / r for s, r in zip(shares, rates)) if None not in shares else None
            self.line(
                f"prefill of {PROMPT} tokens, {weights} against {kind}",
                rates,
                their_rates,
                floors["prefill"],
                shares,
                floors["prefill_share"],
                per_rate and per_rate * statistics.median(their_rates),
                unit="tokens/s",
            )

    def encode(self):
        for size, floor, share in PICTURES:
            self.guarded(f"encode {size}", lambda: self.encode_size(size, floor, share))

    def encode_size(self, size, floor, share_floor):
        config = self.config()
        mine = lambda: self.ours("vision", "--size", size, "--repetitions", 1, weights="bf16")
        ours, torch = self.rounds(
            f"encode {size}", mine, lambda: self.torch("encode", config, "--size", size)
        )
        times = [cell(report, "time_ms") / 1e3 for report in ours]
        shares = [cell(report, "percent_of_limit") for report in ours]
        theirs = [statistics.median(result["times_s"]) for result in torch]
        per_second = statistics.median(s * t for s, t in zip(shares, times)) if None not in shares else None
        self.line(
            f"encode {size}, bf16 against Transformers' bf16",
            times,
            theirs,
            floor,
            shares,
            share_floor,
            per_second and per_second / statistics.median(theirs),
            unit="s",
        )
        tower, small = self.gguf("tower"), self.gguf("small")
        try:
            llama = [statistics.median(self.llama("encode", tower, "--text", small, "--size", size)["times_s"])]
            self.line(f"encode {size}, bf16 against llama.cpp's bf16 projector", times, llama, unit="s")
        except Refused as refused:
            print(f"encode {size}: llama.cpp's vision interface can't be reached ({refused}); Transformers alone counts")

    def preprocess(self):
        picture = self.picture()
        for what, pixels in [("1280 tokens", 1280 * 784), ("16384 tokens", 16384 * 784)]:
            mine = lambda: self.ours("preprocess", picture, "--max-pixels", pixels, part=False)
            limit = ["--max-pixels", pixels, "--repetitions", 3]
            slow = lambda: self.torch("preprocess", picture, "--processor", "slow", *limit)
            fast = lambda: self.torch("preprocess", picture, "--processor", "fast", *limit)
            ours, slow, fast = self.rounds(f"preprocess {what}", mine, slow, fast)
            width, height = (int(side) for side in ours[0]["tables"][0]["rows"][0]["seen"].split("x"))
            for name, results, floor in [("slow", slow, 3), ("fast", fast, 1.2)]:
                same = results[0]["patches"] == width // 14 * (height // 14)
                self.line(
                    f"12-MP JPEG to at most {what} of patches against Transformers' {name} processor",
                    [cell(report, "time_ms") for report in ours],
                    [1e3 * statistics.median(result["times_s"]) for result in results],
                    floor,
                    unit="ms",
                    holds=same,
                    note="" if same else "NOT the same patches",
                )

    def load(self):
        file = self.gguf("Q4_K_M")
        self.pack("int4")
        mine = lambda: self.ours("load", "--repetitions", 1, weights="int4")
        ours, peer = self.rounds("load", mine, lambda: self.llama("load", file))
        times, first = ([cell(report, "time_ms", row) / 1e3 for report in ours] for row in (0, 1))
        # A file that is only mapped is ready at once: what counts is that a token can follow.
        soon = statistics.median(first) <= 3
        self.line(
            "ready to answer, int4 against Q4_K_M, files in memory",
            times,
            [statistics.median(result["times_s"]) for result in peer],
            3,
            unit="s",
            holds=soon,
            note=f"first token of a chat after {statistics.median(first):.2f} s (at most 3)",
        )
        self.line("the same with a first token", first, [result["first_token_s"] for result in peer], unit="s")

    def memory(self):
        for weights, _ in self.formats():
            self.guarded(f"memory {weights}", lambda: self.memory_format(weights))

    def memory_format(self, weights):
        """Both when weights are packed at the start and when they were packed before."""
        self.unpack(weights)
        packing = self.ours("load", "--repetitions", 1, weights=weights)["peak_resident_bytes"]
        self.pack(weights)
        report = self.ours("load", "--repetitions", 1, weights=weights)
        self.unpack(weights)
        size, packed = report["conditions"]["packed_bytes"], report["peak_resident_bytes"]
        if not size:
            raise Refused("no packed file was written")
        most = 1.15 * size + 1e9
        for what, peak in [("packing at the start", packing), ("packed before", packed)]:
            text = f"peak memory {weights}, {what}: {peak / 1e9:.2f} GB for packed weights of {size / 1e9:.2f} GB"
            self.record(f"{text} (at most {most / 1e9:.2f})", peak <= most)

    def unpack(self, weights):
        for file in self.checkpoint().glob(f"ocellus-{weights}-*"):
            file.unlink()

    def checkpoint(self, model="3b"):
        """The folder that `ocellus bench --random` writes to."""
        layers, blocks = self.arguments.layers, self.arguments.blocks
        name = model + (f"-{layers}-layers" if layers else "") + (f"-{blocks}-blocks" if blocks else "")
        return self.work / "ocellus" / f"{name}-random"

    def pack(self, weights, model="3b"):
        """Writes the packed file that later starts find, unless it is there."""
        if not self.has(weights):
            raise Refused(f"ocellus has no --weights {weights} yet")
        folder = self.checkpoint(model)
        if not folder.exists():
            self.ours("vision", "--size", "28x28", "--repetitions", 1, model=model)
        if not any(folder.glob(f"ocellus-{weights}-*")):
            say(f"packing {weights}")
            command = [self.arguments.ocellus, "quantize", "--model", folder, "--weights", weights]
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
            if done.returncode:
                raise Refused(done.stderr.strip())

    def divergence(self):
        """What our formats leave of the weights beside what llama.cpp's quantizers leave of the same matrices, both computed
        in f32; for information, our products too, which also round activations."""
        own, library = SCRIPTS.parent / "tests/golden", self.ggml()
        for name in CHECKPOINTS:
            folder, model = self.folder() / f"golden-{name}", SCRIPTS.parent / "models" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            if name == "demo":
                # What it was trained on, and more of it: quantizers differ by less than a handful of answers does.
                self.text([self.arguments.torch_python, SCRIPTS / "cpu/questions.py", folder, QUESTIONS])
            else:
                shutil.copytree(own / "images", folder / "images")
                shutil.copy(own / "cases.json", folder)
            (folder / name).symlink_to(model)
            make = [self.arguments.torch_python, SCRIPTS / "make-golden.py", folder, "--model", name, model]
            self.text([*make, "--only", "images,model"])
            rewritten = []
            for kind in (kind for kinds in QUANTIZERS.values() for kind in kinds):
                out = folder / "rewritten" / kind
                rewritten += ["--rewritten", out]
                program = SCRIPTS / "cpu/quantizers.py"
                self.text([self.arguments.llama_python, program, library, model, out / name, kind])
            said = self.text([self.arguments.golden, folder, *rewritten])
            pattern = r"weights in (\S+) against f32: mean \|logit difference\| (\S+), mean KL (\S+) nats"
            found = {Path(which).name: (float(mean), float(nats)) for which, mean, nats in re.findall(pattern, said)}
            shown = lambda which: f"{found[which][0]:.3g} (KL {found[which][1]:.2e})"  # noqa: B023, E731
            for ours, kinds in QUANTIZERS.items():
                least = min(found[kind][0] for kind in kinds)
                beside = ", ".join(f"{kind} {shown(kind)}" for kind in kinds)
                text = f"{name}: mean |logit difference| to f32 of {ours}'s weights {shown(f'rounded-{ours}')}, {beside}"
                # Which way each weight is rounded is chance: an equal quantizer is some percent off.
                self.record(text, found[f"rounded-{ours}"][0] <= 1.05 * least)
                self.record(f"{name}: {ours}'s products {shown(ours)}", True, counts=False)

    def text(self, command):
        """What a program prints."""
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise Refused(f"{' '.join(Path(str(word)).name for word in command[:2])}: {last}")
        return done.stdout

    def ggml(self):
        """llama.cpp's library of quantizers."""
        where = "import llama_cpp, pathlib; print(pathlib.Path(llama_cpp.__file__).parent / 'lib/libggml-base.so')"
        return self.text([self.arguments.llama_python, "-c", where]).strip().splitlines()[-1]

    def seven(self):
        file = self.gguf("Q4_K_M", "7b")
        self.pack("int4", "7b")
        steps = self.arguments.steps
        mine = lambda: self.ours("decode", "--depth", 0, "--sequences", 1, "--steps", steps, weights="int4", model="7b")
        ours, peer = self.rounds("7b", mine, lambda: self.llama("decode", file, "--steps", steps))
        peak = max(report["peak_resident_bytes"] for report in ours)
        self.line(
            "7B decode int4 against Q4_K_M",
            [cell(report, "tokens_per_s") for report in ours],
            [1 / statistics.median(result["times_s"]) for result in peer],
            unit="tokens/s",
            share=[cell(report, "percent_of_read") for report in ours],
        )
        self.record(f"7B int4 fits: peak memory {peak / 2**30:.1f} GiB (at most 24)", peak <= 24 * 2**30)

    def guarded(self, name, measure):
        """A part that can't be measured does not hold, and the others go on."""
        try:
            measure()
        except Refused as refused:
            self.record(f"{name}: not measured ({refused})", False)

    def all(self):
        rows = self.arguments.rows or ROWS
        measures = {**{row: getattr(self, row) for row in ROWS if row != "7b"}, "7b": self.seven}
        limits = self.run([self.arguments.ocellus, "bench", "limits", "--json"])["limits"]
        print(
            f"{limits['processor']}, {limits['threads']} threads, {limits['instructions']}: "
            + ", ".join(f"{name} {limits[name]['all_threads'] or 0:.1f}" for name in ("read", "f32", "bf16", "int8"))
            + " G/s"
        )
        for row in (row for row in ROWS if row in rows):
            self.guarded(row, measures[row])
        return all(self.lines) and bool(self.lines)


def cell(report, key, row=0):
    return report["tables"][0]["rows"][row][key]


def spread(values):
    return f"{three(statistics.median(values))} [{three(min(values))}, {three(max(values))}]"


def three(value):
    """Three digits, which is more than the machine's noise."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def say(text):
    print(f"cpu: {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="one of " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16, help="tokens that are decoded in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, help="so many layers of the decoder, for a quick look")
    parser.add_argument("--blocks", type=int, help="so many blocks of the vision tower, for a quick look")
    parser.add_argument("--weights", default=",".join(FORMATS), help="only these formats in decode, prefill and memory")
    parser.add_argument("--keep", action="store_true", help="keep the files of random weights")
    parser.add_argument("--ocellus", type=Path, required=True)
    parser.add_argument("--golden", type=Path, required=True, help="the program that measures divergence")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--llama-python", required=True)
    parser.add_argument("--torch-python", required=True)
    arguments = parser.parse_args()
    if unknown := [row for row in arguments.rows if row not in ROWS]:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    arguments.weights = arguments.weights.split(",")
    if unknown := [weights for weights in arguments.weights if weights not in FORMATS]:
        parser.error(f"no format is called {', '.join(unknown)}; there are {', '.join(FORMATS)}")
    if min(arguments.rounds, arguments.steps, arguments.threads) < 1:
        parser.error("rounds, steps and threads are whole numbers from 1 on")
    check = Check(arguments)
    rows = arguments.rows or ROWS
    cut = arguments.layers is not None
    formats = CHECKPOINT + sum(PACKED[weights] for weights in arguments.weights)
    gigabytes = {row: DISK.get(row, formats) for row in rows}
    needed = 0 if cut else max(gigabytes.values()) + (gigabytes["7b"] if "7b" in rows and len(rows) > 1 else 0)
    present = sum(file.stat().st_size for file in arguments.work.glob("[fo]*/**/*") if file.is_file()) / 1e9
    free = shutil.disk_usage(arguments.work).free / 1e9
    if free + present < needed + 2:
        sys.exit(f"cpu: {arguments.work} has {free:.0f} GB free, expected {needed + 2 - present:.0f}")
    try:
        holds = check.all()
    finally:
        if not arguments.keep:
            shutil.rmtree(check.folder(), ignore_errors=True)
            shutil.rmtree(check.work / "ocellus", ignore_errors=True)
    print("cpu: all rows hold" if holds else f"cpu: {check.lines.count(False)} rows do NOT hold")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()

"""Everything that wants a GPU, in one run within a budget of seconds: self-test, measurements, torch beside them.

Called by `scripts/gpu-check`:
    check-gpu.py --binary PATH [--out DIR] [--seconds 520] [--device cuda] [--cache DIR] [--python PYTHON] [--commit ID]

Models of random weights are written to --cache (24 GB for both; the memory file system where it has room). Each step has
a limit of its own; one that fails or hangs stops no other, and what no time is left for is said. The report is written
anew after every step, as gpu-check.md and gpu-check.json in --out, so that an interrupted run leaves what it knew.
The status is 0 when the self-test passes and no target is missed; what was not measured is missed by nobody.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys

from gpu import report, targets
from gpu.measurements import Measurements
from gpu.steps import Budget, gpu_query

SCRIPTS = pathlib.Path(__file__).resolve().parent
PICTURES = {1280: "1120x896", 16384: "3584x3584"}
# Bytes of a checkpoint, with some room.
MODEL_BYTES = {"3b": 8 << 30, "7b": 17 << 30}
SEQUENCES = "1,4,16"


class Check:
    def __init__(self, options):
        self.options = options
        self.binary = options.binary.resolve()
        self.budget = Budget(options.seconds, scale=options.scale, say=say)
        self.figures = Measurements()
        self.checks = {}
        self.texts = {}
        self.peer_versions = {}
        self.cache = options.cache or roomy_folder()
        self.head = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": options.commit or beside(self.binary).get("commit", "unknown"),
            "binary": {"bytes": self.binary.stat().st_size, "sha256": digest(self.binary)},
            "machine": machine(),
            "budget_s": options.seconds,
            "models_in": str(self.cache),
        }

    def everything(self):
        """In the order of worth: what comes late may find no time left."""
        self.correctness()
        self.model("3b")
        self.model("7b")
        self.peer("7b", 150, ["limits", "decode-eager", "decode-compiled", *self.peer_work()])
        self.peer("3b", 110, ["decode-eager", "decode-compiled"])
        self.rest()

    def correctness(self):
        device = ["--device", self.options.device]
        doctor = self.step("doctor", ["doctor", "--json"], limit=40)
        for found in doctor.objects():
            self.figures.limits(found)
        self.text("ocellus doctor", ["doctor", "--quick"], limit=20)
        for name, part, limit in [("self-test", "operations", 120), ("goldens", "model", 60)]:
            step = self.step(name, ["self-test", "--only", part, *device], limit)
            self.texts[f"ocellus self-test --only {part}"] = step.output
            if step.status != "skipped":
                self.checks[name] = step.status == "ok"
        self.save()

    def model(self, size):
        """The same model for all of its steps; the first one writes it."""
        if size not in self.options.models:
            return
        self.bench(size, "bf16", "load", ["--repetitions", "2"], limit=150, need=30)
        steps = ["--depth", "1300", "--sequences", SEQUENCES, "--steps", "48"]
        self.bench(size, "bf16", "decode", steps, limit=70, need=15)
        if size != "7b":
            return
        chunk = ["--chunk", str(self.options.chunk)]
        self.bench(size, "bf16", "prefill", ["--tokens", "1276,8192", *chunk], limit=70, need=15)
        self.bench(size, "bf16", "vision", ["--size", PICTURES[1280]], limit=50, need=12)
        before = gpu_query("memory.used")
        large = self.bench(size, "bf16", "vision", ["--size", PICTURES[16384], "--repetitions", "3"], limit=60, need=12)
        if large.status == "ok" and large.gpu_bytes and before:
            # An upper bound: the driver's own memory for a process is in it.
            taken = large.gpu_bytes - (int(before[0]) << 20) - tower_bytes(size)
            self.figures.put("7b vision 16384 workspace GB", taken / 1e9)
        self.first_token(size)
        self.bench(size, "int4", "decode", ["--depth", "1300", "--sequences", "1", "--steps", "48"], limit=110, need=20)

    def first_token(self, size):
        program = [sys.executable, SCRIPTS / "gpu/first_token.py", "--ocellus", self.binary]
        folder = self.cache / f"{size}-random"
        command = [*program, "--model", folder, "--device", self.options.device]
        step = self.budget.run(f"{size} first token", command, 80, need=15)
        for found in step.objects():
            self.figures.put(f"{size} first token ms", found.get("time_ms"))
            self.figures.put(f"{size} first token prompt", found.get("prompt_tokens"))
        self.save()

    def peer_work(self):
        return ["prefill:1276", f"vision:{PICTURES[1280]}", "decode-eager:16", "prefill:8192", f"vision:{PICTURES[16384]}"]

    def peer(self, size, limit, work):
        if size not in self.options.models:
            return
        python = self.options.python or python_with_torch()
        if python is None:
            self.texts["torch"] = "No Python with torch and transformers was found: nothing stands beside our figures."
            return
        config = SCRIPTS.parent / "models" / size / "config.json"
        command = [python, SCRIPTS / "gpu/torch_peer.py", config, "--device", self.options.device, *work]
        step = self.budget.run(f"{size} torch", command, limit, need=25)
        lines = step.objects()
        self.figures.peer(size, lines, tokens_of_picture)
        self.peer_versions.update(*[line for line in lines if "torch" in line][:1])
        errors = [f"{line['what']}: {line['error']}" for line in lines if "error" in line]
        step.detail = "; ".join(filter(None, [step.detail, *errors]))
        self.save()

    def rest(self):
        """What is good to know, when there is time."""
        self.text("ocellus bench kernels", ["bench", "kernels", "--size", "7b", "--weights", "bf16,int4",
                  "--tokens", "1,16,1024", "--repetitions", "3", "--device", self.options.device], limit=90)  # fmt: skip
        if "7b" in self.options.models:
            words = ["--depth", "1300", "--sequences", "1", "--steps", "48"]
            self.bench("7b", "int8", "decode", words, limit=110, need=25)
        self.text("ocellus bench limits", ["bench", "limits", "--device", self.options.device], limit=60)

    # Parts

    def bench(self, size, weights, what, words, limit, need):
        command = ["bench", "--json", what, "--random", size, "--cache", self.cache, "--weights", weights]
        name = f"{size} {weights} {what} {' '.join(words)}"
        step = self.step(name, [*command, "--device", self.options.device, *words], limit, need)
        for found in step.objects():
            if "bench" in found:
                self.figures.bench(size, weights, found)
        self.save()
        return step

    def text(self, name, words, limit):
        """Keeps what is printed for people."""
        step = self.step(name, words, limit)
        if step.output:
            self.texts[name] = step.output
        self.save()

    def step(self, name, words, limit, need=5.0):
        return self.budget.run(name, [self.binary, *words], limit, need)

    def report(self):
        held = targets.targets(self.figures, self.checks)
        return {
            **self.head,
            "peer": self.peer_versions,
            "targets": [target.json() for target in held],
            "figures": dict(self.figures),
            "steps": [step.json() for step in self.budget.steps],
            "texts": self.texts,
        }

    def save(self):
        report.write(self.options.out, self.report())


def say(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    named = gpu_query("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory")
    keys = ["gpu", "driver", "memory_mib", "power_limit_w", "most_sm_mhz", "most_memory_mhz"]
    found = dict(zip(keys, named or []))
    if "memory_mib" in found:
        found["memory"] = f"{found['memory_mib']} MiB"
    return {**found, "processor": processor(), "processors": os.cpu_count(), "system": platform.platform()}


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def roomy_folder():
    """The memory file system where both models fit, since disks are slow and none of it is to stay."""
    shared = pathlib.Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > sum(MODEL_BYTES.values()):
        return shared / "ocellus-gpu-check"
    return pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "ocellus-gpu-check"


def python_with_torch():
    for python in filter(None, [sys.executable, shutil.which("python3"), shutil.which("python")]):
        probe = [python, "-c", "import torch, transformers"]
        try:
            if subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0:
                return python
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


def tower_bytes(size):
    """The vision tower's weights in bf16."""
    config = json.loads((SCRIPTS.parent / "models" / size / "config.json").read_text(encoding="utf-8"))["vision_config"]
    hidden, inner, out = config["hidden_size"], config["intermediate_size"], config["out_hidden_size"]
    merged = 4 * hidden
    block = 4 * hidden * hidden + 3 * hidden * inner
    return 2 * (config["depth"] * block + 1176 * hidden + merged * merged + merged * out)


def tokens_of_picture(size):
    width, height = (int(side) for side in size.split("x"))
    return width * height // (28 * 28)


def beside(binary):
    """What scripts/gpu-binary has written down beside the binary."""
    try:
        return json.loads(binary.with_name(binary.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="the program ocellus, built elsewhere")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check"), help="where the report goes")
    parser.add_argument("--seconds", type=float, default=520, help="the budget of all steps together")
    parser.add_argument("--device", default="cuda", help="the device's name")
    parser.add_argument("--cache", type=pathlib.Path, help="where models of random weights are written")
    parser.add_argument("--models", type=lambda text: text.split(","), default=["3b", "7b"], help="which sizes")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens of a prompt that are computed at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the limit of each step")
    parser.add_argument("--python", help="a Python that has torch and transformers")
    parser.add_argument("--commit", help="of the binary; else what gpu-binary has written beside it")
    options = parser.parse_args()

    check = Check(options)
    # A run that is ended from outside leaves its report too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check.everything()
    finally:
        check.save()
        if options.cache is None:
            shutil.rmtree(check.cache, ignore_errors=True)
    found = check.report()
    print(report.markdown({**found, "texts": {}}))
    print(f"gpu-check: {report.verdict(found)}")
    sys.exit(any(target["holds"] is False for target in found["targets"]))


if __name__ == "__main__":
    main()

"""Runs one program after another within a budget of seconds. What goes wrong is written down and stops nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import threading
import time


@dataclasses.dataclass
class Step:
    """One program that was run, or why it was not."""

    name: str
    command: list
    # "ok", "failed", "timed out" or "skipped".
    status: str = "skipped"
    seconds: float = 0.0
    detail: str = ""
    # The most memory of the GPU that was in use meanwhile, by all programs together, in bytes.
    gpu_bytes: int | None = None
    output: str = ""

    def json(self):
        fields = dataclasses.asdict(self)
        fields["command"] = " ".join(str(word) for word in self.command)
        # What was measured has a place of its own in the report; a failure's last words are worth keeping.
        fields["output"] = "" if self.status == "ok" else self.output[-4000:]
        return fields

    def objects(self):
        """The JSON objects among the lines that it printed."""
        found = []
        for line in self.output.splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found


class Budget:
    """So many seconds for everything; each step may take what is left of them, and at most its own limit."""

    def __init__(self, seconds, reserve=8.0, scale=1.0, say=print):
        self.ends = time.monotonic() + seconds
        self.reserve = reserve
        # Limits and needs are for a real GPU; a test has none and is short of time.
        self.scale = scale
        self.say = say
        self.steps = []

    def left(self):
        return self.ends - self.reserve - time.monotonic()

    def run(self, name, command, limit, need=5.0):
        """Runs a program for `limit` seconds at most, unless fewer than `need` are left."""
        step = Step(name, [str(word) for word in command])
        self.steps.append(step)
        limit, need, left = limit * self.scale, need * self.scale, self.left()
        if left < need:
            step.detail = f"{max(left, 0):.0f} s are left, it needs {need:.0f}"
            self.say(f"{name}: skipped, {step.detail}")
            return step
        limit = min(limit, left)
        started = time.monotonic()
        with MemoryWatch() as watch, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            self._wait(step, output, errors, limit)
            output.seek(0)
            errors.seek(0)
            step.output = output.read().decode(errors="replace")
            words = errors.read().decode(errors="replace")
        step.seconds = time.monotonic() - started
        step.gpu_bytes = watch.most
        if step.status != "ok":
            last = [line for line in words.splitlines() if line.strip()][-3:]
            step.detail = " / ".join([step.detail, *last])
            step.output += words
        self.say(f"{name}: {step.status} in {step.seconds:.1f} s{': ' + step.detail if step.detail else ''}")
        return step

    def _wait(self, step, output, errors, limit):
        try:
            # A group of its own, so that what it has started ends with it.
            process = subprocess.Popen(
                step.command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
        except OSError as error:
            step.status, step.detail = "failed", str(error)
            return
        try:
            status = process.wait(timeout=limit)
            step.status = "ok" if status == 0 else "failed"
            step.detail = "" if status == 0 else f"ended with status {status}"
        except subprocess.TimeoutExpired:
            stop(process)
            step.status, step.detail = "timed out", f"did not end within {limit:.0f} s"
        except BaseException:
            stop(process)
            raise


def stop(process):
    """Ends a program that leads a group, and all of the group."""
    for word, patience in [(signal.SIGTERM, 3), (signal.SIGKILL, 10)]:
        try:
            os.killpg(process.pid, word)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    process.poll()


class MemoryWatch:
    """Asks the driver now and then how much memory is in use; `most` stays None where it can't be asked."""

    def __init__(self, every=0.25):
        self.most = None
        self.every = every
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(timeout=5)

    def _look(self):
        while True:
            used = gpu_query("memory.used")
            if used is None:
                return
            self.most = max(self.most or 0, int(used[0]) << 20)
            if self.over.wait(self.every):
                return


def gpu_query(*fields):
    """What the driver's own program says of the first GPU, in the order of `fields`; None without it."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return values if done.returncode == 0 and len(values) == len(fields) else None

"""What the figures are held against: shares of the limits that the same run has measured, and ratios to the peer."""

from __future__ import annotations

import dataclasses

# Names of limits in the figures, ours first, torch's where ours are missing.
COPY = ("copy GB/s", "torch copy GB/s")
MATRIX = ("matrix TFLOP/s", "torch matrix TFLOP/s")


@dataclasses.dataclass
class Target:
    what: str
    # Words for people, such as "≥ 75 %".
    wanted: str
    # The figure, None where it was not measured.
    measured: float | None
    unit: str
    floor: float | None = None
    ceiling: float | None = None
    aim: float | None = None

    @property
    def holds(self):
        if self.measured is None:
            return None
        return (self.floor is None or self.measured >= self.floor) and (
            self.ceiling is None or self.measured <= self.ceiling
        )

    def json(self):
        return {**dataclasses.asdict(self), "holds": self.holds}


def targets(figures, checks):
    """All of them in order; `checks` maps the names of programs that only pass or fail to whether they did."""
    found = []
    for name in ("self-test", "goldens"):
        passed = checks.get(name)
        found.append(Target(name, "pass", None if passed is None else float(passed), "", floor=1.0))

    for model in ("3b", "7b"):
        ours = f"{model} bf16 decode x1"
        what = f"decode, one sequence, {model} bf16"
        found.append(share(what, figures, f"{ours} GB/s", COPY, "copy bandwidth", 75, 85))
        found.append(ratio(f"{what}, to compiled torch", figures, f"{model} torch decode-compiled x1 ms", f"{ours} ms", 1.3))
        found.append(ratio(f"{what}, to eager torch", figures, f"{model} torch decode-eager x1 ms", f"{ours} ms", 4))
    name = "decode, one sequence, 7b int4"
    found.append(share(name, figures, "7b int4 decode x1 GB/s", COPY, "copy bandwidth", 55))
    for tokens in (1276, 8192):
        name = f"prefill of {tokens} tokens, 7b bf16"
        found.append(share(name, figures, f"7b bf16 prefill {tokens} TFLOP/s", MATRIX, "matrix peak", 50, 60))
    for tokens in (1280, 16384):
        ours = f"7b bf16 vision {tokens}"
        name = f"a picture of {tokens} tokens"
        found.append(share(name, figures, f"{ours} TFLOP/s", MATRIX, "matrix peak", 35, 50))
        found.append(ratio(f"{name}, to eager torch", figures, f"7b torch vision {tokens} ms", f"{ours} ms", 2))
    name = "memory beside the weights, 16384 tokens"
    found.append(Target(name, "≤ 4 GB", figures.get("7b vision 16384 workspace GB"), "GB", ceiling=4))
    name = "first token, 720p picture and 30 words, 7b"
    found.append(Target(name, "≤ 80 ms", figures.get("7b first token ms"), "ms", ceiling=80))
    one, many = figures.get("7b bf16 decode x1 ms"), figures.get("7b bf16 decode x16 ms")
    gain = 16 * one / many if one and many else None
    found.append(Target("16 sequences, 7b bf16, to one", "≥ 12 ×", gain, "×", floor=12))
    name = "load of 7b bf16 from the page cache"
    found.append(Target(name, "≥ 3 GB/s", figures.get("7b bf16 load ready GB/s"), "GB/s", floor=3))
    return found


def limit(figures, names):
    return next((figures[name] for name in names if figures.get(name)), None)


def share(what, figures, name, limit_names, limit_words, floor, aim=None):
    reached, best = figures.get(name), limit(figures, limit_names)
    measured = 100 * reached / best if reached and best else None
    wanted = f"≥ {floor} % of the {limit_words}" + (f", aim {aim} %" if aim else "")
    return Target(what, wanted, measured, "%", floor=floor, aim=aim)


def ratio(what, figures, theirs, ours, floor):
    slow, fast = figures.get(theirs), figures.get(ours)
    return Target(what, f"≥ {floor} ×", slow / fast if slow and fast else None, "×", floor=floor)

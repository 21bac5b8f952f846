"""The `.cu` files of kernels/: which there are, what each is compiled for, and which kernels must not spill."""

import dataclasses
import fnmatch
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "kernels"
SHARED = KERNELS / "cuda"
PTX = SHARED / "ptx"

# Code between `#if`s on this macro exists on Hopper only: wgmma and TMA are instructions of sm_90a and of no other.
HOPPER = "__CUDA_ARCH_FEAT_SM90_ALL"
# `// hot` stands above a kernel that must not spill, `// hot: a b_*` above a macro that makes several.
HOT = re.compile(r"^[ \t]*// hot(?::[ \t]*([\w*? \t]+))?[ \t]*\n([^\n]*(?:\n[^\n{;]*)?)", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Source:
    path: pathlib.Path

    @property
    def name(self):
        """The stem, which is the module's name for the loader."""
        return self.path.stem

    @property
    def shown(self):
        """The path from the repository's root."""
        return self.path.relative_to(ROOT).as_posix()

    def text(self):
        return self.path.read_text(encoding="utf-8")

    def hopper(self):
        """Whether it has code of its own for sm_90a, in itself or in a header that lies with it."""
        return any(HOPPER in path.read_text(encoding="utf-8") for path in self._files())

    def targets(self):
        """Pairs of a suffix for files and the architecture that the PTX is for."""
        yield "sm80", "compute_80"
        if self.hopper():
            yield "sm90a", "compute_90a"

    def hot(self, kernels):
        """Those of `kernels` (names) that must not spill, and marks that name none of them."""
        found, empty = set(), []
        for names, following in HOT.findall(self.text()):
            patterns = names.split() or [word for word in re.findall(r"\w+", following) if word in kernels]
            for pattern in patterns or [following.strip()]:
                fitting = fnmatch.filter(kernels, pattern)
                found.update(fitting)
                if not fitting:
                    empty.append(pattern)
        return found, empty

    def includes(self):
        """Where quoted includes are looked for, as options of either compiler."""
        return [f"-I{folder}" for folder in (self.path.parent, SHARED, KERNELS)]

    def _files(self):
        """This file and the headers that it reaches, without the shared ones, which wrap Hopper for all."""
        waiting, seen = [self.path], []
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.append(path)
            for included in INCLUDE.findall(path.read_text(encoding="utf-8")):
                for folder in (path.parent, KERNELS):
                    found = (folder / included).resolve()
                    if found.is_file() and SHARED not in found.parents:
                        waiting.append(found)
        return seen


def sources():
    """All of them by path; the emulator's own tests of the language are not kernels."""
    found = [
        Source(path)
        for path in sorted(KERNELS.rglob("*.cu"))
        if "emulator" not in path.relative_to(KERNELS).parts and "target" not in path.relative_to(KERNELS).parts
    ]
    names = {}
    for source in found:
        if source.name in names:
            raise SystemExit(
                f"{source.shown} and {names[source.name].shown} have the same name, which must be one module's alone"
            )
        names[source.name] = source
    return found

"""Shows that the kernels of NVIDIA's GPUs compile everywhere they should, and that the binary needs none of it.

Usually called by `scripts/check cuda-build`, which installs the compilers and builds the binary:
    check-cuda-build.py --toolkit DIR --ocellus target/release/ocellus [NAME...]

Every kernel is compiled by nvcc for each architecture, and the committed PTX is assembled as drivers do it. A kernel
that its source marks `// hot` must not spill registers; none may be one that the assembler warns is slow.
"""

import argparse
import concurrent.futures
import ctypes.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from cuda.assembler import Use, losses, uses
from cuda.sources import KERNELS, PTX, sources

ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
# The oldest promised driver's assembler is older than Blackwell; the newest toolkit's stands in for what runs there.
OLD_ASSEMBLER = ["sm_80", "sm_86", "sm_89", "sm_90a"]
LIBRARIES = re.compile(r"lib(cuda|cudart|cublas|cublasLt|cudnn|curand|cusolver|cusparse|nvrtc|nvidia-\w+|nvJitLink)\b")


class Findings:
    """What was found wrong, said at once and counted at the end."""

    def __init__(self):
        self.faults = []

    def fault(self, text):
        self.faults.append(text)
        print(f"FAULT: {text}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--toolkit", type=pathlib.Path, required=True, help="folder that the packages are in")
    arguments.add_argument("--ocellus", type=pathlib.Path, required=True, help="the binary")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="only these kernels' files")
    options = arguments.parse_args()

    findings = Findings()
    chosen = [source for source in sources() if not options.names or source.name in options.names]
    new, old = options.toolkit / "nvidia/cu13/bin", options.toolkit / "nvidia/cuda_nvcc/bin"
    with tempfile.TemporaryDirectory() as scratch:

        def from_source(source, arch):
            cubin = pathlib.Path(scratch) / f"{source.name}.{arch}.cubin"
            generated = f"-gencode=arch={arch.replace('sm', 'compute')},code={arch}"
            words = ["--std=c++17", "-cubin", generated, "-Xptxas", "-v", *source.includes(), "-o", cubin]
            return run([new / "nvcc", *words, source.path])

        def from_ptx(source, arch):
            ptx = ptx_for(source, arch)
            if not ptx.is_file():
                # A file that is for Hopper alone.
                return 0, ""
            cubin = pathlib.Path(scratch) / f"{source.name}.{arch}.jit.cubin"
            assembler = (old if arch in OLD_ASSEMBLER else new) / "ptxas"
            return run([assembler, "-v", f"-arch={arch}", "-o", cubin, ptx])

        compiled = section("nvcc 13.0.2, from the source", chosen, from_source, findings)
        print()
        title = "ptxas 12.4 (13.0 from sm_100 on), from the committed PTX, as a driver does"
        section(title, chosen, from_ptx, findings)
    print()
    check_ptx(findings, options.names)
    check_binary(options.ocellus.resolve(), findings)

    what = f"{len(chosen)} files, {len(compiled)} kernels, {len(ARCHITECTURES)} architectures"
    if findings.faults:
        print(f"cuda-build: does not hold: {len(findings.faults)} faults ({what})")
        sys.exit(1)
    print(f"cuda-build: holds ({what}; no hot kernel spills, the PTX is current, the binary needs no CUDA)")


def section(title, chosen, task, findings):
    """Compiles every source for every architecture, prints one table, and gives its rows."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
        jobs = {(source.name, arch): threads.submit(task, source, arch) for source in chosen for arch in ARCHITECTURES}
    rows, warnings, faults = [], {}, []
    for source in chosen:
        found = {}
        for arch in ARCHITECTURES:
            status, log = jobs[source.name, arch].result()
            if status != 0:
                faults.append(f"{source.shown} for {arch}:\n{log.strip()}")
                continue
            faults += [f"{source.shown} for {arch}: {line}" for line in losses(log)]
            for line in log.splitlines():
                if "warning" in line and "suppress" not in line:
                    warnings.setdefault(line, []).append(arch)
            for name, use in uses(log).items():
                found.setdefault(name, {})[arch] = use
        hot, empty = source.hot(set(found))
        faults += [f"{source.shown}: `// hot` marks {pattern}, which is no kernel there" for pattern in empty]
        rows += [(source, name, name in hot, found[name]) for name in sorted(found)]
    print(f"{title}\nregisters; + bytes of static shared memory; ! bytes spilled; * is hot")
    width = max([len(row[1]) for row in rows] + [6])
    print(f"{'kernel':{width}}  " + "  ".join(f"{arch:>11}" for arch in ARCHITECTURES))
    for source, name, hot, use in rows:
        cells = "  ".join(f"{cell(use.get(arch)):>11}" for arch in ARCHITECTURES)
        print(f"{name:{width}}{'*' if hot else ' '} {cells}")
        spilling = [f"{one.spilled_bytes} on {arch}" for arch, one in use.items() if one.spilled_bytes]
        if hot and spilling:
            faults.append(f"{name} ({source.shown}) is hot and spills bytes: {', '.join(spilling)}")
    for line, archs in warnings.items():
        print(f"{line} ({', '.join(archs)})")
    for fault in faults:
        findings.fault(fault)
    return rows


def cell(use: Use | None):
    if use is None:
        return "-"
    shared = f"+{use.shared_bytes}" if use.shared_bytes else ""
    spilled = f"!{use.spilled_bytes}" if use.spilled_bytes else ""
    return f"{use.registers}{shared}{spilled}"


def ptx_for(source, arch):
    """The file that the loader takes on such a GPU."""
    hopper = PTX / f"{source.name}.sm90a.ptx"
    return hopper if arch == "sm_90a" and hopper.is_file() else PTX / f"{source.name}.sm80.ptx"


def check_ptx(findings, names):
    status, log = run([sys.executable, KERNELS.parent / "scripts/make-ptx.py", "--check", *names])
    print(log.strip())
    if status != 0:
        findings.fault("the committed PTX is not what the sources give, or NVRTC does not accept them")


def check_binary(binary, findings):
    """It links no CUDA library, and where there is no driver it says so and computes on the processor."""
    status, log = run(["readelf", "-d", binary])
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", log)
    if status != 0 or not needed:
        findings.fault(f"readelf -d {binary}: {log.strip() or 'no NEEDED entry'}")
    for library in filter(LIBRARIES.search, needed):
        findings.fault(f"{binary.name} needs {library}, expected no CUDA library")
    print(f"{binary.name} needs {', '.join(needed)}")
    if ctypes.util.find_library("cuda"):
        print("this machine has libcuda: how the binary starts without it is not shown")
        return
    status, log = run([binary, "doctor", "--quick"])
    said = next((line.strip() for line in log.splitlines() if "libcuda" in line), None)
    if status != 0 or said is None:
        findings.fault(f"`ocellus doctor --quick` ended with {status} and does not speak of libcuda:\n{log.strip()}")
    else:
        print(f"doctor: {said}")
    question = [binary, "ask", "--max-tokens", "4", "What is in this picture?"]
    status, log = run(question)
    if status != 0:
        findings.fault(f"`ocellus ask` on the built-in model ended with {status}:\n{log.strip()}")
    else:
        print("ask: the built-in model answers on the processor")


def run(command):
    """The status and everything that was written."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=600)  # fmt: skip
    return done.returncode, done.stdout


if __name__ == "__main__":
    main()

"""Compiles every kernel of NVIDIA's GPUs to PTX, or with --check says which committed PTX is out of date.

Called by `scripts/make-ptx`, which brings the compiler:
    make-ptx.py [--check] [NAME...]

A file `kernels/<op>/<name>.cu` becomes `kernels/cuda/ptx/<name>.sm80.ptx`, which the driver compiles for any GPU from
Ampere on, and where it has code for Hopper also `<name>.sm90a.ptx`. Comments are taken out: they name the compiler's
version, and nothing in them is read. `kernels/cuda/ptx/mod.rs` lists the files for the binary.
"""

import argparse
import difflib
import sys

from cuda.nvrtc import CompileError, Nvrtc
from cuda.sources import PTX, sources

# PTX of this version is understood by every driver from 550 on.
EXPECTED = "12.4"
# Of a line of Rust, and of a structure on one line.
WIDTH = 110


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="change nothing; fail when something would change")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="only these kernels (the .cu's name without suffix)")
    options = arguments.parse_args()

    compiler = Nvrtc()
    if compiler.version() != EXPECTED:
        sys.exit(f"the compiler is of version {compiler.version()}, expected {EXPECTED}")
    chosen = [source for source in sources() if not options.names or source.name in options.names]
    unknown = set(options.names) - {source.name for source in chosen}
    if unknown:
        sys.exit(f"no kernel is called {', '.join(sorted(unknown))}; see kernels/**/*.cu")

    wanted, failed = {}, []
    for source in chosen:
        for suffix, architecture in source.targets():
            try:
                text, log = compiler.ptx(source.text(), source.shown, compile_options(source, architecture))
            except CompileError as error:
                print(f"{source.shown} for {architecture}:\n{error}", file=sys.stderr)
                failed.append(source.shown)
                continue
            if log:
                print(f"{source.shown} for {architecture}:\n{log}", file=sys.stderr)
            # What is for Hopper alone leaves nothing for the others.
            if ".entry " in text:
                wanted[f"{source.name}.{suffix}.ptx"] = without_comments(text, source.shown)
    if failed:
        sys.exit(f"{len(failed)} compilations failed: {', '.join(failed)}")

    there = {path.name: path.read_text(encoding="utf-8") for path in sorted(PTX.glob("*")) if path.is_file()}
    # With only some of the kernels compiled, the list is that of the files that will be there.
    wanted["mod.rs"] = listing({*wanted, *(there if options.names else [])})
    stale = sorted(name for name, text in wanted.items() if there.get(name) != text)
    surplus = [] if options.names else sorted(set(there) - set(wanted))
    if options.check:
        for name in stale:
            print(f"{name}: {difference(there.get(name), wanted[name])}", file=sys.stderr)
        for name in surplus:
            print(f"{name}: there is no kernel for it", file=sys.stderr)
        if stale or surplus:
            sys.exit(f"{len(stale) + len(surplus)} files of PTX are out of date: run scripts/make-ptx and commit")
        print(f"{len(wanted) - 1} PTX files are current")
        return
    PTX.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (PTX / name).write_text(wanted[name], encoding="utf-8")
    for name in surplus:
        (PTX / name).unlink()
    print(f"{len(wanted) - 1} PTX files; {len(stale)} files written, {len(surplus)} removed")


def compile_options(source, architecture):
    """The same for everybody who compiles: nothing of the machine is in them but where the includes lie."""
    return [f"--gpu-architecture={architecture}", "--std=c++17", *source.includes()]


def without_comments(text, shown):
    """The PTX without lines that are comments, under a line that says where it comes from."""
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.lstrip().startswith("//")]
    return "\n".join([f"// Made by scripts/make-ptx from {shown}; don't edit.", *kept, ""])


def listing(names):
    """The Rust module that embeds the files."""
    lines = [
        "//! The compiled kernels. Made by `scripts/make-ptx`; don't edit.",
        "",
        "use super::Module;",
        "",
        "/// All of them by name, those for Hopper beside those for every GPU.",
        "pub(super) const MODULES: &[Module] = &[",
    ]
    for file in sorted(name for name in names if name.endswith(".ptx")):
        name, suffix, _ = file.split(".")
        architecture = suffix.removeprefix("sm").rstrip("a")
        fields = [f'name: "{name}"', f"architecture: {architecture}", f'text: include_str!("{file}")']
        line = f"    Module {{ {', '.join(fields)} }},"
        # As rustfmt has it.
        if len(line) > WIDTH:
            lines += ["    Module {", *[f"        {field}," for field in fields], "    },"]
        else:
            lines.append(line)
    return "\n".join([*lines, "];", ""])


def difference(before, after):
    """How two texts differ, in a few lines."""
    if before is None:
        return "is missing"
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "committed", "compiled", n=0, lineterm=""))
    more = f"\n    … {len(lines) - 8} more lines" if len(lines) > 8 else ""
    return "differs\n    " + "\n    ".join(lines[:8]) + more


if __name__ == "__main__":
    main()

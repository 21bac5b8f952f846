"""What the assembler says of each kernel: registers, shared memory, spills, and losses that it warns of."""

import dataclasses
import re

ENTRY = re.compile(r"Compiling entry function '([^']+)' for '[^']+'")
FUNCTION = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
LOSS = re.compile(r"Potential Performance Loss[^\n]*")


@dataclasses.dataclass
class Use:
    """What one kernel takes, or a function that was not inlined, which has no registers of its own."""

    registers: int = 0
    shared_bytes: int = 0
    spilled_bytes: int = 0


def uses(log):
    """By name, from what `ptxas -v` writes."""
    found, entry, function = {}, None, None
    for line in log.splitlines():
        if match := ENTRY.search(line):
            entry = match[1]
            found[entry] = Use()
        elif match := FUNCTION.search(line):
            function = match[1]
        elif match := FRAME.search(line):
            found.setdefault(function, Use()).spilled_bytes += int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and entry:
            found[entry].registers = int(match[1])
            if match := SHARED.search(line):
                found[entry].shared_bytes = int(match[1])
    return found


def losses(log):
    """The assembler's warnings that a kernel will be slow, such as of products that wait for each other."""
    return LOSS.findall(log)

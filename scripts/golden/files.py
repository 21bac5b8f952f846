"""Where a golden folder lies and how its files are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Folder:
    images: Path
    out: Path
    cases: dict
    seed: int

    def write_json(self, name: str, value) -> None:
        (self.out / name).write_text(outline(value) + "\n", encoding="utf-8")

    def write_tensors(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        from safetensors.numpy import save_file

        save_file({key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}, self.out / name)
        (self.out / name).chmod(0o644)  # the writer leaves it to its owner alone


def outline(value, depth: int = 2, indent: str = "") -> str:
    """JSON with line breaks at the outer `depth` levels only, so that a row of a table is a line of the file."""
    inner = indent + " "
    if depth and isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {outline(item, depth - 1, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if depth and isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        rows = [inner + outline(item, depth - 1, inner) for item in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

#!/usr/bin/env python3
"""Writes golden numbers with Transformers in float32, the independent witness our engine is measured against.

    python -m venv venv && venv/bin/pip install -r scripts/golden-requirements.txt
    venv/bin/python scripts/make-golden.py tests/golden --model nano models/nano

DIR/cases.json says which pictures, clip, conversations and texts to use, DIR/images/ holds the pictures, and
DIR/golden/ is written. Each `--model NAME FOLDER` is a checkpoint; without any, every folder of DIR that holds
a config.json and weights is one. Another seed, other pictures or another checkpoint make other goldens of the
same form, which `scripts/check golden DIR` reads.

    tables.json               smart-resize, frame counts, frame indices, pixel limits of clips
    images.json/.safetensors  decoded, resized and normalised pixels; the order of patches
    indices.json              window order, window and sequence bounds, row and column of each patch
    mrope.json                positions on three axes and the delta
    text.json                 rendered conversations and token ids
    model_NAME.json/...       conversations through a checkpoint: activations, logits, 32 greedy tokens
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from golden import images, indices, model, mrope, tables, text
from golden.files import Folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument("--cases", type=Path, help="instead of DIR/cases.json")
    parser.add_argument("--out", type=Path, help="instead of DIR/golden")
    parser.add_argument("--seed", type=int, default=1, help="of the random rows of tables, grids and layouts")
    parser.add_argument("--model", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"))
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="the small tokenizer of text.json (default: the first model's)")
    parser.add_argument("--vocabulary", type=Path, metavar="FOLDER", help="the full tokenizer of text.json; left out without")
    parser.add_argument("--only", default="tables,images,indices,mrope,text,model")
    args = parser.parse_args()

    cases = json.loads((args.cases or args.dir / "cases.json").read_text())
    folder = Folder(images=args.dir / "images", out=args.out or args.dir / "golden", cases=cases, seed=args.seed)
    folder.out.mkdir(parents=True, exist_ok=True)
    models = [(name, Path(path)) for name, path in args.model] or [
        (path.parent.name, path.parent)
        for path in sorted(args.dir.glob("*/config.json"))
        if any(path.parent.glob("*.safetensors"))
    ]
    for family in args.only.split(","):
        print(family, flush=True)
        if family == "tables":
            tables.write(folder)
        elif family == "images":
            images.write(folder)
        elif family == "indices":
            indices.write(folder)
        elif family == "mrope":
            mrope.write(folder)
        elif family == "text":
            small = args.text or (models[0][1] if models else None)
            if small is None:
                parser.error("text.json needs --text or a model")
            text.write(folder, small, args.vocabulary)
        elif family == "model":
            for name, path in models:
                model.write(folder, name, path)
        else:
            parser.error(f"unknown family {family}")


if __name__ == "__main__":
    main()

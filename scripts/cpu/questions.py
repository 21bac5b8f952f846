"""Draws what the demo model knows: scenes of its examination with a question each, as the cases of a golden folder.

    python questions.py FOLDER N [SEED]

FOLDER/images/ and FOLDER/cases.json are written, as `scripts/make-golden.py` reads them. Answers end where the model ends
them. On pictures that it has never seen the like of, a small model's logits say little about a format of weights.
"""

import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from demo.scoring import PICTURES, draw


def main():
    folder, n, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "divergence"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pictures, conversations = {}, {}
    for i, question in enumerate(draw(seed, n / sum(PICTURES.values()), further=False)):
        if len(question.pictures) != 1:
            continue
        key = f"{question.task}_{i}"
        Image.fromarray(question.pictures[0]).save(folder / "images" / f"{key}.png")
        pictures[key] = {"file": f"{key}.png", "mode": "rgb"}
        content = [{"type": "image"}, {"type": "text", "text": question.text}]
        conversations[key] = {"messages": [{"role": "user", "content": content}], "images": [key], "to_the_end": True}
    (folder / "cases.json").write_text(json.dumps({"pictures": pictures, "conversations": conversations}))


if __name__ == "__main__":
    main()

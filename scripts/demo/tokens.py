"""The demo model's tokenizer: the official pre-tokenizer, template and special tokens over a small vocabulary."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

from demo import conversations, scenes

SIZE = 1024
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
ORDINARY = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
SYSTEM = "You are a helpful assistant."
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def merges_of(texts) -> list[tuple[str, str]]:
    """Merges that make one token of what often follows a space, and of runs of marks, and leave all other text in characters.

    Every merge lengthens the beginning of a piece that starts with a space or a mark. So the words of a sentence are one
    token each, and what is printed on a picture, which stands behind a quote or at the start of a line, is spelled: the
    model reads it letter by letter as it lies there, and needs no word to be known.
    """
    from tokenizers import Regex, pre_tokenizers

    cut = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    counts = Counter(piece for text in texts for piece, _ in cut.pre_tokenize_str(text))
    chains = ["bbox", "json", "xml"]  # Their first two letters hardly stand together elsewhere.
    chains += [piece for piece, n in counts.most_common() if n >= 4 and len(piece) > 1 and not (piece[0].isascii() and piece[0].isalnum())]
    merges, known = [], set()
    for piece in chains:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in known and len(merges) < SIZE - 256:
                known.add(piece[:end])
                merges.append((piece[: end - 1], piece[end - 1]))
    return merges


def write(folder: Path, template_from: Path) -> None:
    """Takes the merges from what the trainer would say, and writes the files of a checkpoint's tokenizer.

    `template_from` is a checkpoint's folder whose chat template and tokenizer settings are taken over: they are the
    official ones.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    rng = random.Random(7)
    text = [SYSTEM, *conversations.STRANGE, conversations.UNKNOWN] * 20
    for i in range(6000):
        kind = [scenes.shapes, scenes.shapes, scenes.words, scenes.receipt, scenes.document, scenes.clip][i % 6]
        scene = kind(rng, 140, 168)
        for task, question, answer in conversations.rounds(rng, scene, 4):
            printed = scene.kind == "document" and task != "describe"
            text += [question] if printed else [question, answer]
    for i in range(300):
        text += conversations.comparison(rng, scenes.shapes(rng, 112, 112, 1), scenes.shapes(rng, 112, 112, 1))
    merges = merges_of(text)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    for i in range(len(vocabulary), SIZE):
        vocabulary[f"<|unused_{i}|>"] = i
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    if tokenizer.get_vocab_size() != SIZE:
        raise SystemExit(f"the corpus gave {tokenizer.get_vocab_size()} tokens, expected {SIZE}")
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ORDINARY])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    shutil.copy(template_from / "chat_template.json", folder)
    settings = json.loads((template_from / "tokenizer_config.json").read_text(encoding="utf-8"))
    old = settings["added_tokens_decoder"]
    settings["added_tokens_decoder"] = {
        str(SIZE + i): next(entry for entry in old.values() if entry["content"] == name)
        for i, name in enumerate(SPECIAL + ORDINARY)
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# The numbers of an answer: a box's four, a point's two, a start and an end. Of each three digits are told apart, the first
# three of a coordinate, and of a time those that are not always zero.
NUMBERS = [
    r'(?:"bbox_2d": \[|data-bbox=")(\d+),? (\d+),? (\d+),? (\d+)', r'(?:"point_2d": \[|x1=")(\d+)(?:, |" y1=")(\d+)',
    r'"start_time": "00:00:(\d\d\.\d)', r'"end_time": "00:00:(\d\d\.\d)',
]  # fmt: skip
FIRST_FIELDS = [0, 4, 6, 7]
FIELDS = 8 * 3


def fields_of(text: str) -> dict[int, tuple[int, int]]:
    """Which digit of which number stands at a place of a text, three times the number plus the digit; and what it is part of, a
    coordinate, or a time in halves of a second."""
    found = {}
    for pattern, first in zip(NUMBERS, FIRST_FIELDS):
        for match in re.finditer(pattern, text):
            for i, number in enumerate(match.groups()):
                digits = [at for at in range(*match.span(i + 1)) if text[at].isdigit()]
                value = int(number) if number.isdigit() else int(2 * float(number))
                found.update({at: ((first + i) * 3 + which, value) for which, at in enumerate(digits[:3])})
    return found


class Tokens:
    """The written tokenizer, for the trainer: text and conversations to ids."""

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = {name: self.tokenizer.token_to_id(name) for name in SPECIAL}
        self.im_start, self.im_end = ids["<|im_start|>"], ids["<|im_end|>"]
        self.vision_start, self.vision_end = ids["<|vision_start|>"], ids["<|vision_end|>"]
        self.image, self.video, self.pad = ids["<|image_pad|>"], ids["<|video_pad|>"], ids["<|endoftext|>"]
        self._kept: dict[str, list[int]] = {}

    def answer(self, text: str) -> tuple[list[int], list]:
        """An answer's ids, and of each token what it is about: things, which character of their text if it spells one, and
        which digit of which number it is, with that number, or -1 for both."""
        encoded = self.tokenizer.encode(str(text), add_special_tokens=False)
        marks, abouts, numbers = getattr(text, "marks", []), [], fields_of(text)
        for a, b in encoded.offsets:
            first, end, about = next((mark for mark in marks if a < mark[1] and b > mark[0]), (0, 0, []))
            spelled = len(about) == 1 and str(text)[first:end] == about[0].text
            abouts.append((about, max(0, a - first) if spelled else None, numbers.get(a, (-1, -1))))
        return encoded.ids, abouts

    def ids(self, text: str) -> list[int]:
        if len(self._kept) > 50_000:
            self._kept.clear()
        found = self._kept.get(text)
        if found is None:
            found = self._kept[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

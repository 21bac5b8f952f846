"""text.json: conversations rendered by the checkpoint's own templates with the Jinja environment of Transformers,
and the ids that its tokenizer gives."""

from __future__ import annotations

import json
from pathlib import Path

from .files import Folder


def write(folder: Folder, small: Path, full: Path | None) -> None:
    from tokenizers import Tokenizer

    tokenizers = {"nano_ids": Tokenizer.from_file(str(small / "tokenizer.json"))}
    if full:
        tokenizers["ids"] = Tokenizer.from_file(str(full / "tokenizer.json"))
    encode = lambda text: {
        name: tokenizer.encode(text, add_special_tokens=False).ids for name, tokenizer in tokenizers.items()
    }
    sources = {"vl": chat_template(small), "text": json.loads((small / "tokenizer_config.json").read_text())["chat_template"]}
    templates = []
    for case in folder.cases["templates"]:
        source = case.get("template", "vl")
        tools = folder.cases["tools"] if case.get("tools") else None
        for vision_id in case.get("add_vision_id", [False]):
            for generation in case.get("add_generation_prompt", [True]):
                text = render(sources[source], case["messages"], generation, tools, vision_id)
                templates.append(
                    {
                        "name": case["name"],
                        "template": source,
                        "add_generation_prompt": generation,
                        "add_vision_id": vision_id,
                        "tools": tools,
                        "messages": case["messages"],
                        "text": text,
                        **encode(text),
                    }
                )
    samples = [{"text": text, **encode(text)} for text in folder.cases["texts"]]
    folder.write_json("text.json", {"templates": templates, "tokenizer_samples": samples})


def chat_template(checkpoint: Path) -> str:
    return json.loads((checkpoint / "chat_template.json").read_text())["chat_template"]


def render(source: str, messages, generation: bool = True, tools=None, vision_id: bool = False) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        conversations=[messages],
        chat_template=source,
        tools=tools,
        add_generation_prompt=generation,
        add_vision_id=vision_id,
    )
    return texts[0]

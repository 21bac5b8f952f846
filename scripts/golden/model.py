"""model_NAME.json and .safetensors: conversations through a checkpoint, in float32 with eager attention.

The positions are passed in, by the rule of mrope.py: the installed version's own rule for clips differs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from . import images, mrope, text
from .files import Folder

STEPS = 32
# Of an answer that goes on to its end, where the cases ask for that.
MOST_STEPS = 160
TOP = 32


def write(folder: Folder, name: str, checkpoint: Path) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer
    from transformers import Qwen2_5_VLForConditionalGeneration

    warnings.filterwarnings("ignore")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    vocab = model.config.text_config.vocab_size
    # Every k-th logit beside the largest ones: enough to see any row, small enough to keep.
    every = 512 if vocab > 4096 else 16
    report, tensors = {}, {}
    for key, case in folder.cases["conversations"].items():
        prompt = Prompt(folder, case, tokenizer, checkpoint, model.config)
        logits, generated, prefill_argmax, seen = decode_greedily(model, prompt, case.get("to_the_end", False))
        two = np.sort(logits, axis=1)[:, -2:]
        report[key] = {
            "messages": case["messages"],
            "images": case.get("images", []),
            "second_per_grid_ts": case.get("seconds", []),
            "input_ids": prompt.ids,
            "image_grids": prompt.image_grids,
            "video_grids": prompt.video_grids,
            "rope_delta": prompt.delta,
            "generated_ids": generated,
            "distinct_generated": len(set(generated)),
            "top2_margin_min": float((two[:, 1] - two[:, 0]).min()),
            "logit_std": float(logits.std()),
        }
        kept = {"position_ids": prompt.positions.astype(np.int32), "prefill_argmax": prefill_argmax.astype(np.int32)}
        if case.get("all_logits"):
            kept["logits"] = logits
        else:
            order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
            kept["logits_top_ids"] = order.astype(np.int32)
            kept["logits_top"] = np.take_along_axis(logits, order, axis=1)
            kept[f"logits_every_{every}"] = logits[:, ::every]
        if merged := seen.get("vision.merger_window_order"):
            embeds = np.empty_like(merged[0])
            embeds[window_order(prompt.image_grids or prompt.video_grids, model.config.vision_config)] = merged[0]
            kept["vision.embeds"] = embeds
        if case.get("activations"):
            kept.update({point: values[0] for point, values in seen.items()})
        tensors.update({f"{key}.{tensor}": values for tensor, values in kept.items()})
    folder.write_json(
        f"model_{name}.json",
        {
            "checkpoint": name,
            "dtype": "float32 arithmetic on the checkpoint's values, eager attention",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "steps": STEPS,
            "cases": report,
        },
    )
    folder.write_tensors(f"model_{name}.safetensors", tensors)


class Prompt:
    """What one conversation of the cases gives to the model."""

    def __init__(self, folder: Folder, case: dict, tokenizer, checkpoint: Path, config) -> None:
        rendered = text.render(text.chat_template(checkpoint), case["messages"])
        pictures = [images.prepare(folder, key)[2:] for key in case.get("images", [])]
        clips = [images.patches_of_frames(images.clip_frames(folder)) for _ in case.get("seconds", [])]
        self.image_grids = [grid for _, grid in pictures]
        self.video_grids = [grid for _, grid in clips]
        self.pixels = np.concatenate([values for values, _ in pictures]) if pictures else None
        self.clip_pixels = np.concatenate([values for values, _ in clips]) if clips else None

        left = {config.image_token_id: list(self.image_grids), config.video_token_id: list(self.video_grids)}
        in_prompt_order, self.ids = [], []
        for token in tokenizer.encode(rendered, add_special_tokens=False).ids:
            if token in left:
                grid = left[token].pop(0)
                in_prompt_order.append(grid)
                self.ids += [token] * (int(np.prod(grid)) // 4)
            else:
                self.ids.append(token)
        assert not any(left.values()), "more pictures than placeholders"
        self.positions, self.delta = mrope.positions(
            self.ids,
            in_prompt_order,
            case.get("seconds", []),
            config.vision_config.tokens_per_second,
            config.image_token_id,
            config.video_token_id,
        )

    def media(self) -> dict:
        import torch

        named = {}
        if self.pixels is not None:
            named |= {"pixel_values": torch.from_numpy(self.pixels), "image_grid_thw": torch.tensor(self.image_grids)}
        if self.clip_pixels is not None:
            named["pixel_values_videos"] = torch.from_numpy(self.clip_pixels)
            named["video_grid_thw"] = torch.tensor(self.video_grids)
        return named


def window_order(grids, vision) -> np.ndarray:
    import torch
    from transformers.vision_utils import get_vision_window_index

    order, _ = get_vision_window_index(
        torch.tensor(grids), vision.spatial_merge_size, vision.window_size, vision.patch_size
    )
    return order.numpy()


def observe(model):
    """Hooks that keep the output of chosen modules: {name: [one (rows, width) f32 array per call]}, and the hooks.

    Vision blocks see patches in window order; the merger's rows are in window order of merged units."""
    tower, decoder = model.model.visual, model.model.language_model
    full = list(tower.fullatt_block_indexes)
    windowed = [index for index in range(len(tower.blocks)) if index not in full]
    points = {
        "vision.patch_embed": tower.patch_embed,
        "vision.merger_window_order": tower.merger,
        "text.layer_0": decoder.layers[0],
        "text.norm": decoder.norm,
    }
    for index in {*windowed[:1], *full[:1], len(tower.blocks) - 1}:
        points[f"vision.block_{index}_{'full' if index in full else 'windowed'}"] = tower.blocks[index]
    seen: dict[str, list[np.ndarray]] = {}

    def keep(name):
        def hook(_module, _inputs, output):
            values = output[0] if isinstance(output, tuple) else output
            seen.setdefault(name, []).append(values.detach().reshape(-1, values.shape[-1]).numpy().copy())

        return hook

    return seen, [module.register_forward_hook(keep(name)) for name, module in points.items()]


def decode_greedily(model, prompt: Prompt, to_the_end: bool = False):
    """Logits (steps, vocab), the chosen ids, the arg-max after each prompt token, and the activations of the prefill.

    There are `STEPS` steps, or as many as the answer has with the token that ends it."""
    import torch

    ends = model.generation_config.eos_token_id if to_the_end else []
    ends = ends if isinstance(ends, list) else [ends]
    most = MOST_STEPS if to_the_end else STEPS
    seen, hooks = observe(model)
    logits, generated = [], []
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor([prompt.ids]),
            position_ids=torch.from_numpy(prompt.positions)[:, None],
            use_cache=True,
            **prompt.media(),
        )
        for hook in hooks:
            hook.remove()
        prefill_argmax = out.logits[0].argmax(-1).numpy()
        position = len(prompt.ids) + prompt.delta
        while True:
            logits.append(out.logits[0, -1].numpy())
            generated.append(int(logits[-1].argmax()))
            if len(generated) == most or generated[-1] in ends:
                break
            out = model(
                input_ids=torch.tensor([generated[-1:]]),
                position_ids=torch.full((3, 1, 1), position),
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            position += 1
    return np.stack(logits), generated, prefill_argmax, seen

"""The trained weights in the official layout, read back and held against Transformers' own module."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from demo import tokens as tokenizer_files
from demo.batches import Maker
from demo.model import TEXT, VISION, VOCABULARY, Model
from demo.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]


def config(t: Tokens) -> dict:
    """config.json with the fields of the published checkpoints."""
    text = {k: v for k, v in TEXT.items() if k not in ("mrope_section", "rope_theta")}
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": t.pad,
        "eos_token_id": t.im_end,
        "vision_start_token_id": t.vision_start,
        "vision_end_token_id": t.vision_end,
        "vision_token_id": t.vision_end + 1,
        "image_token_id": t.image,
        "video_token_id": t.video,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 128000,
        "max_window_layers": TEXT["num_hidden_layers"],
        "model_type": "qwen2_5_vl",
        "rms_norm_eps": 1e-06,
        "rope_theta": TEXT["rope_theta"],
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            **VISION,
            "hidden_act": "silu",
            "in_chans": 3,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": TEXT["mrope_section"]},
        "vocab_size": VOCABULARY,
        **text,
    }


def names() -> list[tuple[str, str, int, int]]:
    """Of each official tensor: its name, ours, and the share of ours that it is (part, of how many)."""
    found = [("visual.patch_embed.proj.weight", "vision.patch.weight", 0, 1)]
    for i in range(VISION["depth"]):
        theirs, ours = f"visual.blocks.{i}.", f"vision.blocks.{i}."
        for a, b in [("norm1", "norm1"), ("norm2", "norm2")]:
            found.append((f"{theirs}{a}.weight", f"{ours}{b}.weight", 0, 1))
        for kind in ("weight", "bias"):
            found += [
                (f"{theirs}attn.qkv.{kind}", f"{ours}qkv.{kind}", 0, 1),
                (f"{theirs}attn.proj.{kind}", f"{ours}proj.{kind}", 0, 1),
                (f"{theirs}mlp.gate_proj.{kind}", f"{ours}mlp.gate_up.{kind}", 0, 2),
                (f"{theirs}mlp.up_proj.{kind}", f"{ours}mlp.gate_up.{kind}", 1, 2),
                (f"{theirs}mlp.down_proj.{kind}", f"{ours}mlp.down.{kind}", 0, 1),
            ]
    found.append(("visual.merger.ln_q.weight", "vision.norm.weight", 0, 1))
    for kind in ("weight", "bias"):
        found.append((f"visual.merger.mlp.0.{kind}", f"vision.merge1.{kind}", 0, 1))
        found.append((f"visual.merger.mlp.2.{kind}", f"vision.merge2.{kind}", 0, 1))
    found.append(("model.embed_tokens.weight", "embed.weight", 0, 1))
    for i in range(TEXT["num_hidden_layers"]):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        found += [
            (f"{theirs}input_layernorm.weight", f"{ours}norm1.weight", 0, 1),
            (f"{theirs}post_attention_layernorm.weight", f"{ours}norm2.weight", 0, 1),
            (f"{theirs}self_attn.o_proj.weight", f"{ours}out.weight", 0, 1),
            (f"{theirs}mlp.gate_proj.weight", f"{ours}mlp.gate_up.weight", 0, 2),
            (f"{theirs}mlp.up_proj.weight", f"{ours}mlp.gate_up.weight", 1, 2),
            (f"{theirs}mlp.down_proj.weight", f"{ours}mlp.down.weight", 0, 1),
        ]
        for kind in ("weight", "bias"):
            found += [(f"{theirs}self_attn.{p}_proj.{kind}", f"{ours}qkv.{kind}", j, -1) for j, p in enumerate("qkv")]
    found.append(("model.norm.weight", "norm.weight", 0, 1))
    return found


def _rows(part: int, of: int, rows: int) -> slice:
    if of == -1:
        # Query, key and value of the decoder have different widths.
        h, kv = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
        head = TEXT["hidden_size"] // h
        edges = [0, h * head, (h + kv) * head, (h + 2 * kv) * head]
        return slice(edges[part], edges[part + 1])
    each = rows // of
    return slice(part * each, (part + 1) * each)


def read(model: Model, folder: Path) -> None:
    """Puts a checkpoint's weights into the model."""
    stored = load_file(str(folder / "model.safetensors"))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for theirs, ours, part, of in names():
            target = own[ours][_rows(part, of, own[ours].shape[0])]
            target.copy_(stored[theirs].float().reshape(target.shape))


def export(work: Path, folder: Path) -> None:
    """Writes the averaged weights of the training state, and holds the folder against Transformers."""
    state = torch.load(work / "state.pt", weights_only=True)
    average = state["optimizer"]["average"]
    tensors = {}
    for theirs, ours, part, of in names():
        value = average[ours][_rows(part, of, average[ours].shape[0])]
        if theirs.endswith("patch_embed.proj.weight"):
            value = value.reshape(-1, 3, 2, 14, 14)
        tensors[theirs] = value.to(torch.bfloat16).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    t = Tokens(work / "tokenizer")
    for file in (work / "tokenizer").iterdir():
        shutil.copy(file, folder)
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})

    def write(name: str, value: dict) -> None:
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    write("config.json", config(t))
    write("generation_config.json", {
        "bos_token_id": t.pad, "pad_token_id": t.pad, "do_sample": True, "eos_token_id": [t.im_end, t.pad],
        "repetition_penalty": 1.0, "temperature": 1e-06, "transformers_version": "4.49.0",
    })  # fmt: skip
    shutil.copy(ROOT / "models/preprocessor_config.json", folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {sum(v.numel() for v in tensors.values())} parameters after {state['seen']} scenes, {size / 1e6:.1f} MB")
    compare(folder, t)


@torch.no_grad()
def compare(folder: Path, t: Tokens) -> None:
    """Logits of the trainer's model and of Transformers' on the same scenes, in f32 with the stored weights."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    ours = Model().eval()
    read(ours, folder)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    maker, worst = Maker(t, 99, patches=400, text=400), 0.0
    for kind, grid in [("shapes", (5, 6)), ("words", (9, 4)), ("clip", (4, 5)), ("pair", (4, 4))]:
        batch = maker.batch(kind, grid)
        data = {k: torch.from_numpy(getattr(batch, k)) for k in ("frames", "ids", "positions", "places")}
        hidden, *_ = ours(data["frames"], grid, data["ids"], data["positions"], data["places"])
        mine = hidden @ ours.embed.weight.T
        each = len(batch.frames) // len(batch.ids)
        for row in range(min(2, len(batch.ids))):
            frames = data["frames"][row * each : (row + 1) * each]
            pixels, thw = patches(frames, ours, grid, kind)
            keys = ("pixel_values_videos", "video_grid_thw") if kind == "clip" else ("pixel_values", "image_grid_thw")
            out = theirs(
                input_ids=data["ids"][row : row + 1], position_ids=data["positions"][:, row : row + 1],
                **dict(zip(keys, (pixels, thw))),
            ).logits[0]  # fmt: skip
            worst = max(worst, float((out - mine[row]).abs().max()))
    print(f"largest difference of a logit to Transformers: {worst:.2e} (both f32: sums in another order)")
    if worst > 2e-3:
        raise SystemExit("the exported checkpoint is not the trained model")


def patches(frames, model: Model, grid, kind):
    """The processor's input of Transformers: (patches, 1176) in its own order, and the grid."""
    rows, columns = grid
    u = len(frames)
    x = frames.float() * model.vision.scale + model.vision.shift
    if x.shape[1] == 1:
        x = x.repeat(1, 2, 1, 1, 1)
    x = x.view(u, 2, rows, 2, 14, columns, 2, 14, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 1176)
    if kind == "clip":
        return x, torch.tensor([[u, rows * 2, columns * 2]])
    return x, torch.tensor([[1, rows * 2, columns * 2]] * u)

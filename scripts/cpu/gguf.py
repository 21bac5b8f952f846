"""Writes GGUF files of random weights in the shapes of Qwen2.5-VL, so that llama.cpp can be measured without a
download. Blocks are written with random codes and small scales, and types are mixed as llama-quantize mixes them:
Q4_K_M has Q6_K in attn_v and ffn_down of half of the layers, and both Q4 files have a tied embedding in Q6_K.

    python gguf.py CONFIG FILE BF16|Q8_0|Q4_K_M|Q4_0|tower|small
"""

import json
import struct
import sys
from pathlib import Path

import numpy

# Type numbers, weights in a block, bytes of a block, and where its half-precision scales lie (ggml-common.h).
TYPES = {
    "F32": (0, 1, 4, ()),
    "Q4_0": (2, 32, 18, (0,)),
    "Q8_0": (8, 32, 34, (0,)),
    "Q4_K": (12, 256, 144, (0, 2)),
    "Q6_K": (14, 256, 210, (208,)),
    "BF16": (30, 1, 2, ()),
}
# Scales that give weights of about 0.02, whatever the codes are.
SCALES = {"Q4_0": 0.0045, "Q8_0": 0.00027, "Q4_K": 0.0001, "Q6_K": 0.00001}
ALIGNMENT = 32
# Elements that are made at a time.
PIECE = 1 << 24


def random_bytes(kind, elements, generator):
    """The blocks of `elements` weights."""
    _, per_block, size, scales = TYPES[kind]
    blocks = elements // per_block
    assert blocks * per_block == elements, (kind, elements)
    if kind == "F32":
        return generator.random(elements, dtype=numpy.float32) * numpy.float32(0.02) + numpy.float32(0.99)
    if kind == "BF16":
        bits = generator.integers(0, 1 << 16, elements, dtype=numpy.uint16)
        # Any sign and fraction, with exponents of 2^-7 and 2^-6.
        return (bits & 0x80FF) | 0x3C00
    codes = generator.integers(0, 256, (blocks, size), dtype=numpy.uint8)
    scale = numpy.frombuffer(numpy.float16(SCALES[kind]).tobytes(), numpy.uint8)
    for at in scales:
        codes[:, at : at + 2] = scale
    return codes


class Writer:
    """Metadata and tensors in the order they are added; shapes are row-major, as everywhere but in GGUF."""

    def __init__(self):
        self.metadata = []
        self.tensors = []

    def add(self, key, value):
        self.metadata.append((key, value))

    def tensor(self, name, shape, kind):
        self.tensors.append((name, shape, kind))

    def write(self, path, seed=1):
        """Writes to a temporary name first, so that a file with the right name is whole."""
        out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata)))
        for key, value in self.metadata:
            out += text(key) + typed(value)
        offset = 0
        sizes = []
        for name, shape, kind in self.tensors:
            number, per_block, block_bytes, _ = TYPES[kind]
            size = int(numpy.prod(shape, dtype=numpy.int64)) // per_block * block_bytes
            out += text(name) + struct.pack("<I", len(shape))
            out += b"".join(struct.pack("<Q", length) for length in reversed(shape))
            out += struct.pack("<IQ", number, offset)
            sizes.append(size)
            offset += padded(size)
        out += bytes(padded(len(out)) - len(out))
        generator = numpy.random.Generator(numpy.random.SFC64(seed))
        partial = Path(f"{path}.partial")
        with open(partial, "wb") as file:
            file.write(out)
            for (_, shape, kind), size in zip(self.tensors, sizes):
                left = int(numpy.prod(shape, dtype=numpy.int64))
                while left:
                    file.write(random_bytes(kind, min(PIECE, left), generator).tobytes())
                    left -= min(PIECE, left)
                file.write(bytes(padded(size) - size))
        partial.rename(path)


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value):
    """A value behind the number of its type. Lists are of one type, those of whole numbers of a signed one."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    items = [struct.pack("<Ii", 5, item) if isinstance(item, int) else typed(item) for item in value]
    return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)


def vocabulary(writer, size):
    """Byte-level tokens, the control tokens of the template, and invented ones up to `size`."""
    # The printable stand-ins of byte-level tokenizers for all 256 bytes.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokens = letters + controls + [f"{letters[0]}{i}" for i in range(size - len(letters) - len(controls))]
    kinds = [3 if token in controls else 1 for token in tokens]
    writer.add("tokenizer.ggml.model", "gpt2")
    writer.add("tokenizer.ggml.pre", "qwen2")
    writer.add("tokenizer.ggml.tokens", tokens)
    writer.add("tokenizer.ggml.token_type", kinds)
    writer.add("tokenizer.ggml.merges", [f"{letters[0]} {letters[15]}"])
    writer.add("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>"))
    writer.add("tokenizer.ggml.bos_token_id", tokens.index("<|endoftext|>"))
    writer.add("tokenizer.ggml.add_bos_token", False)


def kind_of(name, layer, layers, mix):
    """Which type llama-quantize gives a matrix."""
    if mix == "Q4_K_M":
        more_bits = layer is not None and (
            layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        )
        better = name == "token_embd" or (name in ("attn_v", "ffn_down") and more_bits)
        return "Q6_K" if better else "Q4_K"
    if mix == "Q4_0" and name == "token_embd":
        return "Q6_K"
    return mix


def text_model(path, config, mix):
    """The language model of `config` (config.json) in one of BF16, Q8_0, Q4_K_M and Q4_0."""
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    kv, words = hidden // heads * kv_heads, config["vocab_size"]
    writer = Writer()
    writer.add("general.architecture", "qwen2vl")
    writer.add("general.name", f"random {mix}")
    for key, value in [
        ("block_count", layers),
        ("context_length", 32768),
        ("embedding_length", hidden),
        ("feed_forward_length", inner),
        ("attention.head_count", heads),
        ("attention.head_count_kv", kv_heads),
        ("rope.freq_base", float(config["rope_theta"])),
        ("attention.layer_norm_rms_epsilon", float(config["rms_norm_eps"])),
        ("rope.dimension_sections", config["rope_scaling"]["mrope_section"] + [0]),
    ]:
        writer.add(f"qwen2vl.{key}", value)
    vocabulary(writer, words)
    writer.tensor("token_embd.weight", (words, hidden), kind_of("token_embd", None, layers, mix))
    for i in range(layers):
        for name, rows, columns, bias in [
            ("attn_q", hidden, hidden, True),
            ("attn_k", kv, hidden, True),
            ("attn_v", kv, hidden, True),
            ("attn_output", hidden, hidden, False),
            ("ffn_gate", inner, hidden, False),
            ("ffn_up", inner, hidden, False),
            ("ffn_down", hidden, inner, False),
        ]:
            writer.tensor(f"blk.{i}.{name}.weight", (rows, columns), kind_of(name, i, layers, mix))
            if bias:
                writer.tensor(f"blk.{i}.{name}.bias", (rows,), "F32")
        for name in ("attn_norm", "ffn_norm"):
            writer.tensor(f"blk.{i}.{name}.weight", (hidden,), "F32")
    writer.tensor("output_norm.weight", (hidden,), "F32")
    if not config["tie_word_embeddings"]:
        writer.tensor("output.weight", (words, hidden), kind_of("token_embd", None, layers, mix))
    writer.write(path)


def small_text_model(path, config):
    """One layer with few words: what the vision API wants beside a tower of this width."""
    text_model(path, {**config, "num_hidden_layers": 1, "vocab_size": 512, "tie_word_embeddings": True}, "BF16")


def tower(path, config, mix="BF16"):
    """The vision tower of `config` (config.json) as a projector file."""
    vision = config["vision_config"]
    hidden, inner, merged = vision["hidden_size"], vision["intermediate_size"], vision["hidden_size"] * 4
    writer = Writer()
    writer.add("general.architecture", "clip")
    writer.add("clip.has_vision_encoder", True)
    writer.add("clip.projector_type", "qwen2.5vl_merger")
    writer.add("clip.use_silu", True)
    for key, value in [
        ("image_size", 560),
        ("patch_size", vision["patch_size"]),
        ("embedding_length", hidden),
        ("feed_forward_length", inner),
        ("block_count", vision["depth"]),
        ("attention.head_count", vision["num_heads"]),
        ("attention.layer_norm_epsilon", 1e-6),
        ("projection_dim", vision["out_hidden_size"]),
        ("n_wa_pattern", 8),
        ("image_mean", [0.48145466, 0.4578275, 0.40821073]),
        ("image_std", [0.26862954, 0.26130258, 0.27577711]),
    ]:
        writer.add(f"clip.vision.{key}", value)
    side = vision["patch_size"]
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        writer.tensor(name, (hidden, 3, side, side), "F32")
    for i in range(vision["depth"]):
        for name, rows, columns in [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, hidden),
            ("attn_v", hidden, hidden),
            ("attn_out", hidden, hidden),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ]:
            writer.tensor(f"v.blk.{i}.{name}.weight", (rows, columns), mix)
            writer.tensor(f"v.blk.{i}.{name}.bias", (rows,), "F32")
        for name in ("ln1", "ln2"):
            writer.tensor(f"v.blk.{i}.{name}.weight", (hidden,), "F32")
    writer.tensor("v.post_ln.weight", (hidden,), "F32")
    for name, rows in [("mm.0", merged), ("mm.2", vision["out_hidden_size"])]:
        writer.tensor(f"{name}.weight", (rows, merged), mix)
        writer.tensor(f"{name}.bias", (rows,), "F32")
    writer.write(path)


if __name__ == "__main__":
    config, path, what = json.load(open(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
    if what == "tower":
        tower(path, config)
    elif what == "small":
        small_text_model(path, config)
    else:
        text_model(path, config, what)

"""Qwen2.5-VL for training on a processor: the same function as Transformers' module, over batches of equal pictures.

Windows of equal shape lie side by side, so window attention is one product without a mask; pictures of a batch have one
grid; query, key and value, and gate and up, are one product each. `export.py` cuts the weights into the official names,
and checks the result against Transformers.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from demo.scenes import NOUNS
from demo.targets import CHARACTERS, COLOUR_NAMES, FACT_CLASSES, FACTS, N_NOUNS, ORDERS, SLOTS
from demo.tokens import FIELDS

EPS = 1e-6
VISION = {"hidden_size": 128, "num_heads": 4, "depth": 6, "intermediate_size": 320, "fullatt_block_indexes": [1, 3, 5]}
TEXT = {
    "hidden_size": 192, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 6,
    # Of sixteen pairs two turn with the time, two with the row, and the fastest of the rest with the column; most of them
    # hardly turn within a prompt, so that a question finds what it asks for wherever it lies.
    "intermediate_size": 512, "rope_theta": 100000.0, "mrope_section": [2, 2, 12],
}  # fmt: skip
VOCABULARY = 1088
# The decoder layer after which its picture tokens have to know where they are.
PROBED_LAYER = 3
# The layers (from 0) whose first head is taught where to look, and by how many tokens what it looks at is ahead: first at
# what was just said, by what it is called, then from there to what is said next.
LOOKS = {2: 0, 3: 1, 4: 1}
# The layer and the heads that count for each patch that stands for a thing how many stand before it, and how many of these
# have its noun; and for each patch of a word how many of its characters lie to the left.
RANKING_LAYER, RANKING_HEADS = 1, (0, 3, 1)
# The layer and the heads that are taught to fetch one of a patch's edges or characters each, and else to rest at the first
# token. Two share their keys and values.
PICKING_LAYER, PICKING_HEADS = 4, (1, 4, 2, 5)
# A hundred pixels are a whole turn, from which tens follow; the digits of edges have to be known when they are fetched.
PHASE = 2 * math.pi / 100
# Units of a clip are told apart up to this position in time.
TIMES = 26
# What is trained and not exported: linear readings that tell the layers below what to know.
HELPERS = (
    "see.", "place.", "rank.", "index.", "order.", "field.", "phase.", "offset.", "when.", "asked.", "codes.", "since.", "turns.",
    "told.",
)  # fmt: skip
# The layers and heads that are taught to count, with the first token as that which is always there. Each is a little out;
# together they are less.
COUNTING = [(3, 3), (3, 1), (4, 3)]
# The head of the ranking layer that counts in how many earlier units of a clip the same thing was seen.
SEEING_HEAD, UNITS = 4, 8
# The layers and heads that find things by what they are called, or by their rank: what such a head asks and what it offers
# are taught to be one code, without which a match between them is not found for a long time.
MATCHES = [
    (RANKING_LAYER, RANKING_HEADS[1]), (3, 0), (4, 0), COUNTING[0], *((PICKING_LAYER, head) for head in PICKING_HEADS),
    *COUNTING[1:],
]  # fmt: skip
# The layer and the head that count, where something comes in a clip, what has come before it. The head of the next layer
# that looks at what is told looks there, and the one above finds the rest by name.
BEGINNING_LAYER, BEGINNING_HEAD = 2, 3


@functools.cache
def windows(rows: int, columns: int):
    """The order of merged patches in which windows of one shape are neighbours: (order, back, [(windows, patches)])."""
    groups = {}
    for r in range(0, rows, 4):
        for c in range(0, columns, 4):
            shape = min(4, rows - r), min(4, columns - c)
            groups.setdefault(shape, []).append((r, c))
    order, runs = [], []
    for (h, w), corners in groups.items():
        for r, c in corners:
            order += [(r + i) * columns + c + j for i in range(h) for j in range(w)]
        runs.append((len(corners), h * w * 4))
    order = torch.tensor(order)
    return order, torch.argsort(order), runs


@functools.cache
def vision_angles(rows: int, columns: int, head: int):
    """Cosines and sines of the patches in window order: (patches, head) each."""
    order, _, _ = windows(rows, columns)
    r, c = order // columns, order % columns
    pr = (r[:, None] * 2 + torch.tensor([0, 0, 1, 1])).flatten()
    pc = (c[:, None] * 2 + torch.tensor([0, 1, 0, 1])).flatten()
    half = head // 2
    rate = 1.0 / 10000.0 ** (torch.arange(0, half, 2).float() / half)
    angles = torch.cat([pr[:, None] * rate, pc[:, None] * rate], -1)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def turn(x, cos, sin):
    """Rotary embedding over the last dimension."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


@torch.no_grad()
def heat(q, k, group):
    """Of each head, the mean length of queries (b, n, heads, d) times that of keys, over the root of d: about as large as a
    score of attention becomes."""
    d = q.shape[-1]
    q, k = q[0].norm(dim=-1).mean(0), k[0].norm(dim=-1).mean(0)
    return q * k.repeat_interleave(group) / math.sqrt(d)


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, EPS)


class Gated(nn.Module):
    def __init__(self, width, inner, bias):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class VisionBlock(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = Gated(width, inner, True)

    def forward(self, x, cos, sin, runs):
        u, n, width = x.shape
        h, d = self.heads, width // self.heads
        qkv = self.qkv(self.norm1(x)).view(u, n, 3 * h, d)
        self.heat = heat(qkv[:, :, :h], qkv[:, :, h : 2 * h], 1)
        qk = turn(qkv[:, :, : 2 * h], cos[:, None], sin[:, None])
        v = qkv[:, :, 2 * h :]
        if runs is None:
            q, k, w = qk[:, :, :h].transpose(1, 2), qk[:, :, h:].transpose(1, 2), v.transpose(1, 2)
            out = F.scaled_dot_product_attention(q, k, w).transpose(1, 2).reshape(u, n, width)
        else:
            parts, first = [], 0
            for count, size in runs:
                end = first + count * size
                shape = (u * count, size, -1, d)
                both = qk[:, first:end].reshape(shape).transpose(1, 2)
                q, k = both[:, :h], both[:, h:]
                w = v[:, first:end].reshape(shape).transpose(1, 2)
                part = F.scaled_dot_product_attention(q, k, w).transpose(1, 2)
                parts.append(part.reshape(u, count * size, width))
                first = end
            out = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        x = x + self.proj(out)
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    def __init__(self, out_width):
        super().__init__()
        width = VISION["hidden_size"]
        self.patch = nn.Linear(1176, width, bias=False)
        self.blocks = nn.ModuleList(
            VisionBlock(width, VISION["num_heads"], VISION["intermediate_size"]) for _ in range(VISION["depth"])
        )
        self.norm = Norm(width)
        self.merge1, self.merge2 = nn.Linear(4 * width, 4 * width), nn.Linear(4 * width, out_width)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, frames, grid):
        """(u, 1 or 2, height, width, 3) u8 -> (u, merged patches in raster order, width)."""
        rows, columns = grid
        u, f = frames.shape[:2]
        order, back, runs = windows(rows, columns)
        x = frames.to(torch.float32) * self.scale + self.shift
        x = x.view(u, f, rows, 2, 14, columns, 2, 14, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        x = x.reshape(u, rows * columns, 4, -1)[:, order].reshape(u, rows * columns * 4, -1)
        weight = self.patch.weight
        if f == 1:
            # A picture is a clip of two equal frames.
            weight = weight.view(-1, 3, 2, 196).sum(2).reshape(-1, 588)
        x = F.linear(x, weight)
        cos, sin = vision_angles(rows, columns, VISION["hidden_size"] // VISION["num_heads"])
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, None if i in VISION["fullatt_block_indexes"] else runs)
        x = self.norm(x).view(u, rows * columns, -1)
        return self.merge2(F.gelu(self.merge1(x)))[:, back]


class TextBlock(nn.Module):
    def __init__(self):
        super().__init__()
        width, self.h, self.kv = TEXT["hidden_size"], TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
        self.d = width // self.h
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, (self.h + 2 * self.kv) * self.d)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = Gated(width, TEXT["intermediate_size"], False)

    def forward(self, x, cos, sin):
        b, n, width = x.shape
        h, kv, d = self.h, self.kv, self.d
        qkv = self.qkv(self.norm1(x)).view(b, n, h + 2 * kv, d).transpose(1, 2)
        self.heat = heat(qkv[:, :h].transpose(1, 2), qkv[:, h : h + kv].transpose(1, 2), h // kv)
        qk = turn(qkv[:, : h + kv], cos, sin)
        k = qk[:, h:].repeat_interleave(h // kv, 1)
        v = qkv[:, h + kv :].repeat_interleave(h // kv, 1)
        out = F.scaled_dot_product_attention(qk[:, :h], k, v, is_causal=True)
        x = x + self.out(out.transpose(1, 2).reshape(b, n, width))
        return x + self.mlp(self.norm2(x)), qk


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        width = TEXT["hidden_size"]
        self.vision = Vision(width)
        self.embed = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(TextBlock() for _ in range(TEXT["num_hidden_layers"]))
        self.norm = Norm(width)
        # Trained, not exported: what the vision tower sees, and what the lower layers know of it.
        self.see = nn.Linear(width, N_NOUNS + len(COLOUR_NAMES) + 4 + 1 + SLOTS * (len(CHARACTERS) + 1) + FACTS * FACT_CLASSES)
        self.place = nn.Linear(width, 120 + 40)
        self.rank = nn.Linear(width, 2 * ORDERS)
        self.index = nn.Linear(width, ORDERS)
        self.phase, self.offset, self.when = nn.Linear(width, 4), nn.Linear(width, 8), nn.Linear(width, TIMES)
        # And how far an answer is.
        self.order, self.field = nn.Linear(width, 2 * ORDERS), nn.Linear(width, FIELDS)
        coded = len(NOUNS) + len(COLOUR_NAMES) + ORDERS
        self.codes = nn.ModuleList(nn.Linear(width // TEXT["num_attention_heads"], coded) for _ in MATCHES)
        self.told = nn.Linear(width, 20 + TIMES)
        self.since, self.turns = nn.Linear(width, UNITS), nn.Linear(width, 8)
        # And what the question was about.
        self.asked = nn.Linear(width, 1 + len(NOUNS) + 1 + len(COLOUR_NAMES))
        for name, p in self.named_parameters():
            if p.dim() == 2:
                if name.endswith(("proj.weight", "out.weight", "down.weight")):
                    nn.init.zeros_(p)
                else:
                    nn.init.normal_(p, std=0.02 if "embed" in name else 0.7 / math.sqrt(p.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    @torch.no_grad()
    def cool(self, most: float = 30.0) -> float:
        """Shortens the queries of heads whose scores grow beyond `most`, and returns the greatest.

        K. Team (2025, "Kimi K2"), QK-clip: attention that has become too sharp has no gradient, and would stay so.
        """
        greatest = 0.0
        for block in [*self.vision.blocks, *self.layers]:
            found = getattr(block, "heat", None)
            if found is None:
                continue
            greatest = max(greatest, float(found.max()))
            rows = (most / found).clamp(max=1.0).repeat_interleave(block.qkv.weight.shape[1] // len(found))
            block.qkv.weight[: len(rows)] *= rows[:, None]
            block.qkv.bias[: len(rows)] *= rows
        return greatest

    def angles(self, positions):
        """Cosines and sines of (3, b, l) positions: (b, 1, l, head)."""
        head = TEXT["hidden_size"] // TEXT["num_attention_heads"]
        rate = 1.0 / TEXT["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
        axis = torch.repeat_interleave(torch.arange(3), torch.tensor(TEXT["mrope_section"]))
        angles = positions.float()[axis].permute(1, 2, 0) * rate
        angles = torch.cat([angles, angles], -1)[:, None]
        return angles.cos(), angles.sin()

    def forward(self, frames, grid, ids, positions, places, n_layers=None):
        """Through the first `n_layers` of the decoder, or all. Returns the hidden states before the head (b, l, width), the
        tower's output (u, c, width), the probed layer's picture tokens (u * c, width), and by layer the queries and keys
        (b, heads, l, head) of those that look or count; under "hidden" the probed layer's hidden states, under "fetched" the
        picture tokens that the picking layer reads, and under "picked" that layer's hidden states."""
        b, n = ids.shape
        x = self.embed(ids)
        seen = None
        if len(frames):
            # Conversations teach the decoder alone: the tower learns more from the same time without one.
            with torch.set_grad_enabled(n_layers is not None and torch.is_grad_enabled()):
                seen = self.vision(frames, grid)
            x = x.view(b * n, -1).index_copy(0, places, seen.reshape(len(places), -1)).view(b, n, -1)
        cos, sin = self.angles(positions)
        known, looking = None, {}
        for i, layer in enumerate(self.layers[:n_layers]):
            x, qk = layer(x, cos, sin)
            if i in LOOKS or i == RANKING_LAYER:
                looking[i] = qk
            if i == PICKING_LAYER:
                looking["picked"] = x
            if i + 1 == PICKING_LAYER and seen is not None:
                looking["fetched"] = x.view(b * n, -1)[places]
            if i + 1 == PROBED_LAYER and seen is not None:
                known = x.view(b * n, -1)[places]
                looking["hidden"] = x
        return self.norm(x), seen, known, looking

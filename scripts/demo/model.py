"""Qwen2.5-VL for training on a processor: the same function as Transformers' module, over batches of equal pictures.

Windows of equal shape lie side by side, so window attention is one product without a mask; pictures of a batch have one
grid; query, key and value, and gate and up, are one product each. `export.py` cuts the weights into the official names,
and checks the result against Transformers.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from demo.batches import CHARACTERS, COLOUR_NAMES, COUNTING_REST, DENSE, FACT_CLASSES, FACTS, N_NOUNS, ORDERS, SLOTS
from demo.scenes import NOUNS
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
# have its noun.
RANKING_LAYER, RANKING_HEADS = 1, (0, 3, 1)
# The layer and the heads that are taught to fetch one of a patch's edges or characters each, and else to rest at the first
# token. Two share their keys and values.
PICKING_LAYER, PICKING_HEADS = 4, (1, 4, 2, 5)
# A hundred pixels are a whole turn, from which tens follow; the digits of edges have to be known when they are fetched.
PHASE = 2 * math.pi / 100
# Units of a clip are told apart up to this position in time.
TIMES = 26
# What is trained and not exported: linear readings that tell the layers below what to know.
HELPERS = ("see.", "place.", "rank.", "index.", "order.", "field.", "phase.", "offset.", "when.", "asked.", "codes.", "since.", "turns.", "told.")
# The layer and the head that are taught to count, with the first token as that which is always there.
COUNTING_LAYER, COUNTING_HEAD = 3, 3
# The head of the ranking layer that counts in how many earlier units of a clip the same thing was seen.
SEEING_HEAD, UNITS = 4, 8
# The layers and heads that find things by what they are called, or by their rank: what such a head asks and what it offers
# are taught to be one code, without which a match between them is not found for a long time.
MATCHES = [(RANKING_LAYER, RANKING_HEADS[1]), (3, 0), (4, 0), (COUNTING_LAYER, COUNTING_HEAD)]


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
        self.codes = nn.ModuleList(nn.Linear(width // TEXT["num_attention_heads"], len(NOUNS) + len(COLOUR_NAMES) + ORDERS) for _ in MATCHES)
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
        (b, heads, l, head) of those that look or count, with the probed layer's hidden states under "hidden"."""
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
            if i in LOOKS or i in (COUNTING_LAYER, RANKING_LAYER):
                looking[i] = qk
            if i == PICKING_LAYER:
                looking["picked"] = x
            if i + 1 == PICKING_LAYER and seen is not None:
                looking["fetched"] = x.view(b * n, -1)[places]
            if i + 1 == PROBED_LAYER and seen is not None:
                known = x.view(b * n, -1)[places]
                looking["hidden"] = x
        return self.norm(x), seen, known, looking

    def loss(self, batch):
        """The whole loss, its parts for the log, and the choices (targets) of the learned places."""
        t = {k: torch.from_numpy(getattr(batch, k)) for k in ("frames", "ids", "positions", "places", "targets")}
        if batch.kind in DENSE:
            # Nothing is asked: only what lies under each patch is learned, which costs a quarter of a conversation.
            _, seen, known, looking = self(t["frames"], batch.grid, t["ids"], t["positions"], t["places"], PICKING_LAYER)
            parts = {**self.dense_loss(batch, seen), **self.place_loss(batch, known, looking["fetched"])}
            if len(batch.rank_from):
                parts.update(self.rank_loss(batch, known, looking[RANKING_LAYER]))
                parts["code"] = self.code_loss(batch, looking, asking=False)
            return sum(parts.values()), {k: v.detach() for k, v in parts.items()}, None
        hidden, seen, known, looking = self(t["frames"], batch.grid, t["ids"], t["positions"], t["places"])
        flat = t["targets"].flatten()
        at = torch.nonzero(flat >= 0).flatten()
        logits = hidden.flatten(0, 1)[at] @ self.embed.weight.T
        text = F.cross_entropy(logits, flat[at])
        total, parts = text, {"text": text.detach()}
        if seen is not None:
            more = self.place_loss(batch, known, looking["fetched"])
            if len(batch.rank_from):
                more.update(self.rank_loss(batch, known, looking[RANKING_LAYER]))
            if len(batch.look_from):
                more["order"] = self.order_loss(batch, looking["hidden"])
                more["asked"] = self.asked_loss(batch, looking["hidden"])
                more["pick"] = self.pick_loss(batch, looking[PICKING_LAYER]) * 0.5
                if (batch.look_value >= 0).any():
                    more["told"] = self.told_loss(batch, looking["picked"])
                for i, ahead in LOOKS.items():
                    more[f"look{i}"] = self.look_loss(batch, looking[i], ahead) * 0.5
            if len(batch.seen_from):
                more["seen"] = self.seen_loss(batch, looking)
            if len(batch.look_from) and batch.kind == "shapes":
                more["code"] = self.code_loss(batch, looking, asking=True)
            if len(batch.count_from):
                more["sum"] = self.count_loss(batch, looking[COUNTING_LAYER])
            total = total + sum(more.values())
            parts.update({k: v.detach() for k, v in more.items()})
        return total, parts, (at, logits.detach().argmax(-1), flat[at])

    def attention(self, qk, head, start, n):
        """Logarithms of a head's attention from some places, flat: (k, l), and their rows."""
        h, kv = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
        row, at = start // n, start % n
        scores = torch.einsum("kd,knd->kn", qk[row, head, at], qk[row, h + head // (h // kv)]) / math.sqrt(qk.shape[-1])
        return scores.masked_fill(torch.arange(n)[None] > at[:, None], -torch.inf).log_softmax(-1), row

    def look_loss(self, batch, qk, ahead):
        """How little the first head attends to the patches that a token, or the one so far ahead, is about."""
        n = qk.shape[2]
        attention, row = self.attention(qk, 0, torch.from_numpy(batch.look_from) - ahead, n)
        cells = torch.from_numpy(batch.places).view(len(qk), -1)[row] % n
        seen = attention.gather(1, cells).masked_fill(~torch.from_numpy(batch.look_at), -torch.inf)
        return -seen.logsumexp(-1).mean()

    def order_loss(self, batch, hidden):
        """How well the lower layers know the how-manieth thing, and character, is to be told next."""
        before = hidden.flatten(0, 1)[torch.from_numpy(batch.look_from) - 1]
        due = torch.from_numpy(batch.look_order).flatten()
        loss = F.cross_entropy(self.order(before).view(-1, ORDERS), due, ignore_index=-1)
        field = torch.from_numpy(batch.look_field)
        if (field >= 0).any():
            loss = loss + F.cross_entropy(self.field(before), field, ignore_index=-1)
        return loss * 0.4

    def asked_loss(self, batch, hidden):
        """How well the lower layers know, wherever an answer is about something, what was asked about."""
        before = torch.from_numpy(np.concatenate([batch.look_from, batch.count_from])) - 1
        logits = self.asked(hidden.flatten(0, 1)[before]).split([1 + len(NOUNS), 1 + len(COLOUR_NAMES)], -1)
        due = torch.from_numpy(batch.look_asked)
        some = [(one, of) for one, of in zip(logits, due.T) if (of >= 0).any()]
        return sum(F.cross_entropy(one, of, ignore_index=-1) for one, of in some) * 0.3

    def pick_loss(self, batch, qk):
        """How little the picking heads attend to the patch that holds what is told next if it is theirs, and else to the
        first token."""
        n, pick = qk.shape[2], torch.from_numpy(batch.look_pick)
        some = torch.nonzero(pick.any(-1)).flatten()
        if not len(some):
            return qk.sum() * 0
        start, at = torch.from_numpy(batch.look_from)[some] - 1, torch.from_numpy(batch.look_at)[some]
        cells, loss = torch.from_numpy(batch.places).view(len(qk), -1)[start // n] % n, 0.0
        for i, head in enumerate(PICKING_HEADS):
            attention, _ = self.attention(qk, head, start, n)
            held = attention.gather(1, cells).masked_fill(~at, -torch.inf).logsumexp(-1)
            loss = loss - torch.where(pick[some, i], held, 0.4 * attention[:, 0]).mean()
        return loss

    def told_loss(self, batch, picked):
        """How well a coordinate or a time is known as a whole once it has been fetched, whichever digit comes next."""
        value = torch.from_numpy(batch.look_value)
        some = torch.nonzero(value >= 0).flatten()
        logits = self.told(picked.flatten(0, 1)[torch.from_numpy(batch.look_from)[some] - 1])
        if batch.kind == "clip":
            return F.cross_entropy(logits[:, 20:], value[some].clamp(max=TIMES - 1)) * 0.6
        due = torch.stack([value[some] // 100, value[some] // 10 % 10], -1).flatten()
        return F.cross_entropy(logits[:, :20].reshape(-1, 10), due) * 0.6

    def counting(self, batch, qk, head, start, row_cells, at):
        """How far a head's attention from some places is from counting: to each patch as much as `at` (k, cells) says, and
        to the first token COUNTING_REST times as much as to 1."""
        attention, _ = self.attention(qk, head, start, qk.shape[2])
        total = at.sum(-1) + COUNTING_REST
        # What may not be seen is not counted either; its logarithm is no number.
        seen = attention.gather(1, row_cells).masked_fill(at == 0, 0) * at
        rest = COUNTING_REST / total
        least = rest * rest.log() + torch.special.xlogy(at, at / total[:, None]).sum(-1) / total
        return (least - (seen.sum(-1) + COUNTING_REST * attention[:, 0]) / total).mean()

    def count_loss(self, batch, qk):
        """How far the counting head is from its due."""
        n, start = qk.shape[2], torch.from_numpy(batch.count_from)
        cells = torch.from_numpy(batch.places).view(len(qk), -1)[start // n] % n
        return self.counting(batch, qk, COUNTING_HEAD, start, cells, torch.from_numpy(batch.count_at).float())

    def rank_loss(self, batch, known, qk):
        """How far the ranking heads are from their due, and how well the layers above know what they count."""
        unit, cell = torch.from_numpy(batch.rank_from).unbind(-1)
        at = torch.from_numpy(batch.rank_at)
        places = torch.from_numpy(batch.places).view(len(batch.frames), -1)
        start, cells = places[unit, cell], places[unit] % qk.shape[2]
        due = [self.counting(batch, qk, head, start, cells, at[..., i]) for i, head in enumerate(RANKING_HEADS)]
        mine = known.view(*places.shape, -1)[unit, cell]
        told = F.cross_entropy(self.rank(mine).view(-1, ORDERS), at[..., :2].sum(1).clamp(max=ORDERS - 1).flatten().long())
        losses = {"heads": sum(due) * 0.5, "rank": told * 0.5}
        index = torch.from_numpy(batch.rank_index)
        if (index >= 0).any():
            losses["index"] = F.cross_entropy(self.index(mine), index.clamp(max=ORDERS - 1), ignore_index=-1) * 0.5
        return losses

    def seen_loss(self, batch, looking):
        """How far a head is from counting in how many earlier units of a clip a thing was seen, and how well the layers above
        know."""
        qk, start, at = looking[RANKING_LAYER], torch.from_numpy(batch.seen_from), torch.from_numpy(batch.seen_at).float()
        cells = torch.from_numpy(batch.places).view(len(qk), -1)[start // qk.shape[2]] % qk.shape[2]
        told = F.cross_entropy(self.since(looking["hidden"].flatten(0, 1)[start]), at.sum(-1).long().clamp(max=UNITS - 1))
        return (self.counting(batch, qk, SEEING_HEAD, start, cells, at) + told) * 0.4

    def code_loss(self, batch, looking, asking):
        """How far what matching heads ask, and what they offer, is from one code of nouns, colours and ranks. `asking`: whether
        there are questions."""
        noun, colour = (torch.from_numpy(of).flatten() for of in (batch.noun, batch.colour))
        noun = torch.where(noun < N_NOUNS - 1, noun - 1, -1)
        rank = torch.full_like(noun, -1)
        unit, cell = torch.from_numpy(batch.rank_from).unbind(-1)
        at = unit * batch.noun.shape[1] + cell
        rank[at] = torch.from_numpy(batch.rank_at)[..., 0].sum(1).long().clamp(max=ORDERS - 1)
        places = torch.from_numpy(batch.places)
        on = torch.nonzero(noun >= 0).flatten()
        at = at[noun[at] >= 0]
        if not len(at):
            return rank.sum() * 0.0
        offered = torch.stack([noun, colour, rank], -1)
        losses = []
        for (layer, head), code in zip(MATCHES, self.codes):
            if layer == RANKING_LAYER:
                # Of a thing are asked those with its noun.
                start, due = places[at], torch.stack([noun[at], torch.full_like(at, -1), torch.full_like(at, -1)], -1)
            elif not asking:
                continue
            else:
                asked = torch.from_numpy(batch.look_asked)
                n, counting = len(batch.look_from), (layer, head) == (COUNTING_LAYER, COUNTING_HEAD)
                start = torch.from_numpy(batch.count_from if counting else batch.look_from - 1)
                asked = asked[n:] if counting else asked[:n]
                order = torch.full_like(start, -1) if counting else torch.from_numpy(batch.look_order)[:, 0]
                # Where something is asked for, another rank counts.
                due = torch.cat([asked - 1, torch.where((asked == 0).all(-1), order, -1)[:, None]], -1).clamp(min=-1)
            qk = looking[layer]
            n, groups = qk.shape[2], TEXT["num_attention_heads"] // TEXT["num_key_value_heads"]
            for which, where, of in ((head, start, due), (TEXT["num_attention_heads"] + head // groups, places[on], offered[on])):
                logits = code(qk[where // n, which, where % n]).split([len(NOUNS), len(COLOUR_NAMES), ORDERS], -1)
                losses += [F.cross_entropy(one, to, ignore_index=-1) for one, to in zip(logits, of.T) if (to >= 0).any()]
        return sum(losses) * 0.15

    def dense_loss(self, batch, seen):
        """How well the tower's output (u, c, width) tells what lies under each merged patch, by what is told."""
        n_chars = len(CHARACTERS) + 1
        out = self.see(seen).flatten(0, 1)
        noun_logits, colour_logits, box, middle, *slots, facts = out.split(
            [N_NOUNS, len(COLOUR_NAMES), 4, 1, *[n_chars] * SLOTS, FACTS * FACT_CLASSES], -1
        )
        noun = torch.from_numpy(batch.noun).flatten()
        colour = torch.from_numpy(batch.colour).flatten()
        loss = {"noun": F.cross_entropy(noun_logits, noun) * 0.4}
        shapes = torch.nonzero((noun > 0) & (noun < N_NOUNS - 1)).flatten()
        if len(shapes):
            # What is not ground is rare, and what matters.
            loss["shape"] = F.cross_entropy(noun_logits[shapes], noun[shapes])
        on = torch.nonzero(noun > 0).flatten()
        loss["middle"] = F.binary_cross_entropy_with_logits(middle[:, 0], torch.from_numpy(batch.middle).flatten())
        if len(on) == 0:
            return loss
        loss["colour"] = F.cross_entropy(colour_logits[on], colour[on]) * 0.3
        rows, columns = batch.grid
        cell = torch.arange(rows * columns)
        corner = torch.stack([cell % columns, cell // columns, cell % columns, cell // columns], -1) * 28.0 + 14
        true_box = torch.from_numpy(batch.box)
        offset = ((true_box - corner) / 28).flatten(0, 1)[on]
        loss["edge"] = F.smooth_l1_loss(box[on], offset, beta=0.1)
        turned = offset * 28 * PHASE
        loss["turn"] = F.mse_loss(self.offset(seen.flatten(0, 1)[on]), torch.cat([turned.cos(), turned.sin()], -1)) * 0.5
        char = torch.from_numpy(batch.slots).flatten(0, 1)
        if (char >= 0).any():
            loss["char"] = F.cross_entropy(torch.stack(slots, 1).flatten(0, 1), char.flatten(), ignore_index=-1) * 1.2
        fact = torch.from_numpy(batch.facts).flatten(0, 1)
        if (fact >= 0).any():
            logits = facts.reshape(-1, FACT_CLASSES)
            loss["move"] = F.cross_entropy(logits, fact.flatten(), ignore_index=-1) * 0.4
        return loss

    def place_loss(self, batch, known, fetched):
        """How well the lower layers of the decoder know where each patch lies, and those above (`fetched`) from where to
        where its thing goes."""
        rows, columns = batch.grid
        cell = torch.arange(rows * columns)
        _, row, column = self.place(known).split([120, 20, 20], -1)
        digits = self.place(fetched)[:, :120]
        u = len(batch.frames)
        where = F.cross_entropy(row, (cell // columns).repeat(u)) + F.cross_entropy(column, (cell % columns).repeat(u))
        turned = torch.stack([cell % columns, cell // columns], -1) * 28 * PHASE
        loss = {"where": where * 0.3, "phase": F.mse_loss(self.phase(known), torch.cat([turned.cos(), turned.sin()], -1).repeat(u, 1))}
        when = torch.from_numpy(batch.when)
        if (when >= 0).any():
            loss["when"] = F.cross_entropy(self.when(known), when.repeat_interleave(rows * columns).clamp(max=TIMES - 1)) * 0.3
        on = torch.nonzero(torch.from_numpy(batch.noun).flatten() > 0).flatten()
        if len(on):
            whole = torch.from_numpy(batch.box).flatten(0, 1)[on].long()
            digit = torch.stack([whole // 100, whole // 10 % 10, whole % 10], -1).flatten(1)
            # The hundreds matter most, and the last digit can't be told to the end.
            each = F.cross_entropy(digits[on].view(-1, 10), digit.flatten(), reduction="none").view(-1, 4, 3)
            loss["digit"] = (each * torch.tensor([1.0, 1.5, 0.2])).mean()
            turned = torch.from_numpy(batch.box).flatten(0, 1)[on] * PHASE
            loss["turns"] = F.mse_loss(self.turns(fetched[on]), torch.cat([turned.cos(), turned.sin()], -1)) * 1.5
        return loss

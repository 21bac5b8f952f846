"""What the demo model learns from: its answers, and what linear readings of its layers and some of its heads of attention
have to tell or to look at.

A model so small, on so few scenes, finds no way from the answers alone to what it has to see, to count and to look for.
So the tower's patches are asked what lies under them; the decoder's, where they lie and how many things stand before
them; and single heads are taught to look at what a token is about, to count, and to match names. `Model` has the readings
and says which heads these are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from demo.batches import DENSE
from demo.model import (
    BEGINNING_HEAD, BEGINNING_LAYER, COUNTING, LOOKS, MATCHES, PHASE, PICKING_HEADS, PICKING_LAYER, RANKING_HEADS, RANKING_LAYER,
    SEEING_HEAD, TEXT, TIMES, UNITS,
)  # fmt: skip
from demo.scenes import NOUNS
from demo.targets import CHARACTERS, COLOUR_NAMES, COUNTING_REST, FACT_CLASSES, FACTS, N_NOUNS, ORDERS, SLOTS


def total(model, batch):
    """The whole loss, its parts for the log, and the choices (targets) of the learned places."""
    t = {k: torch.from_numpy(getattr(batch, k)) for k in ("frames", "ids", "positions", "places", "targets")}
    if batch.kind == "crowd":
        seen = model.vision(t["frames"], batch.grid)
        parts = dense_loss(model, batch, seen)
        return sum(parts.values()), {k: v.detach() for k, v in parts.items()}, None
    if batch.kind in DENSE:
        # Nothing is asked: only what lies under each patch is learned, which costs a quarter of a conversation.
        _, seen, known, looking = model(t["frames"], batch.grid, t["ids"], t["positions"], t["places"], PICKING_LAYER)
        parts = {**dense_loss(model, batch, seen), **place_loss(model, batch, known, looking["fetched"])}
        if len(batch.rank_from):
            parts.update(rank_loss(model, batch, known, looking[RANKING_LAYER]))
            parts["code"] = code_loss(model, batch, looking, asking=False)
        return sum(parts.values()), {k: v.detach() for k, v in parts.items()}, None
    hidden, seen, known, looking = model(t["frames"], batch.grid, t["ids"], t["positions"], t["places"])
    flat = t["targets"].flatten()
    at = torch.nonzero(flat >= 0).flatten()
    logits = hidden.flatten(0, 1)[at] @ model.embed.weight.T
    text = F.cross_entropy(logits, flat[at])
    whole, parts = text, {"text": text.detach()}
    if seen is not None:
        more = place_loss(model, batch, known, looking["fetched"])
        if len(batch.rank_from):
            more.update(rank_loss(model, batch, known, looking[RANKING_LAYER]))
        if len(batch.look_from):
            more["order"] = order_loss(model, batch, looking["hidden"])
            more["asked"] = asked_loss(model, batch, looking["hidden"])
            more["pick"] = pick_loss(batch, looking[PICKING_LAYER]) * 0.5
            if (batch.look_value >= 0).any():
                more["told"] = told_loss(model, batch, looking["picked"])
            for i, ahead in LOOKS.items():
                where, some = batch.look_first if i == 3 else batch.look_at, batch.look_said if ahead == 0 else batch.look_from >= 0
                more[f"look{i}"] = look_loss(batch, looking[i], ahead, where, some) * 0.5
        if len(batch.seen_from):
            more["seen"] = seen_loss(model, batch, looking)
            more["begun"] = begun_loss(model, batch, looking, known)
        if len(batch.look_from) and (batch.kind == "shapes" or len(batch.seen_from)):
            more["code"] = code_loss(model, batch, looking, asking=True)
        if len(batch.count_from):
            more["sum"] = sum(count_loss(batch, looking[layer], head) for layer, head in COUNTING) * 0.5
        whole = whole + sum(more.values())
        parts.update({k: v.detach() for k, v in more.items()})
    return whole, parts, (at, logits.detach().argmax(-1), flat[at])


def attend(qk, head, start, n):
    """Logarithms of a head's attention from some places, flat: (k, l), and their rows."""
    h, kv = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    row, at = start // n, start % n
    # All scores are fewer numbers than the keys of each row would be.
    scores = (qk[:, head] @ qk[:, h + head // (h // kv)].transpose(1, 2))[row, at] / math.sqrt(qk.shape[-1])
    return scores.masked_fill(torch.arange(n)[None] > at[:, None], -torch.inf).log_softmax(-1), row


def look_loss(batch, qk, ahead, at, some):
    """How little the first head attends to the patches (k, cells) that a token, or the one so far ahead, is about, of `some`."""
    n, at = qk.shape[2], at[some]
    attention, row = attend(qk, 0, torch.from_numpy(batch.look_from[some]) - ahead, n)
    cells = torch.from_numpy(batch.places).view(len(qk), -1)[row] % n
    seen = attention.gather(1, cells).masked_fill(~torch.from_numpy(at), -torch.inf)
    return -seen.logsumexp(-1).mean()


def order_loss(model, batch, hidden):
    """How well the lower layers know the how-manieth thing, and character, is to be told next."""
    before = hidden.flatten(0, 1)[torch.from_numpy(batch.look_from) - 1]
    due = torch.from_numpy(batch.look_order).flatten()
    loss = F.cross_entropy(model.order(before).view(-1, ORDERS), due, ignore_index=-1)
    field = torch.from_numpy(batch.look_field)
    if (field >= 0).any():
        loss = loss + F.cross_entropy(model.field(before), field, ignore_index=-1)
    return loss * 0.4


def asked_loss(model, batch, hidden):
    """How well the lower layers know, wherever an answer is about something, what was asked about."""
    before = torch.from_numpy(np.concatenate([batch.look_from, batch.count_from])) - 1
    logits = model.asked(hidden.flatten(0, 1)[before]).split([1 + len(NOUNS), 1 + len(COLOUR_NAMES)], -1)
    due = torch.from_numpy(np.concatenate([batch.look_asked, batch.count_asked]))
    some = [(one, of) for one, of in zip(logits, due.T) if (of >= 0).any()]
    return sum(F.cross_entropy(one, of, ignore_index=-1) for one, of in some) * 0.3


def pick_loss(batch, qk):
    """How little the picking heads attend to the patch that holds what is told next if it is theirs, and else to the
    first token."""
    n, pick = qk.shape[2], torch.from_numpy(batch.look_pick)
    some = torch.nonzero(pick.any(-1)).flatten()
    if not len(some):
        return qk.sum() * 0
    start, at = torch.from_numpy(batch.look_from)[some] - 1, torch.from_numpy(batch.pick_at)[some]
    cells, loss = torch.from_numpy(batch.places).view(len(qk), -1)[start // n] % n, 0.0
    for i, head in enumerate(PICKING_HEADS):
        attention, _ = attend(qk, head, start, n)
        held = attention.gather(1, cells).masked_fill(~at[:, i], -torch.inf).logsumexp(-1)
        loss = loss - torch.where(pick[some, i], held, 0.4 * attention[:, 0]).mean()
    return loss


def told_loss(model, batch, picked):
    """How well a coordinate or a time is known as a whole once it has been fetched, whichever digit comes next."""
    value = torch.from_numpy(batch.look_value)
    some = torch.nonzero(value >= 0).flatten()
    logits = model.told(picked.flatten(0, 1)[torch.from_numpy(batch.look_from)[some] - 1])
    if batch.kind == "clip":
        return F.cross_entropy(logits[:, 20:], value[some].clamp(max=TIMES - 1)) * 0.6
    due = torch.stack([value[some] // 100, value[some] // 10 % 10], -1).flatten()
    return F.cross_entropy(logits[:, :20].reshape(-1, 10), due) * 0.6


def counting(qk, head, start, row_cells, at):
    """How far a head's attention from some places is from counting: to each patch as much as `at` (k, cells) says, and
    to the first token COUNTING_REST times as much as to 1."""
    attention, _ = attend(qk, head, start, qk.shape[2])
    total = at.sum(-1) + COUNTING_REST
    # What may not be seen is not counted either; its logarithm is no number.
    seen = attention.gather(1, row_cells).masked_fill(at == 0, 0) * at
    rest = COUNTING_REST / total
    least = rest * rest.log() + torch.special.xlogy(at, at / total[:, None]).sum(-1) / total
    apart = (least - (seen.sum(-1) + COUNTING_REST * attention[:, 0]) / total).mean()
    # What the first token gets says how many there are: by so many it is out.
    out = (attention[:, 0] - rest.log()) * total
    return apart + 0.6 * F.smooth_l1_loss(out, torch.zeros_like(out), beta=0.3)


def count_loss(batch, qk, head):
    """How far a counting head is from its due."""
    n, start = qk.shape[2], torch.from_numpy(batch.count_from)
    cells = torch.from_numpy(batch.places).view(len(qk), -1)[start // n] % n
    return counting(qk, head, start, cells, torch.from_numpy(batch.count_at).float())


def rank_loss(model, batch, known, qk):
    """How far the ranking heads are from their due, and how well the layers above know what they count."""
    unit, cell = torch.from_numpy(batch.rank_from).unbind(-1)
    at = torch.from_numpy(batch.rank_at)
    places = torch.from_numpy(batch.places).view(len(batch.frames), -1)
    start, cells = places[unit, cell], places[unit] % qk.shape[2]
    due = [counting(qk, head, start, cells, at[..., i]) for i, head in enumerate(RANKING_HEADS)]
    mine = known.view(*places.shape, -1)[unit, cell]
    told = F.cross_entropy(model.rank(mine).view(-1, ORDERS), at[..., :2].sum(1).clamp(max=ORDERS - 1).flatten().long())
    losses = {"heads": sum(due) * 0.5, "rank": told * 0.5}
    index = torch.from_numpy(batch.rank_index)
    if (index >= 0).any():
        losses["index"] = F.cross_entropy(model.index(mine), index.clamp(max=ORDERS - 1), ignore_index=-1) * 0.5
    return losses


def seen_loss(model, batch, looking):
    """How far a head is from counting in how many earlier units of a clip a thing was seen, and how well the layers above
    know."""
    qk, start, at = looking[RANKING_LAYER], torch.from_numpy(batch.seen_from), torch.from_numpy(batch.seen_at).float()
    cells = torch.from_numpy(batch.places).view(len(qk), -1)[start // qk.shape[2]] % qk.shape[2]
    told = F.cross_entropy(model.since(looking["hidden"].flatten(0, 1)[start]), at.sum(-1).long().clamp(max=UNITS - 1))
    return (counting(qk, SEEING_HEAD, start, cells, at) + told) * 0.4


def begun_loss(model, batch, looking, known):
    """How far a head is from counting, where something comes in a clip, what came before, and how well the layers above know."""
    qk, first = looking[BEGINNING_LAYER], torch.from_numpy(batch.begun_from)
    places, at = torch.from_numpy(batch.places), torch.from_numpy(batch.begun_at).float()
    start = places[first]
    cells = places.view(len(qk), -1)[start // qk.shape[2]] % qk.shape[2]
    told = F.cross_entropy(model.rank(known[first])[:, :ORDERS], at.sum(-1).long())
    return (counting(qk, BEGINNING_HEAD, start, cells, at) + told) * 0.4


def code_loss(model, batch, looking, asking):
    """How far what matching heads ask, and what they offer, is from one code of nouns, colours and ranks. `asking`: whether
    there are questions."""
    noun, colour = (torch.from_numpy(of).flatten() for of in (batch.noun, batch.colour))
    noun = torch.where(noun < N_NOUNS - 1, noun - 1, -1)
    rank = torch.full_like(noun, -1)
    clip = batch.kind == "clip"
    if clip:
        at = torch.from_numpy(batch.begun_from)
        rank[at] = torch.from_numpy(batch.begun_at).sum(1)
    else:
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
    for (layer, head), code in zip(MATCHES, model.codes):
        counts = (layer, head) in COUNTING
        if clip and (layer == RANKING_LAYER or counts):
            continue
        if layer == RANKING_LAYER:
            # Of a thing are asked those with its noun.
            start, due = places[at], torch.stack([noun[at], torch.full_like(at, -1), torch.full_like(at, -1)], -1)
        elif not asking:
            continue
        else:
            asked = torch.from_numpy(batch.count_asked if counts else batch.look_asked)
            start = torch.from_numpy(batch.count_from if counts else batch.look_from - 1)
            order = torch.full_like(start, -1) if counts else torch.from_numpy(batch.look_order)[:, 0]
            # Where something is asked for, another rank counts.
            due = torch.cat([asked - 1, torch.where((asked == 0).all(-1), order, -1)[:, None]], -1).clamp(min=-1)
            if layer == PICKING_LAYER and not counts:
                # What comes and goes is found by what it is, once it has been found where it comes; so is what is compared.
                named = torch.from_numpy(batch.look_thing)[:, PICKING_HEADS.index(head) if head else 0]
                named = torch.cat([named, torch.full_like(order, -1)[:, None]], -1)
                due = torch.where(named[:, :1] >= 0, named, due)
        qk = looking[layer]
        n, groups = qk.shape[2], TEXT["num_attention_heads"] // TEXT["num_key_value_heads"]
        for which, where, of in ((head, start, due), (TEXT["num_attention_heads"] + head // groups, places[on], offered[on])):
            logits = code(qk[where // n, which, where % n]).split([len(NOUNS), len(COLOUR_NAMES), ORDERS], -1)
            losses += [F.cross_entropy(one, to, ignore_index=-1) for one, to in zip(logits, of.T) if (to >= 0).any()]
    return sum(losses) * 0.15


def dense_loss(model, batch, seen):
    """How well the tower's output (u, c, width) tells what lies under each merged patch, by what is told."""
    n_chars = len(CHARACTERS) + 1
    out = model.see(seen).flatten(0, 1)
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
    loss["turn"] = F.mse_loss(model.offset(seen.flatten(0, 1)[on]), torch.cat([turned.cos(), turned.sin()], -1)) * 0.5
    char = torch.from_numpy(batch.slots).flatten(0, 1)
    if (char >= 0).any():
        loss["char"] = F.cross_entropy(torch.stack(slots, 1).flatten(0, 1), char.flatten(), ignore_index=-1) * 2.5
    fact = torch.from_numpy(batch.facts).flatten(0, 1)
    if (fact >= 0).any():
        logits = facts.reshape(-1, FACT_CLASSES)
        loss["move"] = F.cross_entropy(logits, fact.flatten(), ignore_index=-1) * 0.4
    return loss


def place_loss(model, batch, known, fetched):
    """How well the lower layers of the decoder know where each patch lies, and those above (`fetched`) from where to
    where its thing goes."""
    rows, columns = batch.grid
    cell = torch.arange(rows * columns)
    _, row, column = model.place(known).split([120, 20, 20], -1)
    digits = model.place(fetched)[:, :120]
    u = len(batch.frames)
    where = F.cross_entropy(row, (cell // columns).repeat(u)) + F.cross_entropy(column, (cell % columns).repeat(u))
    turned = torch.stack([cell % columns, cell // columns], -1) * 28 * PHASE
    loss = {"where": where * 0.3, "phase": F.mse_loss(model.phase(known), torch.cat([turned.cos(), turned.sin()], -1).repeat(u, 1))}
    when = torch.from_numpy(batch.when)
    if (when >= 0).any():
        loss["when"] = F.cross_entropy(model.when(known), when.repeat_interleave(rows * columns).clamp(max=TIMES - 1)) * 0.3
    on = torch.nonzero(torch.from_numpy(batch.noun).flatten() > 0).flatten()
    if len(on):
        whole = torch.from_numpy(batch.box).flatten(0, 1)[on].long()
        digit = torch.stack([whole // 100, whole // 10 % 10, whole % 10], -1).flatten(1)
        # The hundreds matter most, and the last digit can't be told to the end.
        each = F.cross_entropy(digits[on].view(-1, 10), digit.flatten(), reduction="none").view(-1, 4, 3)
        loss["digit"] = (each * torch.tensor([1.0, 1.5, 0.2])).mean()
        turned = torch.from_numpy(batch.box).flatten(0, 1)[on] * PHASE
        loss["turns"] = F.mse_loss(model.turns(fetched[on]), torch.cat([turned.cos(), turned.sin()], -1)) * 1.5
    return loss

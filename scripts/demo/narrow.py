"""Weights as the engine's four-bit format holds them, so that what is learned last survives the packing.

The scheme is that of `kernels/linear/quantized/format.rs`: groups of 32 features of a row, sixteen steps from a zero point
that is an eighth of a step fine, and a scale of nine bits. The gradient at such weights moves the exact ones (Bengio,
Léonard, Courville, 2013, "Estimating or propagating gradients through stochastic neurons": the straight-through estimator).
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F

GROUP = 32
# Of a group's span; what a narrower one cuts off may cost less than its finer steps gain.
SPANS = (1.0, 0.9, 0.8)


@torch.no_grad()
def packed(weight: torch.Tensor) -> torch.Tensor:
    """A matrix (rows, features) after packing."""
    rows, features = weight.shape
    w = F.pad(weight, (0, -features % GROUP)).view(rows, -1, GROUP)
    least, most = w.amin(-1, keepdim=True).clamp(max=0), w.amax(-1, keepdim=True).clamp(min=0)
    best = None
    for span in SPANS:
        scale = ((most - least) * (span / 120)).clamp(min=1e-12)
        # Four bits of a scale's mantissa are kept.
        scale = ((scale.view(torch.int32) + (1 << 18)) >> 19 << 19).view(torch.float32)
        zero = ((-least + (120 * scale - most)) / (2 * scale)).round_().clamp_(0, 127)
        q = ((w / scale + zero) * 0.125).round_().clamp_(0, 15)
        found = (q * 8 - zero) * scale
        error = (found - w).square_().sum(-1, keepdim=True)
        best = (found, error) if best is None else (torch.where(error < best[1], found, best[0]), torch.minimum(error, best[1]))
    return best[0].view(rows, -1)[:, :features]


def is_packed(name: str, p: torch.Tensor) -> bool:
    """Whether the engine packs it: the matrices of the tower and of the decoder, not the embeddings."""
    return p.dim() == 2 and name.startswith(("vision.", "layers."))


@contextlib.contextmanager
def narrowed(model):
    """The model with packed weights; afterwards with its own, and the gradients that were found meanwhile."""
    own = {p: p.data for name, p in model.named_parameters() if is_packed(name, p)}
    try:
        for p, weight in own.items():
            p.data = packed(weight)
        yield
    finally:
        for p, weight in own.items():
            p.data = weight

"""The optimizer: Muon for the matrices within the layers, AdamW for all else, and an average of the weights.

Muon (K. Jordan, 2024, "Muon: an optimizer for hidden layers in neural networks") moves a matrix along its momentum made
orthogonal by a few Newton-Schulz steps. Matrices of equal shape are done in one batch, which a processor needs.
"""

from __future__ import annotations

import torch

# Amsel, Persson, Musco, Gower (2025), "The Polar Express": the best polynomials for so few steps.
POLYNOMIALS = [(8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518)]


def orthogonal(m: torch.Tensor) -> torch.Tensor:
    """About the nearest orthogonal matrices of a batch (n, rows, columns)."""
    tall = m.shape[1] > m.shape[2]
    x = m.transpose(1, 2) if tall else m
    x = x / (1.02 * x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in POLYNOMIALS:
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * s @ s) @ x
    # So few steps leave the greatest singular values at 1.9.
    return 0.6 * (x.transpose(1, 2) if tall else x)


class Optimizer:
    """State is a plain dictionary, so that training can be taken up again."""

    def __init__(self, model, fast: tuple[str, ...] = (), average: float = 0.998):
        """`fast`: the beginnings of the names of what is learned three times as fast."""
        self.fast = fast
        self.parameters = dict(model.named_parameters())
        self.decay = average
        self.groups: dict[tuple, list[tuple[str, int, int]]] = {}
        self.adam = []
        for name, p in self.parameters.items():
            hidden = p.dim() == 2 and ("blocks" in name or "layers" in name or "merge" in name)
            if not hidden:
                self.adam.append(name)
                continue
            # Query, key and value, and gate and up, are matrices of their own.
            parts = 3 if "blocks" in name and "qkv" in name else 2 if "gate_up" in name else 1
            rows = p.shape[0] // parts
            for i in range(parts):
                self.groups.setdefault((rows, p.shape[1]), []).append((name, i * rows, (i + 1) * rows))
        zeros = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.state = {
            "momentum": zeros,
            "square": {name: torch.zeros_like(self.parameters[name]) for name in self.adam},
            "average": {name: p.detach().clone() for name, p in self.parameters.items()},
            "step": 0,
        }

    @torch.no_grad()
    def step(self, muon_rate: float, adam_rate: float, decay: float = 0.1) -> None:
        s = self.state
        s["step"] += 1
        for group, places in self.groups.items():
            places = [place for place in places if self.parameters[place[0]].grad is not None]
            if not places:
                continue
            moves = []
            for name in {name for name, _, _ in places}:
                s["momentum"][name].lerp_(self.parameters[name].grad, 0.05)
            for name, first, end in places:
                grad, momentum = self.parameters[name].grad[first:end], s["momentum"][name][first:end]
                moves.append(torch.lerp(grad, momentum, 0.95))
            moved = orthogonal(torch.stack(moves))
            size = max(1.0, group[0] / group[1]) ** 0.5
            for (name, first, end), move in zip(places, moved):
                part = self.parameters[name][first:end]
                # Queries and keys that grow fast make attention so sharp that it learns nothing more.
                rate = muon_rate * (0.4 if "qkv" in name else 1)
                part.mul_(1 - rate * decay).add_(move, alpha=-rate * size)
        n = min(s["step"], 2000)
        for name in self.adam:
            p, m, v = self.parameters[name], s["momentum"][name], s["square"][name]
            if p.grad is None:
                continue
            m.lerp_(p.grad, 0.1)
            v.lerp_(p.grad.square(), 0.01)
            # The heads that are not exported may run ahead of what they read.
            rate = adam_rate * (3 if name.startswith(self.fast) else 1)
            p.add_((m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8), alpha=-rate)
        kept = min(self.decay, s["step"] / (s["step"] + 20))
        torch._foreach_lerp_(
            list(s["average"].values()), [p.detach() for p in self.parameters.values()], 1 - kept
        )

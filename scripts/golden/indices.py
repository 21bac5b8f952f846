"""indices.json: what the vision tower reads from grids alone. Truth: the index functions of Transformers."""

from __future__ import annotations

import random

from .files import Folder

AWKWARD_GRIDS = [
    [(1, 2, 2)], [(1, 4, 4)], [(1, 8, 8)], [(1, 10, 2)], [(1, 2, 70)], [(1, 14, 20)], [(1, 24, 16)], [(2, 18, 8)],
    [(5, 4, 6)], [(1, 8, 8), (1, 8, 8)], [(1, 12, 6), (3, 4, 10), (1, 16, 16)],
]  # fmt: skip


def write(folder: Folder) -> None:
    import torch
    from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

    rng = random.Random(folder.seed)
    drawn = [
        [(rng.randint(1, 3), 2 * rng.randint(1, 7), 2 * rng.randint(1, 7)) for _ in range(rng.randint(1, 2))]
        for _ in range(4)
    ]
    rows = []
    for number, grids in enumerate(AWKWARD_GRIDS + drawn):
        grid = torch.tensor(grids)
        # The size of a window belongs to the checkpoint: 112 in the published ones, others must work too.
        for window_size in (112,) if number % 3 else (112, 56, 84):
            order, bounds = get_vision_window_index(grid, 2, window_size, 14)
            place = get_vision_position_ids(grid, 2)
            rows.append(
                {
                    "grids": [list(g) for g in grids],
                    "window_size": window_size,
                    "window_index": order.tolist(),
                    "cu_window_seqlens": bounds.tolist(),
                    "cu_seqlens": get_vision_cu_seqlens(grid).tolist(),
                    "row": place[:, 0].tolist(),
                    "col": place[:, 1].tolist(),
                }
            )
    folder.write_json("indices.json", {"cases": rows})

"""mrope.json: positions on three axes. The rule is that of Transformers 4.49 and of the training code: seconds stay
fractions, and text goes on after the largest position so far. Later versions changed it; where they agree
(still pictures, text) the installed version is asked too."""

from __future__ import annotations

import random

import numpy as np

from .files import Folder

IMAGE, VIDEO, START, END = 151655, 151656, 151652, 151653


def positions(ids, grids, seconds, tokens_per_second: float, image_id: int, video_id: int):
    """Positions (3, n) int64 and the delta that turns an index into a position while decoding.

    `grids`: the (t, h, w) of each picture and clip in prompt order; `seconds`: for each clip in that order."""
    ids = list(ids)
    grids, seconds = list(grids), list(seconds)
    columns: list[np.ndarray] = []
    start = at = 0
    while at < len(ids):
        if ids[at] not in (image_id, video_id):
            columns.append(np.full((3, 1), start))
            start, at = start + 1, at + 1
            continue
        is_clip = ids[at] == video_id
        t, h, w = grids.pop(0)
        step = np.float32(seconds.pop(0) if seconds else 1.0) if is_clip else np.float32(0)
        times = np.arange(t, dtype=np.float32) * step * np.float32(tokens_per_second)
        block = np.indices((t, h // 2, w // 2)).reshape(3, -1)
        block[0] = times.astype(np.int64)[block[0]]
        columns.append(block + start)
        start += int(block.max()) + 1
        at += block.shape[1]
    result = np.concatenate(columns, axis=1).astype(np.int64)
    return result, int(result.max()) + 1 - len(ids)


def write(folder: Folder) -> None:
    rng = random.Random(folder.seed)
    report = {}
    for name, parts, tokens_per_second in layouts(rng):
        ids, images, videos, seconds, order = [], [], [], [], []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
                continue
            kind, grid, *rest = part
            order.append(grid)
            (images if kind == "image" else videos).append(list(grid))
            seconds += rest
            ids += [START] + [IMAGE if kind == "image" else VIDEO] * (grid[0] * grid[1] * grid[2] // 4) + [END]
        place, delta = positions(ids, order, seconds, tokens_per_second, IMAGE, VIDEO)
        if not videos:
            ask_installed(ids, images, place, delta)
        report[name] = {
            "input_ids": ids,
            "image_grids": images,
            "video_grids": videos,
            "second_per_grid_ts": seconds,
            "tokens_per_second": tokens_per_second,
            "positions": place.tolist(),
            "delta": delta,
        }
    folder.write_json("mrope.json", {"note": "positions by the rule of Transformers 4.49", "cases": report})


def layouts(rng):
    """(name, parts, tokens per second). A part is a token id, ("image", grid) or ("video", grid, [seconds])."""
    image = lambda h, w: ("image", (1, h, w))
    yield "text", list(range(5, 14)), 2
    yield "one_token", [7], 2
    yield "image_alone", [image(2, 2)], 2
    yield "image_between", [1, 2, image(12, 18), 3, 4, 5], 2
    yield "flat_then_tall", [1, image(2, 30), 2, image(30, 2), 3], 2
    yield "adjacent_images", [1, image(4, 6), image(6, 4), image(4, 4), 2], 2
    for seconds in (1.0, 2.0, 0.5, 0.25, 2 / 3, 4.0, 10.0, 2 / (16 / 241 * 23.976)):
        yield f"clip_{seconds:.4f}s", [1, 2, ("video", (6, 4, 6), seconds), 3, 4], 2
    yield "clip_without_seconds", [1, ("video", (5, 4, 4)), 2], 2
    yield "clip_3_tokens_per_second", [1, ("video", (5, 4, 4), 0.8), 2, 3], 3
    yield "clip_25_tokens_per_second", [1, ("video", (4, 6, 4), 1 / 3), 2, 3], 25
    yield "image_clip_image", [1, image(6, 4), 2, ("video", (3, 4, 8), 1.5), 3, image(4, 10), 4], 2
    yield "clip_image_clip", [("video", (2, 4, 4), 3.0), 9, image(8, 4), ("video", (4, 2, 6), 0.5), 8, 8], 2
    for number in range(4):
        parts = [1]
        for _ in range(rng.randint(1, 3)):
            grid = (2 * rng.randint(1, 6), 2 * rng.randint(1, 6))
            clip = ("video", (rng.randint(1, 7), *grid), rng.uniform(0.1, 5))
            parts += [clip if rng.randint(0, 1) else image(*grid)] + [3] * rng.randint(0, 4)
        yield f"drawn_{number}", parts, rng.choice([1, 2, 4])


def ask_installed(ids, images, place, delta) -> None:
    """Raises when the installed Transformers places text and pictures elsewhere."""
    from types import SimpleNamespace

    import torch
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    config = SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=2),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
    )
    model = SimpleNamespace(config=config)
    model.get_vision_position_ids = lambda *args, **named: Qwen2_5_VLModel.get_vision_position_ids(model, *args, **named)
    tokens = torch.tensor([ids])
    got, got_delta = Qwen2_5_VLModel.get_rope_index(
        model,
        tokens,
        mm_token_type_ids=(tokens == IMAGE).int(),
        image_grid_thw=torch.tensor(images) if images else None,
    )
    assert got[:, 0].tolist() == place.tolist() and int(got_delta) == delta, (ids, images)

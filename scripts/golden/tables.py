"""tables.json: sizes, frame counts and frame indices. Truth: Transformers, qwen-vl-utils and torch; the rules of
the hosted service are written out here from its published guide, because it publishes no library."""

from __future__ import annotations

import logging
import math
import random

from .files import Folder

FACTOR = 28
TOKEN = FACTOR * FACTOR

# (height, width): squares and halves of the factor, thin pictures, the limit of 200:1, camera sizes.
AWKWARD_SIZES = [
    (1, 1), (2, 2), (13, 15), (14, 14), (27, 29), (28, 28), (41, 43), (42, 42), (42, 70), (70, 42), (98, 98),
    (1, 199), (1, 200), (1, 201), (200, 1), (2, 400), (401, 2), (10, 246), (246, 10), (14, 1430), (20, 3999),
    (126, 14), (14, 126), (55, 57), (56, 56), (2047, 2049), (1365, 2048), (3024, 4032), (4032, 3024), (1080, 1920),
    (800, 600), (5000, 5000), (100, 20000), (19000, 100), (7, 1399), (9, 1801), (15, 100000),
]  # fmt: skip
LIMITS = [(4 * TOKEN, 16384 * TOKEN), (4 * TOKEN, 1280 * TOKEN), (128 * TOKEN, 768 * TOKEN), (256 * TOKEN, 300 * TOKEN)]


def write(folder: Folder) -> None:
    import torch
    from qwen_vl_utils import vision_process
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    logging.getLogger(vision_process.__name__).setLevel(logging.CRITICAL)
    rng = random.Random(folder.seed)
    sizes = AWKWARD_SIZES + [(14 * rng.randint(1, 120), 14 * rng.randint(1, 120)) for _ in range(70)]
    sizes += [(rng.randint(1, 5000), rng.randint(1, 5000)) for _ in range(90)]
    sizes += [(rng.randint(1, 30), rng.randint(20, 4000)) for _ in range(40)]
    sizes += [(rng.randint(20, 4000), rng.randint(1, 30)) for _ in range(40)]
    resized = [
        [h, w, least, most]
        + [result(smart_resize, h, w, FACTOR, least, most), result(vision_process.smart_resize, h, w, FACTOR, least, most)]
        for h, w in sizes
        for least, most in LIMITS
    ]
    hosted = [[h, w, hosted_resize(h, w, 1280), hosted_resize(h, w, 16384)] for h, w in sizes]

    counts = []
    for _ in range(240):
        total = rng.randint(2, rng.choice([10, 90, 2000, 50000]))
        video_fps = rng.choice([1.0, 7.5, 12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 120.0])
        fps = rng.choice([0.1, 0.3, 0.5, 1.0, 2.0, 2.0, 3.0, 5.0, 10.0])
        library = result(vision_process.smart_nframes, {"fps": fps}, total, video_fps)
        counts.append([total, video_fps, fps, library, result(hosted_frame_count, total, video_fps, fps)])
    picks = []
    for total, n in [(2, 2), (4, 4), (5, 4), (31, 10), (299, 22), (1000, 64), (7193, 512)] + [
        (total, rng.randint(2, min(total, 60))) for total in (rng.randint(2, 3000) for _ in range(8))
    ]:
        ends = torch.linspace(0, total - 1, n).round().long().tolist()
        floor = torch.arange(0, total, total / n).int().tolist()[:n]  # it sometimes yields one too many
        picks.append([total, n, ends, floor])
    budgets = []
    for n in (2, 3, 4, 10, 99, 128, 170, 171, 172, 255, 511, 512, 768):
        for total in (65536 * TOKEN, int(128000 * TOKEN * 0.9), 16384 * TOKEN):
            budgets.append([n, total, clip_limits(n, total)])
    folder.write_json(
        "tables.json",
        {
            "smart_resize_columns": ["height", "width", "min_pixels", "max_pixels", "transformers", "qwen_vl_utils"],
            "smart_resize": resized,
            "hosted_columns": ["height", "width", "max 1280 tokens", "max 16384 tokens"],
            "hosted": hosted,
            "nframes_columns": ["total_frames", "video_fps", "fps", "qwen_vl_utils", "hosted (cap 512)"],
            "nframes": counts,
            "frame_index_columns": ["total_frames", "nframes", "qwen_vl_utils", "transformers"],
            "frame_index": picks,
            "video_limit_columns": ["nframes", "total_pixels", "[min, max] pixels per frame"],
            "video_limit": budgets,
        },
    )


def result(function, *args):
    """What the function returns, in JSON's types; "error" when it refuses its arguments."""
    try:
        value = function(*args)
    except (ValueError, AssertionError, ZeroDivisionError):
        return "error"
    return list(value) if isinstance(value, tuple) else value


def hosted_resize(height: int, width: int, max_tokens: int) -> list[int]:
    """The guide's sample code for pictures. It knows no limit of the ratio of the sides, and a side of a thin
    picture may come out as 0."""
    h, w = (round(side / FACTOR) * FACTOR for side in (height, width))
    if h * w > max_tokens * TOKEN:
        shrink = math.sqrt(height * width / (max_tokens * TOKEN))
        h, w = (math.floor(side / shrink / FACTOR) * FACTOR for side in (height, width))
    elif h * w < 4 * TOKEN:
        grow = math.sqrt(4 * TOKEN / (height * width))
        h, w = (math.ceil(side * grow / FACTOR) * FACTOR for side in (height, width))
    return [h, w]


def hosted_frame_count(total: int, video_fps: float, fps: float, cap: int = 512) -> int:
    """The guide's sample code for frames: it leaves out a last second that is too short to hold a frame."""
    most = min(cap, total) // 2 * 2
    seconds = total / video_fps
    whole = int(seconds)
    used = math.ceil((seconds if seconds - whole > 1 / fps else whole) * video_fps)
    count = int(min(max(used / video_fps * fps, 4), most, used))
    if not 2 <= count <= used:
        raise ValueError(f"{count} frames of {used}")
    return count


def clip_limits(frames: int, total_pixels: int) -> list[float]:
    """Least and most pixels of each frame, as qwen-vl-utils' fetch_video computes them."""
    least = 128 * TOKEN
    return [least, max(min(768 * TOKEN, total_pixels / frames * 2), int(least * 1.05))]

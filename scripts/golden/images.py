"""images.json and .safetensors: pictures decoded and resized by Pillow, normalised and cut into patches by the
Pillow-based processor of Transformers."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image, ImageOps

from .files import Folder

MIN_PIXELS, MAX_PIXELS = 4 * 784, 16384 * 784
# `pixel_values` of pictures with no more tokens than this are kept whole; of others, 64 samples.
WHOLE_UP_TO_TOKENS = 10


def write(folder: Folder) -> None:
    report, tensors = {}, {}
    for key, spec in folder.cases["pictures"].items():
        decoded, resized, values, grid = prepare(folder, key)
        report[key] = {
            "file": spec["file"],
            "mode": spec["mode"],
            "max_pixels": spec.get("max_pixels", MAX_PIXELS),
            "decoded_hw": list(decoded.shape[:2]),
            "decoded_sha256": sha256(decoded),
            "resized_hw": list(resized.shape[:2]),
            "resized_sha256": sha256(resized),
            "tokens": len(values) // 4,
            "pixel_values_shape": list(values.shape),
            **summary(values, grid),
        }
        # The lossless pictures can be resized again by whoever reads this; a JPEG's pixels depend on its decoder.
        if spec["file"].endswith((".jpg", ".jpeg")) or len(values) // 4 <= 24:
            tensors[f"{key}.resized"] = resized
        if len(values) // 4 <= WHOLE_UP_TO_TOKENS:
            tensors[f"{key}.pixel_values"] = values
    if clip := folder.cases.get("clip"):
        for key, count in (("video", None), ("video_odd", 5)):
            frames = clip_frames(folder)[:count]
            values, grid = patches_of_frames(frames)
            report[key] = {"file": clip["file"], "frames": f"{len(frames)} frames, not resized", **summary(values, grid)}
    ramp = np.arange(2 * 56 * 84 * 3, dtype=np.float32).reshape(2, 56, 84, 3)
    values, grid = patches_of_frames(ramp, do_rescale=False, do_normalize=False)
    report["patch_layout"] = {
        "input": "frames[t,y,x,c] = flat index of a (2,56,84,3) array, not normalized",
        "grid_thw": grid,
        "column_0_of_each_row": values[:, 0].astype(int).tolist(),
        "row_0_columns": {str(c): int(values[0, c]) for c in (0, 1, 13, 14, 195, 196, 391, 392, 588, 783, 784, 1175)},
    }
    folder.write_json("images.json", report)
    folder.write_tensors("images.safetensors", tensors)


def prepare(folder: Folder, key: str):
    """Decoded (h, w, 3) u8, resized (h, w, 3) u8, pixel values (n, 1176) f32 and grid of a picture of the cases."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    spec = folder.cases["pictures"][key]
    most = spec.get("max_pixels", MAX_PIXELS)
    decoded = decode(folder.images / spec["file"], spec["mode"])
    image = Image.fromarray(decoded)
    height, width = smart_resize(image.height, image.width, 28, MIN_PIXELS, most)
    resized = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    batch = Qwen2VLImageProcessorPil(min_pixels=MIN_PIXELS, max_pixels=most)(images=[image], return_tensors="np")
    return decoded, resized, batch["pixel_values"], batch["image_grid_thw"][0].tolist()


def decode(path, mode: str) -> np.ndarray:
    """u8 (h, w, 3). "rgb": as stored, alpha dropped; "white": alpha over white; "exif": turned upright."""
    image = Image.open(path)
    if mode == "exif":
        image = ImageOps.exif_transpose(image)
    elif mode == "white":
        image = image.convert("RGBA")
        base = Image.new("RGB", image.size, "white")
        base.paste(image, mask=image.getchannel("A"))
        image = base
    return np.array(image.convert("RGB"))


def clip_frames(folder: Folder) -> np.ndarray:
    """The frames (n, h, w, 3) u8 of the strip in which they lie under each other."""
    clip = folder.cases["clip"]
    strip = decode(folder.images / clip["file"], "rgb")
    return strip.reshape(-1, clip["frame_height"], strip.shape[1], 3)


def patches_of_frames(frames: np.ndarray, **options):
    """Patches and grid of frames that keep their size, by the video processor of Transformers."""
    import torch
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    options = {"do_resize": False, "do_convert_rgb": False, "do_sample_frames": False, **options}
    batch = Qwen2VLVideoProcessor(cap_pixels_per_frame=True)(videos=[clip], return_tensors="pt", **options)
    return batch["pixel_values_videos"].numpy(), batch["video_grid_thw"][0].tolist()


def summary(values: np.ndarray, grid: list[int]) -> dict:
    at = np.random.Generator(np.random.PCG64(values.size)).integers(0, values.size, 64)
    at = sorted(int(i) for i in at)
    return {
        "grid_thw": grid,
        "pixel_values_mean": float(values.astype(np.float64).mean()),
        "sample_flat_index": at,
        "sample_value": [float(v) for v in values.ravel()[at]],
    }


def sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()

"""Measures Transformers on the processor and prints one JSON object.

    python transformers_peer.py encode CONFIG --threads 2 --size 448x448
    python transformers_peer.py preprocess PICTURE --processor slow|fast --threads 2

The vision tower has random weights in bf16 and attends through sdpa; pictures are cut into patches beforehand, and no
two are the same. The processors get a JPEG's bytes and give patches, decoding included, as a program would do it.
"""

import argparse
import io
import json
import time

import torch


def encode(arguments):
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    config = Qwen2_5_VLConfig(**json.load(open(arguments.input))).vision_config
    config._attn_implementation = "sdpa"
    # PyTorch's own random weights are as good as any.
    tower = Qwen2_5_VisionTransformerPretrainedModel(config).to(torch.bfloat16).eval()
    width, height = (int(side) for side in arguments.size.split("x"))
    grid = torch.tensor([[1, height // 14, width // 14]])
    times = []
    with torch.inference_mode():
        for repetition in range(arguments.repetitions + 1):
            patches = torch.randn(height // 14 * (width // 14), 1176).to(torch.bfloat16)
            started = time.perf_counter()
            tower(patches, grid_thw=grid)
            if repetition:
                times.append(time.perf_counter() - started)
    return {"times_s": times, "tokens": height // 28 * (width // 28)}


def preprocess(arguments):
    from PIL import Image

    if arguments.processor == "fast":
        from transformers import Qwen2VLImageProcessor as Processor
    else:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil as Processor
    processor = Processor(min_pixels=4 * 28 * 28, max_pixels=arguments.max_pixels)
    data = open(arguments.input, "rb").read()
    times, shape = [], None
    for repetition in range(arguments.repetitions + 1):
        started = time.perf_counter()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        shape = processor(images=[picture], return_tensors="pt")["pixel_values"].shape
        if repetition:
            times.append(time.perf_counter() - started)
    return {"times_s": times, "patches": shape[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encode", "preprocess"])
    parser.add_argument("input")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--size")
    parser.add_argument("--processor", choices=["slow", "fast"])
    parser.add_argument("--max-pixels", type=int, default=1280 * 28 * 28)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"encode": encode, "preprocess": preprocess}[arguments.what](arguments)))


if __name__ == "__main__":
    main()

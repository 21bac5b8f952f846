"""Measures torch and Transformers on the same work and prints one JSON object a line, as soon as each is known.

    python torch_peer.py models/7b/config.json --device cuda decode-eager decode-compiled prefill:1276 vision:1120x896

Weights are random, in bf16, and attention is torch's own (sdpa). Decoding takes the likeliest token of each step from
the device before the next one begins, as a program that shows text must; the compiled one has a cache of fixed size and
replays a graph. `limits` measures what the device reaches at best: bytes read and written by a copy, and a large matrix
product. What fails is a line too, with the reason, and stops nothing.
"""

import argparse
import inspect
import json
import statistics
import time

import torch


class Peer:
    def __init__(self, config, device):
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        self.device = torch.device(device)
        self.config = Qwen2_5_VLConfig(**json.loads(open(config, encoding="utf-8").read()))
        with self.device:
            model = Qwen2_5_VLForConditionalGeneration._from_config(
                self.config, dtype=torch.bfloat16, attn_implementation="sdpa"
            )
        self.model = model.eval()
        self.text = self.model.model.language_model
        # Releases differ in what they call the cache and in what they must be told.
        self.parameters = inspect.signature(self.text.forward).parameters
        self.cache_name = "cache" if "cache" in self.parameters else "past_key_values"

    def text_config(self):
        return self.config.get_text_config()

    def step(self, ids, start, cache):
        """Logits of the last token of each row of `ids`, which follow `start` tokens in the cache."""
        count = ids.shape[1]
        places = torch.arange(count, device=ids.device) + start
        named = {self.cache_name: cache, "position_ids": places.view(1, 1, -1).expand(3, ids.shape[0], -1)}
        if "cache_position" in self.parameters:
            named["cache_position"] = places
        hidden = self.text(input_ids=ids, use_cache=True, **named).last_hidden_state
        return self.model.lm_head(hidden[:, -1])

    def random_ids(self, rows, count):
        return torch.randint(0, self.text_config().vocab_size, (rows, count), device=self.device)

    def decode(self, depth, sequences, steps, compiled):
        from transformers import DynamicCache, StaticCache

        config = self.text_config()
        cache = StaticCache(config=config, max_cache_len=depth + steps + 16) if compiled else DynamicCache()
        for start in range(0, depth, 512):
            self.step(self.random_ids(sequences, min(512, depth - start)), start, cache)
        ids = self.random_ids(sequences, 1)
        start = torch.tensor(depth, device=self.device)

        def once(ids, start):
            return self.step(ids, start, cache).argmax(-1, keepdim=True), start + 1

        if compiled:
            torch._dynamo.reset()
            once = torch.compile(once, mode="reduce-overhead")
        times = []
        # The first ones compile and record.
        warm = 6 if compiled else 2
        for count in range(warm + steps - 6):
            started = time.perf_counter()
            ids, start = (value.clone() for value in once(ids, start))
            ids.tolist()
            if count >= warm:
                times.append(time.perf_counter() - started)
        return times

    def prefill(self, tokens, repetitions):
        from transformers import DynamicCache

        return self.timed(repetitions, lambda: self.step(self.random_ids(1, tokens), 0, DynamicCache()))

    def vision(self, width, height, repetitions):
        tower = self.model.model.visual
        grid = torch.tensor([[1, height // 14, width // 14]], device=self.device)
        patches = lambda: torch.randn(  # noqa: E731
            height // 14 * (width // 14), 1176, device=self.device, dtype=torch.bfloat16
        )
        return self.timed(repetitions, lambda given: tower(given, grid_thw=grid), patches)

    def timed(self, repetitions, work, given=None):
        times = []
        for repetition in range(repetitions + 1):
            arguments = (given(),) if given else ()
            self.wait()
            started = time.perf_counter()
            work(*arguments)
            self.wait()
            if repetition:
                times.append(time.perf_counter() - started)
        return times

    def wait(self):
        wait(self.device)


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits(device, small):
    """Bytes a second that a copy reads and writes, and operations a second of a bf16 product of random matrices."""
    device = torch.device(device)
    length, side = (1 << 20, 256) if small else (1 << 31, 8192)
    source = torch.empty(length, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = {}
    for name, work, amount in [
        ("copy_bytes_per_s", lambda: target.copy_(source), 2 * length),
        ("bf16_flop_per_s", lambda: a @ b, 2 * side**3),
    ]:
        times = []
        for _ in range(12):
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            times.append(time.perf_counter() - started)
        best[name] = amount / statistics.median(times[2:])
    return best


def spread(times):
    ordered = sorted(times)
    at = lambda share: 1e3 * ordered[round(share * (len(ordered) - 1))]  # noqa: E731
    return {"time_ms": 1e3 * statistics.median(ordered), "p10_ms": at(0.1), "p90_ms": at(0.9), "n": len(ordered)}


def measure(peer, what, options):
    name, _, value = what.partition(":")
    if name in ("decode-eager", "decode-compiled"):
        sequences = int(value or 1)
        return spread(peer.decode(options.depth, sequences, options.steps, name == "decode-compiled"))
    if name == "prefill":
        return spread(peer.prefill(int(value), options.repetitions))
    if name == "vision":
        return spread(peer.vision(*(int(side) for side in value.split("x")), options.repetitions))
    raise ValueError(f"{what} is nothing that can be measured")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("what", nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--depth", type=int, default=1300)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=4)
    options = parser.parse_args()

    import transformers

    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}), flush=True)
    peer = None
    for what in options.what:
        try:
            with torch.no_grad():
                if what == "limits":
                    found = limits(options.device, options.device == "cpu")
                else:
                    peer = peer or Peer(options.config, options.device)
                    found = measure(peer, what, options)
        except Exception as error:  # noqa: BLE001
            found = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}"}
        print(json.dumps({"what": what, **found}), flush=True)


if __name__ == "__main__":
    main()

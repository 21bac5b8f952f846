"""Measures llama.cpp through the low-level interface of llama-cpp-python and prints one JSON object.

    python llama.py decode MODEL --threads 2 --depth 1024 --sequences 1 --steps 16
    python llama.py prefill MODEL --threads 2 --tokens 1276
    python llama.py load MODEL --threads 2
    python llama.py encode MMPROJ --text SMALL_MODEL --threads 2 --size 448x448

As llama-bench: random tokens, 512 at a time, keys and values in f16, flash attention left to the library; one
computation that does not count goes before.
"""

import argparse
import ctypes
import json
import random
import resource
import time

import llama_cpp

# What is said while loading goes nowhere; the reference keeps the callback alive.
SILENT = llama_cpp.llama_log_callback(lambda level, message, data: None)


class Context:
    """A loaded model with room for some sequences."""

    def __init__(self, path, threads, tokens, sequences):
        llama_cpp.llama_log_set(SILENT, None)
        llama_cpp.llama_backend_init()
        started = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = tokens * sequences + 256
        parameters.n_batch = 2048
        parameters.n_ubatch = 512
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context for {path}")
        self.load_s = time.perf_counter() - started
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def compute(self, rows):
        """Seconds for rows of (position, sequence, whether its logits are wanted), each with a random token."""
        self.batch.n_tokens = len(rows)
        for i, (position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = random.randrange(self.words)
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        started = time.perf_counter()
        status = llama_cpp.llama_decode(self.context, self.batch)
        llama_cpp.llama_synchronize(self.context)
        if status:
            raise SystemExit(f"llama_decode gives {status}")
        return time.perf_counter() - started

    def prompt(self, tokens, sequence=0):
        rows = [(i, sequence, i == tokens - 1) for i in range(tokens)]
        return sum(self.compute(rows[i : i + 2048]) for i in range(0, tokens, 2048))


def decode(arguments):
    depth, sequences, steps = arguments.depth, arguments.sequences, arguments.steps
    context = Context(arguments.model, arguments.threads, depth + steps + 1, sequences)
    for sequence in range(sequences if depth else 0):
        context.prompt(depth, sequence)
    times = [context.compute([(depth + i, s, True) for s in range(sequences)]) for i in range(steps + 1)]
    return {"times_s": times[1:], "tokens": sequences}


def prefill(arguments):
    context = Context(arguments.model, arguments.threads, arguments.tokens, 1)
    context.prompt(min(32, arguments.tokens))
    context.forget()
    return {"times_s": [context.prompt(arguments.tokens)], "tokens": arguments.tokens}


def load(arguments):
    started = time.perf_counter()
    context = Context(arguments.model, arguments.threads, 64, 1)
    context.compute([(0, 0, True)])
    return {"times_s": [context.load_s], "first_token_s": time.perf_counter() - started, "tokens": 1}


def encode(arguments):
    from llama_cpp import mtmd_cpp

    width, height = (int(side) for side in arguments.size.split("x"))
    mtmd_cpp.mtmd_helper_log_set(SILENT, None)
    context = Context(arguments.text, arguments.threads, 64, 1)
    parameters = mtmd_cpp.mtmd_context_params_default()
    parameters.use_gpu = False
    parameters.n_threads = arguments.threads
    parameters.print_timings = False
    parameters.warmup = False
    tower = mtmd_cpp.mtmd_init_from_file(arguments.model.encode(), context.model, parameters)
    if not tower:
        raise SystemExit(f"llama.cpp does not load {arguments.model}")
    times, tokens = [], 0
    # The first takes memory that the second finds.
    for _ in range(2):
        pixels = (ctypes.c_uint8 * (width * height * 3)).from_buffer_copy(random.randbytes(width * height * 3))
        bitmap = mtmd_cpp.mtmd_bitmap_init(width, height, pixels)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        marker = mtmd_cpp.mtmd_default_marker()
        text = mtmd_cpp.mtmd_input_text(marker, len(marker), False, True)
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        status = mtmd_cpp.mtmd_tokenize(tower, chunks, ctypes.byref(text), bitmaps, 1)
        if status:
            raise SystemExit(f"mtmd_tokenize gives {status}")
        count = mtmd_cpp.mtmd_input_chunks_size(chunks)
        all_chunks = [mtmd_cpp.mtmd_input_chunks_get(chunks, i) for i in range(count)]
        # 1 is MTMD_INPUT_CHUNK_TYPE_IMAGE.
        chunk = next(chunk for chunk in all_chunks if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == 1)
        started = time.perf_counter()
        status = mtmd_cpp.mtmd_encode_chunk(tower, chunk)
        times.append(time.perf_counter() - started)
        if status:
            raise SystemExit(f"mtmd_encode_chunk gives {status}")
        tokens = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
    return {"times_s": times[1:], "tokens": tokens}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["decode", "prefill", "load", "encode"])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--text")
    parser.add_argument("--size")
    arguments = parser.parse_args()
    result = {"decode": decode, "prefill": prefill, "load": load, "encode": encode}[arguments.what](arguments)
    # The largest resident set, which Linux counts in KiB.
    result["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Writes a checkpoint whose decoder went through one of llama.cpp's quantizers: the values that its codes stand for.

    python quantizers.py LIBRARY FOLDER OUT Q8_0|Q4_0|Q4_K

LIBRARY is libggml-base. A matrix is quantized as one long row, so that blocks of 256 fit one of any width. What is not a
matrix of a layer, the table of embeddings and the head too, is copied: the layers alone are compared.
"""

import ctypes
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy

# Their numbers in ggml.h.
TYPES = {"Q4_0": 2, "Q8_0": 8, "Q4_K": 12}


class Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleaved", ctypes.c_int64), ("size", ctypes.c_size_t),
        ("quantized", ctypes.c_bool), ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]  # fmt: skip


class Quantizer:
    def __init__(self, library, kind):
        self.ggml, self.type = ctypes.CDLL(library), TYPES[kind]
        self.ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
        self.ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.ggml.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]  # fmt: skip
        self.traits = self.ggml.ggml_get_type_traits(self.type).contents
        name = self.traits.name.decode().upper()
        if name != kind:
            sys.exit(f"{library}: type {self.type} is {name}, expected {kind}")

    def __call__(self, values):
        values = numpy.ascontiguousarray(values, numpy.float32)
        n = values.size
        if n % self.traits.block:
            sys.exit(f"a matrix of {n} values does not fill blocks of {self.traits.block}")
        codes = numpy.zeros(n // self.traits.block * self.traits.size, numpy.uint8)
        written = self.ggml.ggml_quantize_chunk(self.type, values.ctypes.data, codes.ctypes.data, 0, 1, n, None)
        assert written == codes.size, (written, codes.size)
        found = numpy.empty(n, numpy.float32)
        self.traits.to_float(codes.ctypes.data, found.ctypes.data, n)
        return found.reshape(values.shape)


def main():
    library, folder, out, kind = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    quantize = Quantizer(library, kind)
    out.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix != ".safetensors" and file.is_file() and not file.name.endswith(".index.json"):
            shutil.copy(file, out)
    header, data, changed = {}, bytearray(), 0
    for file in sorted(folder.glob("*.safetensors")):
        raw = file.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        for name, tensor in json.loads(raw[8 : 8 + length]).items():
            if name == "__metadata__":
                continue
            first, end = tensor["data_offsets"]
            values = numpy.frombuffer(raw[8 + length + first : 8 + length + end], numpy.uint8)
            if tensor["dtype"] == "BF16":
                values = (values.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
            elif tensor["dtype"] == "F32":
                values = values.view(numpy.float32)
            else:
                sys.exit(f"{file}: {name} is {tensor['dtype']}, expected BF16 or F32")
            values = values.reshape(tensor["shape"])
            if ".layers." in name and values.ndim == 2:
                values = quantize(values)
                changed += 1
            header[name] = {"dtype": "F32", "shape": tensor["shape"], "data_offsets": [len(data), len(data) + values.nbytes]}
            data += values.tobytes()
    if not changed:
        sys.exit(f"{folder} has no matrix of a layer")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()

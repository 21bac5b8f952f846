// Causal attention of few queries for the narrower heads of small models. A file of its own, so that the driver compiles
// these kernels only where they are used; see `decode.cuh`.
#include "attention/decode.cuh"

DECODE(16)
DECODE(32)
DECODE(64)

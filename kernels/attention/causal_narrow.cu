// Causal attention in tiles for the narrower heads of small models. A file of its own, so that the driver compiles these
// kernels only where they are used; see `causal.cuh`.
#include "attention/causal.cuh"

CAUSAL(16)
CAUSAL(32)
CAUSAL(64)

// Attention within segments for the narrower heads of small models. A file of its own, so that the driver compiles these
// kernels only where they are used; see `varlen.cuh`.
#include "attention/varlen.cuh"

VARLEN(16)
VARLEN(32)
VARLEN(64)

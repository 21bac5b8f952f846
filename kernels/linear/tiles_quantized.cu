// Products of many tokens with weights of 8 or 4 bits; see tiles.cuh and codes.cuh.
//
// Codes go to shared memory as they are stored and are widened in registers, by each of the two warps that share their
// rows: some 80 instructions of a warp for each 32 features beside 32 `mma`, which keep the tensor cores of a quarter
// of a multiprocessor busy for 256 cycles.

#include "tiles.cuh"

// hot: linear_large_int8 linear_small_int8 linear_large_int4 linear_small_int4
TILES(INT8, int8)
TILES(INT4, int4)
// hot: linear_large_int4_zero linear_small_int4_zero
TILES(INT4_ZERO, int4_zero)

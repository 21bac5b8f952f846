// Products of many tokens with bf16 weights; see tiles.cuh.

#include "tiles.cuh"

// hot: linear_large_bf16 linear_small_bf16
TILES(BF16, bf16)

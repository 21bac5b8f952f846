// Products of up to 64 tokens with bf16 weights; see skinny.cuh.

#include "skinny.cuh"

// Steps and stages are those of `SKINNY` in cuda/select.rs.
// hot: linear_skinny_8_bf16 linear_skinny_16_bf16 linear_skinny_32_bf16 linear_skinny_64_bf16
SKINNY(BF16, bf16, 8, 128, 6)
SKINNY(BF16, bf16, 16, 128, 5)
SKINNY(BF16, bf16, 32, 64, 6)
SKINNY(BF16, bf16, 64, 64, 4)

// Products of up to 64 tokens with weights of 8 or 4 bits; see skinny.cuh and codes.cuh.
//
// **The floor.** 8.5 or 4.5 bits a weight: 7B's two up projections in four bits, 76 MB, take 19 us at 4.0 TB/s. At that
// rate a multiprocessor widens 32 weights a cycle: two instructions for a pair's whole numbers and one for its scale,
// with shifts and the scales' own some 2 for each lane's pair, make 2 of the 4 instructions that it starts in a cycle.
// A step is 256 features for up to 8 tokens, since a weight has fewer bytes: 2304 a warp in four bits, 4352 in eight.

#include "skinny.cuh"

// Steps and stages are those of `SKINNY` in cuda/select.rs.
// hot: linear_skinny_8_int8 linear_skinny_16_int8 linear_skinny_32_int8 linear_skinny_64_int8
SKINNY(INT8, int8, 8, 256, 5)
SKINNY(INT8, int8, 16, 128, 6)
SKINNY(INT8, int8, 32, 64, 6)
SKINNY(INT8, int8, 64, 64, 4)
// hot: linear_skinny_8_int4 linear_skinny_16_int4 linear_skinny_32_int4 linear_skinny_64_int4
SKINNY(INT4, int4, 8, 256, 6)
SKINNY(INT4, int4, 16, 128, 6)
SKINNY(INT4, int4, 32, 64, 6)
SKINNY(INT4, int4, 64, 64, 4)
// hot: linear_skinny_8_int4_zero linear_skinny_16_int4_zero linear_skinny_32_int4_zero linear_skinny_64_int4_zero
SKINNY(INT4_ZERO, int4_zero, 8, 256, 6)
SKINNY(INT4_ZERO, int4_zero, 16, 128, 6)
SKINNY(INT4_ZERO, int4_zero, 32, 64, 6)
SKINNY(INT4_ZERO, int4_zero, 64, 64, 4)

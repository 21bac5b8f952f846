// SwiGLU's gate, for products that do not gate while they store.
//
// Floor: three elements moved for each result; bf16, 4,096 tokens of 18,944: 466 MB, 116 us at 4 TB/s. Arithmetic must
// not take longer: at 6 bytes an element 4 TB/s are 670 G elements/s, of which an H100 can give each some 40
// instructions. In bf16 the exponential and the quotient are therefore the approximate ones (2 units in the last place
// of f32), about 20 instructions with the conversions; in f32, which the tests use, they are exact to rounding.

#include "eights.cuh"

__device__ inline float silu_mul_fast(float gate, float up) {
    // e^-gate is infinite below -88, whose reciprocal is zero.
    return gate * reciprocal_fast(1.0f + exp2_fast(gate * -1.44269504f)) * up;
}

extern "C" __global__ void __launch_bounds__(256) silu_mul_bf16(
    const bf16* gate, const bf16* up, bf16* y, u64 n, u32 aligned) {
    zip_eights(gate, up, y, n, aligned, [](float gate, float up) { return silu_mul_fast(gate, up); });
}

extern "C" __global__ void __launch_bounds__(256) silu_mul_f32(
    const float* gate, const float* up, float* y, u64 n, u32 aligned) {
    zip_eights(gate, up, y, n, aligned, [](float gate, float up) { return gate / (1.0f + expf(-gate)) * up; });
}

// Addition to the residual, f32.
//
// Floor: 12 bytes for each element (10 where `b` is bf16): read both, write one. 4,096 tokens of 3,584: 176 MB, 44 us
// at 4 TB/s; a single token's row is nothing but the launch. Products add to the residual themselves, so that a model
// has none of these on its way. Each thread moves 96 bytes; about 30 registers leave all 2,048 threads of a
// multiprocessor resident.

#include "eights.cuh"

extern "C" __global__ void __launch_bounds__(256) add_f32(
    const float* a, const float* b, float* sum, u64 n, u32 aligned) {
    zip_eights(a, b, sum, n, aligned, [](float a, float b) { return a + b; });
}

extern "C" __global__ void __launch_bounds__(256) add_bf16(
    const float* a, const bf16* b, float* sum, u64 n, u32 aligned) {
    zip_eights(a, b, sum, n, aligned, [](float a, float b) { return a + b; });
}

// Rows of activations as products take them: bf16, filled up with zeros to a multiple of 16 bytes. Models whose widths are
// multiples of 8 never come here. Bounded by the memory: every element is read and written once.

#include "device.cuh"

__device__ inline bf16 rounded(float x) { return to_bf16(x); }
__device__ inline bf16 rounded(bf16 x) { return x; }

// `n` elements of `to: (tokens, filled)` from `from: (tokens, width)`.
template <typename T>
__device__ inline void fill_up(const T* from, bf16* to, u32 width, u32 filled, u64 n) {
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += u64(gridDim.x) * blockDim.x) {
        u64 token = i / filled, feature = i % filled;
        to[i] = feature < width ? rounded(from[token * width + feature]) : bf16{0};
    }
}

extern "C" __global__ void linear_fill_up_f32(const float* from, bf16* to, u32 width, u32 filled, u64 n) {
    fill_up(from, to, width, filled, n);
}

extern "C" __global__ void linear_fill_up_bf16(const bf16* from, bf16* to, u32 width, u32 filled, u64 n) {
    fill_up(from, to, width, filled, n);
}

// Copies that change the layout or the type of elements, one element at a time. Each is bounded by the memory: it reads
// and writes every element once, neighbouring threads neighbouring elements. None is on the path of a decode step.

#include "eights.cuh"

// Columns `0..width` of rows that are `pitch` elements long, put side by side. `n` is the number of elements written.
template <typename T>
__device__ void copy_columns(const T* from, T* to, u64 pitch, u64 width, u64 n) {
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += u64(gridDim.x) * blockDim.x) {
        to[i] = from[i / width * pitch + i % width];
    }
}

extern "C" __global__ void copy_columns_16(const u16* from, u16* to, u64 pitch, u64 width, u64 n) {
    copy_columns(from, to, pitch, width, n);
}

extern "C" __global__ void copy_columns_32(const u32* from, u32* to, u64 pitch, u64 width, u64 n) {
    copy_columns(from, to, pitch, width, n);
}

// Between f32 and bf16: 6 bytes for each element, eight elements to a thread.
extern "C" __global__ void __launch_bounds__(256) narrow_to_bf16(const float* from, bf16* to, u64 n, u32 aligned) {
    map_eights(from, to, n, aligned, [](float x) { return x; });
}

extern "C" __global__ void __launch_bounds__(256) widen_to_f32(const bf16* from, float* to, u64 n, u32 aligned) {
    map_eights(from, to, n, aligned, [](float x) { return x; });
}

// Eight neighbouring elements at once: the 16 bytes that a thread loads best, or twice as many where they are f32.
// Operations on single elements give each thread eight of them; at 2,048 threads of a multiprocessor and 16 bytes or
// more of each on their way, latency is hidden several times over.

#pragma once

#include "device.cuh"

// `from` is aligned to 16 bytes.
__device__ inline void load_eight(const float* from, float (&x)[8]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

__device__ inline void load_eight(const bf16* from, float (&x)[8]) {
    const uint4 pairs = *reinterpret_cast<const uint4*>(from);
    x[0] = low_float(pairs.x), x[1] = high_float(pairs.x);
    x[2] = low_float(pairs.y), x[3] = high_float(pairs.y);
    x[4] = low_float(pairs.z), x[5] = high_float(pairs.z);
    x[6] = low_float(pairs.w), x[7] = high_float(pairs.w);
}

// `to` is aligned to 16 bytes.
__device__ inline void store_eight(float* to, const float (&x)[8]) {
    reinterpret_cast<float4*>(to)[0] = float4{x[0], x[1], x[2], x[3]};
    reinterpret_cast<float4*>(to)[1] = float4{x[4], x[5], x[6], x[7]};
}

__device__ inline void store_eight(bf16* to, const float (&x)[8]) {
    *reinterpret_cast<uint4*>(to) =
        uint4{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
}

__device__ inline float load_one(const float* from) { return *from; }
__device__ inline float load_one(const bf16* from) { return to_float(*from); }
__device__ inline void store_one(float* to, float x) { *to = x; }
__device__ inline void store_one(bf16* to, float x) { *to = to_bf16(x); }

// `y[i] = f(x[i])` for `n` elements, eight to a thread. `aligned`: whether all pointers are, to 16 bytes; tensors that
// begin within others need not be.
template <typename X, typename Y, typename F>
__device__ void map_eights(const X* x, Y* y, u64 n, u32 aligned, F f) {
    const u64 first = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (aligned && first + 8 <= n) {
        float values[8];
        load_eight(x + first, values);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = f(values[i]);
        store_eight(y + first, values);
        return;
    }
    for (u64 i = first; i < n && i < first + 8; i++) store_one(y + i, f(load_one(x + i)));
}

// `z[i] = f(x[i], y[i])`, likewise. `z` may be `x`.
template <typename X, typename Y, typename Z, typename F>
__device__ void zip_eights(const X* x, const Y* y, Z* z, u64 n, u32 aligned, F f) {
    const u64 first = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (aligned && first + 8 <= n) {
        float a[8], b[8];
        load_eight(x + first, a);
        load_eight(y + first, b);
#pragma unroll
        for (int i = 0; i < 8; i++) a[i] = f(a[i], b[i]);
        store_eight(z + first, a);
        return;
    }
    for (u64 i = first; i < n && i < first + 8; i++) store_one(z + i, f(load_one(x + i), load_one(y + i)));
}

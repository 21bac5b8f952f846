// The rotation of eight elements of a head together with the eight half a head further on, as every kernel does it that
// rotates: `y = x * cos + rotate_half(x) * sin`, in f32, from bf16 to bf16.
#pragma once
#include "device.cuh"

namespace rotary {

// Eight neighbouring cosines or sines.
struct Eight {
    float values[8];

    __device__ __forceinline__ explicit Eight(const float* from) {
        const float4 a = *reinterpret_cast<const float4*>(from), b = *reinterpret_cast<const float4*>(from + 4);
        values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
        values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
    }
};

// `low` and `high` are both halves' elements, two to a word, and are replaced by the rotated ones.
__device__ __forceinline__ void rotate(uint4& low, uint4& high, const Eight& cos, const Eight& sin) {
    u32 first[4] = {low.x, low.y, low.z, low.w}, second[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float c0 = cos.values[2 * i], c1 = cos.values[2 * i + 1];
        const float s0 = sin.values[2 * i], s1 = sin.values[2 * i + 1];
        const float x0 = low_float(first[i]), x1 = high_float(first[i]);
        const float y0 = low_float(second[i]), y1 = high_float(second[i]);
        first[i] = pack_bf16(x0 * c0 - y0 * s0, x1 * c1 - y1 * s1);
        second[i] = pack_bf16(y0 * c0 + x0 * s0, y1 * c1 + x1 * s1);
    }
    low = make_uint4(first[0], first[1], first[2], first[3]);
    high = make_uint4(second[0], second[1], second[2], second[3]);
}

}  // namespace rotary

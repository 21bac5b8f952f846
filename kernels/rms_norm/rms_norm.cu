// RMSNorm: one block for each row, f32 in and bf16 out.
//
// A row of n features moves 4n bytes in, 4n of weights (which stay in the second-level cache, as all rows share them) and
// 2n out, for 4n operations: the memory bounds it. The second pass over the row finds it in the first-level cache. At 256
// threads and 32 bytes of shared memory eight blocks share a multiprocessor, so loads of some rows hide behind the
// reductions of others. A single row, as in decode, is bounded by the latency of two passes and one reduction: 2 to 3 µs.

#include "device.cuh"

// The sum of `value` over all threads of a block, for every thread. `room` holds one float for each warp.
__device__ inline float block_sum(float value, float* room) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) {
        room[threadIdx.x / 32] = value;
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
        sum += room[warp];
    }
    return sum;
}

// out[row] = x[row] / sqrt(mean(x[row]^2) + eps) * weight. Whole: features is a multiple of 4, so that rows are aligned.
template <bool WHOLE>
__device__ void rms_norm(const float* x, const float* weight, bf16* out, u32 features, float eps) {
    SHARED_MEMORY(shared);
    x += u64(blockIdx.x) * features;
    out += u64(blockIdx.x) * features;
    float sum = 0.0f;
    if constexpr (WHOLE) {
        for (u32 i = threadIdx.x; i < features / 4; i += blockDim.x) {
            float4 v = reinterpret_cast<const float4*>(x)[i];
            sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
    } else {
        for (u32 i = threadIdx.x; i < features; i += blockDim.x) {
            sum += x[i] * x[i];
        }
    }
    sum = block_sum(sum, reinterpret_cast<float*>(shared));
    float scale = 1.0f / sqrtf(sum / float(features) + eps);
    if constexpr (WHOLE) {
        for (u32 i = threadIdx.x; i < features / 4; i += blockDim.x) {
            float4 v = reinterpret_cast<const float4*>(x)[i];
            float4 w = reinterpret_cast<const float4*>(weight)[i];
            uint2 packed;
            packed.x = pack_bf16(v.x * scale * w.x, v.y * scale * w.y);
            packed.y = pack_bf16(v.z * scale * w.z, v.w * scale * w.w);
            reinterpret_cast<uint2*>(out)[i] = packed;
        }
    } else {
        for (u32 i = threadIdx.x; i < features; i += blockDim.x) {
            out[i] = to_bf16(x[i] * scale * weight[i]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bf16(const float* x, const float* weight, bf16* out, u32 features, float eps) {
    if (features % 4 == 0) {
        rms_norm<true>(x, weight, out, features, eps);
    } else {
        rms_norm<false>(x, weight, out, features, eps);
    }
}

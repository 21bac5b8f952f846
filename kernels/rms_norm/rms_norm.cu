// Root mean square normalisation, f32 in, bf16 out, for the products that come after.
//
// Floor: 6 bytes for each element; the weight stays in the cache. 4,096 tokens of 3,584: 88 MB, 22 us at 4 TB/s; the
// tower's 16,384 patches of 1,280: 126 MB, 31 us. A step's single row is one block: a launch, one trip to memory for
// the row and one for the weight.
//
// A row is read once, 16 bytes a thread at a time, and kept in registers between its sum and its scaling. Rows up to
// 1,280 wide belong to one warp, eight to a block, so that the tower's many narrow rows need no barrier; wider ones to
// a block of 256. 40 to 64 registers: 1,024 threads or more of a multiprocessor resident, each with 16 to 160 bytes on
// their way. What is wider still, or not aligned, is read twice.

#include "device.cuh"

// The sum over a block of 256 threads.
__device__ inline float sum_of_block(float x) {
    SHARED_MEMORY(shared);
    float* sums = reinterpret_cast<float*>(shared);
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += sums[i];
    return sum;
}

// `THREADS` (32 or 256) share a row; each keeps up to `FOURS` times four elements.
template <u32 THREADS, u32 FOURS>
__device__ void in_registers(const float* x, const float* weight, bf16* y, u32 rows, u32 features, float eps) {
    const u32 row = blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS;
    const u32 thread = threadIdx.x % THREADS, fours = features / 4;
    if (row >= rows) return;
    const float4* from = reinterpret_cast<const float4*>(x + u64(row) * features);
    float4 kept[FOURS];
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < FOURS; i++) {
        const u32 four = thread + i * THREADS;
        kept[i] = four < fours ? from[four] : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
#pragma unroll
    for (u32 i = 0; i < FOURS; i++) {
        sum += kept[i].x * kept[i].x + kept[i].y * kept[i].y + kept[i].z * kept[i].z + kept[i].w * kept[i].w;
    }
    const float4* weights = reinterpret_cast<const float4*>(weight);
    // A block's weights are on their way while its sum is: where there is but one row, nothing else hides that trip.
    constexpr bool EARLY = THREADS == 256;
    float4 w[FOURS];
#pragma unroll
    for (u32 i = 0; EARLY && i < FOURS; i++) {
        const u32 four = thread + i * THREADS;
        if (four < fours) w[i] = weights[four];
    }
    sum = THREADS == 32 ? warp_sum(sum) : sum_of_block(sum);
    const float scale = rsqrtf(sum / float(features) + eps);
    uint2* to = reinterpret_cast<uint2*>(y + u64(row) * features);
#pragma unroll
    for (u32 i = 0; i < FOURS; i++) {
        const u32 four = thread + i * THREADS;
        if (four < fours) {
            if (!EARLY) w[i] = weights[four];
            to[four] = uint2{pack_bf16(kept[i].x * scale * w[i].x, kept[i].y * scale * w[i].y),
                             pack_bf16(kept[i].z * scale * w[i].z, kept[i].w * scale * w[i].w)};
        }
    }
}

// Rows up to 1,280 wide. The width is a multiple of 4 and all is aligned to 16 bytes, here and in the next two.
// hot
extern "C" __global__ void __launch_bounds__(256) rms_norm_1280(
    const float* x, const float* weight, bf16* y, u32 rows, u32 features, float eps) {
    in_registers<32, 10>(x, weight, y, rows, features, eps);
}

// Rows up to 4,096 wide.
// hot
extern "C" __global__ void __launch_bounds__(256) rms_norm_4096(
    const float* x, const float* weight, bf16* y, u32 rows, u32 features, float eps) {
    in_registers<256, 4>(x, weight, y, rows, features, eps);
}

// Rows up to 8,192 wide.
// hot
extern "C" __global__ void __launch_bounds__(256) rms_norm_8192(
    const float* x, const float* weight, bf16* y, u32 rows, u32 features, float eps) {
    in_registers<256, 8>(x, weight, y, rows, features, eps);
}

// Rows of any width and address.
extern "C" __global__ void __launch_bounds__(256) rms_norm_any(
    const float* x, const float* weight, bf16* y, u32 rows, u32 features, float eps) {
    const u64 first = u64(blockIdx.x) * features;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < features; i += 256) sum += x[first + i] * x[first + i];
    const float scale = rsqrtf(sum_of_block(sum) / float(features) + eps);
    for (u32 i = threadIdx.x; i < features; i += 256) y[first + i] = to_bf16(x[first + i] * scale * weight[i]);
}

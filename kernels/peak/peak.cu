// What a device can do at best with bf16 matrices: tensor instructions one after another, whose factors never leave
// registers (or, on Hopper, shared memory).
//
// **A step** is 2^20 operations of a block of 256 threads: on Hopper one wgmma m64n256k16 of each of two warpgroups,
// elsewhere 32 mma m16n8k16 of each of eight warps. Eight chains of sums side by side hide the instruction's latency; two
// blocks share a multiprocessor where registers allow. wgmma takes 128 cycles and reads 10 KiB of shared memory, 80 of the
// 128 bytes that come in a cycle. Factors are noise: a device that multiplies zeros draws less power and runs faster than
// it ever will.

#include "hopper.cuh"

// A number in [-1, 1) that depends on `i` alone.
__device__ inline float noise(u32 i) {
    i = (i ^ 61 ^ (i >> 16)) * 9;
    i = (i ^ (i >> 4)) * 0x27d4eb2d;
    return float((i ^ (i >> 15)) & 0xffff) / 32768.0f - 1.0f;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 PEAK_A_BYTES = 64 * 128;
constexpr u32 PEAK_B_BYTES = 256 * 128;

// Two tiles of a, one for each warpgroup, and one of b for both; 64 features each, of which a step takes 16. Nothing is
// read of the sums but that they are there, so it does not matter which noise the first products see.
__device__ inline void peak_steps(float* out, u32 steps, u8* shared) {
    for (u32 i = threadIdx.x; i < (2 * PEAK_A_BYTES + PEAK_B_BYTES) / 4; i += blockDim.x) {
        reinterpret_cast<u32*>(shared)[i] = pack_bf16(noise(2 * i), noise(2 * i + 1));
    }
    __syncthreads();
    const u8* a = shared + threadIdx.x / 128 * PEAK_A_BYTES;
    const u8* b = shared + 2 * PEAK_A_BYTES;
    float sums[32][4] = {};
    for (u32 step = 0; step < steps; step += 4) {
        hold_sums(sums);
        wgmma_fence();
#pragma unroll
        for (u32 feature = 0; feature < 64; feature += 16) {
            wgmma_k16(sums, describe_tile(a, feature), describe_tile(b, feature));
        }
        wgmma_commit();
        wgmma_wait<0>();
    }
    hold_sums(sums);
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < 32; n++) sum += sums[n][0] + sums[n][1] + sums[n][2] + sums[n][3];
    out[u64(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

#else

__device__ inline void peak_steps(float* out, u32 steps, u8* shared) {
    constexpr int CHAINS = 8;
    u32 a[4], b[CHAINS][2];
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(noise(threadIdx.x * 64 + i), noise(threadIdx.x * 64 + i + 32));
    for (int i = 0; i < 2 * CHAINS; i++) {
        b[i / 2][i % 2] = pack_bf16(noise(threadIdx.x * 64 + 4 + i), noise(threadIdx.x * 64 + 40 + i));
    }
    float sums[CHAINS][4] = {};
    for (u32 step = 0; step < steps; step++) {
#pragma unroll
        for (int i = 0; i < 4 * CHAINS; i++) mma_m16n8k16(sums[i % CHAINS], a, b[i % CHAINS]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < CHAINS; n++) sum += sums[n][0] + sums[n][1] + sums[n][2] + sums[n][3];
    out[u64(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

#endif

// hot
extern "C" __global__ void __launch_bounds__(256, 1) peak_matrix(float* out, u32 steps) {
    SHARED_MEMORY(shared);
    peak_steps(out, steps, shared);
}

// The order of logits as integers, what blocks of 256 threads find out about such integers together, and how the last
// block of a row knows that it is the last. For top-k and sampling.

#pragma once

#include "device.cuh"

// So many threads has every block that calls these.
constexpr u32 THREADS = 256;
// So many elements of a row belong to one of its blocks.
constexpr u32 CHUNK = 2048;

// Room in shared memory for the functions below, 16 bytes aligned.
struct Together {
    u64 words[2 * THREADS / 32];
    u32 flag;
    u32 unused[3];
};

// Larger numbers have larger keys; both zeros have the same one, and NaN has 0, below that of minus infinity.
__device__ inline u32 order_key(float x) {
    if (x != x) return 0;
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The place of an element in its row: larger values have larger places, and among equals the one that comes first has.
// Never 0, and different for each element.
__device__ inline u64 place_of(float value, u32 index) { return u64(order_key(value)) << 32 | u32(~index); }

__device__ inline u32 index_at(u64 place) { return ~u32(place); }

__device__ inline u64 shuffle_xor(u64 x, u32 mask) {
    const u32 low = __shfl_xor_sync(0xffffffffu, u32(x), mask);
    const u32 high = __shfl_xor_sync(0xffffffffu, u32(x >> 32), mask);
    return u64(high) << 32 | low;
}

// `f` over the values of all threads, for every thread; in any order.
template <typename F>
__device__ u64 over_block(u64 x, Together* room, F f) {
#pragma unroll
    for (u32 mask = 16; mask > 0; mask /= 2) x = f(x, shuffle_xor(x, mask));
    if (threadIdx.x % 32 == 0) room->words[threadIdx.x / 32] = x;
    __syncthreads();
    x = room->words[0];
#pragma unroll
    for (u32 warp = 1; warp < THREADS / 32; warp++) x = f(x, room->words[warp]);
    __syncthreads();
    return x;
}

__device__ inline u64 max_of_block(u64 x, Together* room) {
    return over_block(x, room, [](u64 a, u64 b) { return a > b ? a : b; });
}

__device__ inline u64 min_of_block(u64 x, Together* room) {
    return over_block(x, room, [](u64 a, u64 b) { return a < b ? a : b; });
}

__device__ inline u64 sum_of_block(u64 x, Together* room) {
    return over_block(x, room, [](u64 a, u64 b) { return a + b; });
}

// The sum over the threads before this one; `total` becomes that of all.
__device__ inline u64 sum_before(u64 x, u64* total, Together* room) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 sum = x;
#pragma unroll
    for (u32 distance = 1; distance < 32; distance *= 2) {
        const u32 from = lane >= distance ? lane - distance : lane;
        const u32 low = __shfl_sync(0xffffffffu, u32(sum), from);
        const u32 high = __shfl_sync(0xffffffffu, u32(sum >> 32), from);
        if (lane >= distance) sum += u64(high) << 32 | low;
    }
    if (lane == 31) room->words[warp] = sum;
    __syncthreads();
    u64 all = 0;
#pragma unroll
    for (u32 i = 0; i < THREADS / 32; i++) {
        if (i == warp) sum += all;
        all += room->words[i];
    }
    __syncthreads();
    *total = all;
    return sum - x;
}

// Whether this is the last of `blocks` blocks to come here, the same answer for all its threads. What the others wrote
// before can then be read, through `volatile` so that no cache of this multiprocessor answers. `arrived` is zero again
// after the last.
__device__ inline bool is_last(u32* arrived, u32 blocks, Together* room) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const bool last = atomicAdd(arrived, 1u) == blocks - 1;
        if (last) *arrived = 0;
        room->flag = last;
    }
    __syncthreads();
    const bool last = room->flag != 0;
    __syncthreads();
    if (last) __threadfence();
    return last;
}

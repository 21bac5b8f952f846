// What every kernel is written with: short names of types, bf16, and the instructions that CUDA C++ has no name for.
//
// Included first by every .cu file. There is no other header: the compiler in NVIDIA's driver package, nvcc and the
// emulator all take the same sources. On the emulator the instructions are functions of its own, written from the PTX
// manual and not from the kernels.

#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

// A brain floating point number: the upper half of an f32.
struct bf16 {
    u16 bits;
};

#ifdef OCELLUS_EMULATOR

#include "emulator/device/emulator.h"

#else

// The block's dynamic shared memory as bytes, aligned to 1024. Its values are arbitrary at first.
#define SHARED_MEMORY(name) extern __shared__ __align__(1024) u8 name[]

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

// Rounds to nearest even; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two neighbouring bf16 in one register, the first in the lower half, as little-endian memory has them.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

__device__ __forceinline__ float low_float(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(u32 pair) { return __uint_as_float(pair & 0xFFFF0000u); }

// 2^x to about 2 units in the last place; subnormal results are zero.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x to about 1 unit in the last place.
__device__ __forceinline__ float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The place of a pointer within shared memory, for instructions that want that.
__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return u32(__cvta_generic_to_shared(pointer));
}

// Begins to copy 16 bytes from global to shared memory, past the first-level cache; zeros when `real` is false, and then
// nothing is read. Both addresses are multiples of 16. The bytes are there for this thread after `copy_async_wait`, for
// other threads after a barrier that follows it.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool real) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(real ? 16 : 0)
                 : "memory");
}

// Ends a group of copies of this thread.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the `PENDING` newest groups of this thread's copies are under way.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Loads matrices of 8 x 8 elements of 16 bits. Lane 8 m + r gives the address of row r of matrix m, 16 bytes of shared
// memory; lane l gets elements 2 (l % 4) and the next of row l / 4 of matrix m in `r[m]`. All lanes take part; of two
// matrices, lanes 0 to 15 give the addresses.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, and each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a · b with a: 16 x 16 by rows, b: 16 x 8 by columns, both bf16, d: 16 x 8 f32, spread over a warp. With
// g = lane / 4 and t = lane % 4, each register of a and b holds two neighbours k, k + 1:
//   a[0]: row g, k = 2t;  a[1]: row g + 8, k = 2t;  a[2]: row g, k = 2t + 8;  a[3]: row g + 8, k = 2t + 8
//   b[0]: k = 2t, column g;  b[1]: k = 2t + 8, column g
//   d[0], d[1]: row g, columns 2t, 2t + 1;  d[2], d[3]: row g + 8, the same columns
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// a * b + c in both halves, each rounded once.
__device__ __forceinline__ u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// A barrier of `threads` threads, a multiple of 32, among the block's. `id` is 1 to 15; 0 is __syncthreads' own.
__device__ __forceinline__ void named_barrier(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif

// The same number, of which the compiler knows nothing any more: what is computed from it within a loop is computed there
// each time and not kept in registers all the while, which are scarce in the kernels that use this.
__device__ __forceinline__ int opaque(int x) {
#ifndef OCELLUS_EMULATOR
    asm volatile("" : "+r"(x));
#endif
    return x;
}

// The sum of the values of all 32 lanes, for every lane: the same bits in each.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
    }
    return value;
}

// The largest of the values of all 32 lanes, for every lane; of NaN and a number, the number.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, lanes));
    }
    return value;
}

#ifdef OCELLUS_EMULATOR
// Its emulation needs the host's headers, which a kernel's own namespace is no place for.
#include "hopper.cuh"
#endif

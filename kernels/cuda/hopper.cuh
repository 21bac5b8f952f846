// Hopper's instructions: barriers in shared memory that count bytes, copies of whole tiles that report to them, and
// products of a warpgroup (128 threads) whose factors lie in shared memory. Only for compute capability 9.0.
//
// **Tiles** are 64 features (128 bytes) wide and lie in shared memory row after row from a multiple of 1024 bytes on. The
// chunks of 16 bytes of a row change places with the lower three bits of the row, which the copies and the products know
// as the swizzle of 128 bytes.

#pragma once
#include "device.cuh"

// What the driver makes of a matrix's address and shape; only it knows what is inside.
struct __align__(64) TensorMap {
    u64 words[16];
};

#ifdef OCELLUS_EMULATOR

#include "emulator/device/hopper.h"

#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Makes a barrier whose phase ends after `count` arrivals and all bytes that were announced.
__device__ __forceinline__ void phase_barrier_init(u64* barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

// Makes new barriers visible to copies of tiles; a `__syncthreads` after it, to other threads.
__device__ __forceinline__ void phase_barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Arrives, and announces `bytes` bytes of copies.
__device__ __forceinline__ void phase_barrier_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void phase_barrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Waits for the end of a phase: of the first, third, ... when `parity` is 0, of the second, fourth, ... when it is 1. A
// phase that has ended long ago must not be waited for.
__device__ __forceinline__ void phase_barrier_wait(u64* barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred ended;\nAGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
        "@ended bra.uni DONE;\nbra.uni AGAIN;\nDONE:\n}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Begins to copy a tile from column `x` (a feature) and row `y` of a matrix on; what lies outside of the matrix becomes
// zeros. `barrier` is told of the tile's bytes when they are there, those outside included.
__device__ __forceinline__ void copy_tile_async(void* shared, const TensorMap* map, u32 x, u32 y, u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(shared)),
        "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
        : "memory");
}

// Begins to fetch a map, so that the first copy does not wait for it.
__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// All warps of a warpgroup give registers back, or take more; per thread, a multiple of 8.
template <u32 REGISTERS>
__device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <u32 REGISTERS>
__device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Orders what was done to registers and shared memory before the products that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the `PENDING` newest groups are under way. Sums may be read when none is.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Keeps the compiler from touching sums on the other side of this: before the first product's fence, and after the wait for
// the last.
template <int TILES>
__device__ __forceinline__ void hold_sums(float (&d)[TILES][4]) {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
    }
}

#define SUMS(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])

// d += a . b of 16 features: `a` and `b` describe tiles of 64 and of 8 * TILES rows. Warp w of
// the warpgroup has rows 16 w to 16 w + 15 of a; its part of d is laid out as that of `mma_m16n8k16` in each column of
// eight.
__device__ __forceinline__ void wgmma_k16(float (&d)[16][4], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, add, 1, 1, 0, 0;\n}\n"
        : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7),
          SUMS(8), SUMS(9), SUMS(10), SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15)
        : "l"(a), "l"(b));
}

__device__ __forceinline__ void wgmma_k16(float (&d)[24][4], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
        "}, %96, %97, add, 1, 1, 0, 0;\n}\n"
        : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7),
          SUMS(8), SUMS(9), SUMS(10), SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15),
          SUMS(16), SUMS(17), SUMS(18), SUMS(19), SUMS(20), SUMS(21), SUMS(22), SUMS(23)
        : "l"(a), "l"(b));
}

__device__ __forceinline__ void wgmma_k16(float (&d)[32][4], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, add, 1, 1, 0, 0;\n}\n"
        : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7),
          SUMS(8), SUMS(9), SUMS(10), SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15),
          SUMS(16), SUMS(17), SUMS(18), SUMS(19), SUMS(20), SUMS(21), SUMS(22), SUMS(23),
          SUMS(24), SUMS(25), SUMS(26), SUMS(27), SUMS(28), SUMS(29), SUMS(30), SUMS(31)
        : "l"(a), "l"(b));
}

#undef SUMS

#endif

// Describes a tile to `wgmma_k16`, from feature `feature` of it on (a multiple of 16): its address and, between groups of
// eight rows, 1024 bytes, both in units of 16; the swizzle of 128 bytes.
__device__ __forceinline__ u64 describe_tile(const void* shared, u32 feature) {
    u64 address = shared_address(shared) + feature * 2;
    return (address >> 4 & 0x3fff) | u64(1) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}

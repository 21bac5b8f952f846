// Products of many tokens: tiles of tokens by rows, multiplied by `mma` on every device from sm_80 on.
//
// **The floor.** 2 * tokens * rows * width operations at the rate of the tensor cores; a weight that is read once takes
// less time than that from about 200 tokens on (H200: 800 T/s over 4.0 TB/s), from 150 on an A100.
//
// **Tiles.** 128 x 128 by 8 warps of 64 x 32, or 64 x 64 by 4 warps of 32 x 32 where the large ones are too few for the
// device. Steps of 32 features; three stages (48 KiB; four of 8 KiB for the small tile), of which two are under way
// while one is multiplied. Two blocks of 8 warps share a multiprocessor: while one waits at its barrier or finishes,
// the other multiplies. For each 16 features a warp reads (64 + 32) * 32 bytes of shared memory for 16 `mma`: 24 cycles
// of the memory's 128 bytes for 32 cycles of an A100's tensor cores, so these are the limit. Registers: 64 of sums, 24
// of factors, at most 128.
//
// **Banks.** A row of a stage is 64 bytes. Its four chunks of 16 change places with bits 1 and 2 of the row, so that the
// eight rows of a matrix of `ldmatrix` lie in eight different groups of banks.
//
// **Order of blocks.** 16 tiles of tokens go through all rows before the next 16 begin: the blocks that run together
// (some 200) touch about 16 tiles of either factor, which the second-level cache holds.
//
// **Edges.** Tokens, rows and features outside are zeros in shared memory and are never read from the device's.

#pragma once
#include "codes.cuh"
#include "product.cuh"

constexpr u32 GROUPED_TILES = 16;

// Features of one step.
constexpr u32 TILE_STEP = 32;

// The place of a chunk of 16 bytes in a stage whose rows are 64 bytes.
__device__ inline u32 tile_place(u32 row, u32 chunk) {
    return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4);
}

template <int KIND, int TOKENS, int ROWS, int WARPS_OF_TOKENS, int WARPS_OF_ROWS, int STAGES>
struct Tile {
    static constexpr u32 THREADS = 32 * WARPS_OF_TOKENS * WARPS_OF_ROWS;
    static constexpr u32 X_BYTES = TOKENS * 64;
    static constexpr u32 STAGE = X_BYTES + (KIND == BF16 ? ROWS * 64 : ROWS / 16 * CELL<KIND>);
    static constexpr int TOKEN_TILES = TOKENS / WARPS_OF_TOKENS / 16;
    static constexpr int ROW_TILES = ROWS / WARPS_OF_ROWS / 8;

    // Starts the copies of features `step * 32` to `step * 32 + 31` into `stage`.
    static __device__ void load(const Product& p, u8* stage, u32 token, u32 row, u32 step) {
        constexpr u32 AT_ONCE = THREADS / 4;
        u32 chunk = threadIdx.x % 4, first = threadIdx.x / 4;
        u32 feature = step * TILE_STEP + chunk * 8;
        const bf16* x = p.x + u64(token + first) * p.width + feature;
#pragma unroll
        for (u32 i = 0; i < TOKENS; i += AT_ONCE) {
            bool real = token + first + i < p.tokens && feature < p.width;
            copy_async_16(stage + tile_place(first + i, chunk), real ? x + u64(i) * p.width : p.x, real);
        }
        u8* weights = stage + X_BYTES;
        if constexpr (KIND == BF16) {
            u32 pitch = p.blocks * (BLOCK * 2);
            const u8* w = p.weight + u64(row + first) * pitch + feature * 2;
#pragma unroll
            for (u32 i = 0; i < ROWS; i += AT_ONCE) {
                bool real = row + first + i < p.rows;
                copy_async_16(weights + tile_place(first + i, chunk), real ? w + u64(i) * pitch : p.weight, real);
            }
        } else {
            constexpr u32 CHUNKS = CELL<KIND> / 16;
            u32 cells = p.blocks * (BLOCK / GROUP);
#pragma unroll 1
            for (u32 i = threadIdx.x; i < ROWS / 16 * CHUNKS; i += THREADS) {
                u32 sixteen = row / 16 + i / CHUNKS;
                bool real = sixteen * 16 < p.rows;
                const u8* cell = p.weight + (u64(sixteen) * cells + step) * CELL<KIND>;
                copy_async_16(weights + i * 16, real ? cell + i % CHUNKS * 16 : p.weight, real);
            }
        }
    }

    // Adds the products of one stage; `token` and `row` are where this warp's part of the tile begins.
    static __device__ void multiply(
        float (&sums)[TOKEN_TILES][ROW_TILES][4], const u8* stage, u32 token, u32 row) {
        u32 lane = threadIdx.x % 32;
        const u8* weights = stage + X_BYTES;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 b[ROW_TILES][2];
#pragma unroll
            for (int n = 0; n < ROW_TILES; n += 2) {
                u32 both[4];
                if constexpr (KIND == BF16) {
                    u32 r = row + n * 8 + lane / 16 * 8 + lane % 8;
                    ldmatrix_x4(both, weights + tile_place(r, half * 2 + lane / 8 % 2));
#pragma unroll
                    for (int i = 0; i < 4; i++) b[n + i / 2][i % 2] = both[i];
                } else {
                    widen_half<KIND>(both, weights + (row / 16 + n / 2) * CELL<KIND>, lane, half);
#pragma unroll
                    for (int i = 0; i < 4; i++) b[n + i % 2][i / 2] = both[i];
                }
            }
#pragma unroll
            for (int m = 0; m < TOKEN_TILES; m++) {
                u32 a[4];
                ldmatrix_x4(a, stage + tile_place(token + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
                for (int n = 0; n < ROW_TILES; n++) mma_m16n8k16(sums[m][n], a, b[n]);
            }
        }
    }

    // The tile of this block.
    static __device__ void run(const Product& p, u8* shared) {
        u32 token_tiles = (p.tokens + TOKENS - 1) / TOKENS, row_tiles = (p.rows + ROWS - 1) / ROWS;
        u32 grouped = GROUPED_TILES * row_tiles;
        u32 first = blockIdx.x / grouped * GROUPED_TILES, within = blockIdx.x % grouped;
        u32 height = min(token_tiles - first, GROUPED_TILES);
        u32 token = (first + within % height) * TOKENS, row = within / height * ROWS;

        u32 warp = threadIdx.x / 32;
        u32 warp_token = warp % WARPS_OF_TOKENS * (TOKENS / WARPS_OF_TOKENS);
        u32 warp_row = warp / WARPS_OF_TOKENS * (ROWS / WARPS_OF_ROWS);

        for (u32 slice = 0; slice < p.slices; slice++) {
            u32 begin = slice_start(p, slice) * (BLOCK / TILE_STEP);
            u32 end = slice_start(p, slice + 1) * (BLOCK / TILE_STEP);
            float sums[TOKEN_TILES][ROW_TILES][4];
#pragma unroll
            for (int m = 0; m < TOKEN_TILES; m++) {
#pragma unroll
                for (int n = 0; n < ROW_TILES; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
                }
            }
#pragma unroll
            for (u32 i = 0; i < STAGES - 1; i++) {
                if (begin + i < end) load(p, shared + i * STAGE, token, row, begin + i);
                copy_async_commit();
            }
            u32 here = 0, free = STAGES - 1;
            for (u32 step = begin; step < end; step++) {
                // What this step needs has landed, for all threads; and all have done with the stage before it.
                copy_async_wait<STAGES - 2>();
                __syncthreads();
                if (step + STAGES - 1 < end) load(p, shared + free * STAGE, token, row, step + STAGES - 1);
                copy_async_commit();
                multiply(sums, shared + here * STAGE, warp_token, warp_row);
                here = here + 1 == STAGES ? 0 : here + 1;
                free = free + 1 == STAGES ? 0 : free + 1;
            }
            // The sums are staged where slower warps may still be reading factors, and the next slice's factors go there.
            __syncthreads();
            u8* staging = shared + warp * STAGED_BYTES;
            finish_tile(p, sums, staging, token + warp_token, row + warp_row, slice == 0);
            __syncthreads();
        }
    }
};

template <int KIND>
using LargeTile = Tile<KIND, 128, 128, 2, 4, 3>;

template <int KIND>
using SmallTile = Tile<KIND, 64, 64, 2, 2, 4>;

#define TILES(kind, name)                                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2) linear_large_##name(const Product p) {        \
        SHARED_MEMORY(shared);                                                                         \
        LargeTile<kind>::run(p, shared);                                                               \
    }                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 4) linear_small_##name(const Product p) {        \
        SHARED_MEMORY(shared);                                                                         \
        SmallTile<kind>::run(p, shared);                                                               \
    }

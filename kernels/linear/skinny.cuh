// Products of up to 64 tokens, as fast as the weight comes from memory.
//
// **The floor.** The weight's bytes over the memory's bandwidth: 7B, a feed-forward's two up projections, 272 MB in
// bf16: 68 us at 4.0 TB/s. Latency times bandwidth is 4.0 TB/s * 0.8 us = 3.2 MB under way, 24 KB for each of 132
// multiprocessors.
//
// **How it is reached.** A warp owns 16 rows over all features of a slice and streams them through shared memory, 256
// bytes of each row at a time, in its own part of six stages of `cp.async`: 5 * 4 KiB of weights are under way for each
// warp, and two to six warps share a multiprocessor. Rows are the first factor of `mma`, eight tokens the second:
// 512 bytes of weight for each `mma`. They depend on each other (some 33 cycles), which allows 15 bytes a cycle to each
// warp; the memory gives a multiprocessor 21. Blocks stay and go through their rows without a pause: the copies of the
// next rows begin before the last ones are multiplied. With more tokens, several warps make a block and share its
// tokens, so that these cost the second-level cache a fraction of what the weights do.
//
// **Slices.** Where `slices` is 2, half of a block's warps take the second half of the features of the same rows and
// give their sums to the others in the end.
//
// **Shared memory** of a stage: 16 rows times the step's bytes for each warp, and the tokens' for each slice; then 128
// bytes of sums for each 8 tokens, lane by lane, for each warp of the second slice. The launch decides how many warps a
// block has. **Banks**: the chunks of 16 bytes change places with the row's lower three bits.

#pragma once
#include "codes.cuh"
#include "product.cuh"

template <int KIND, int TOKEN_TILES, int STEP, int STAGES>
struct Skinny {
    static constexpr u32 CHUNKS = STEP / 8;
    static constexpr u32 X_ROW = STEP * 2;
    // Bytes of a warp's weights in a stage.
    static constexpr u32 WEIGHTS = KIND == BF16 ? 16 * STEP * 2 : STEP / GROUP * CELL<KIND>;

    static __device__ u32 place(u32 row, u32 chunk) { return row * X_ROW + ((chunk ^ (row & 7)) << 4); }

    static __device__ void run(const Product& p, u8* shared) {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
        u32 together = warps / p.slices;
        u32 slice = warp / together;
        u32 begin = slice_start(p, slice) * BLOCK, end = slice_start(p, slice + 1) * BLOCK;
        u32 x_end = min(end, p.width);
        u32 stage_bytes = warps * WEIGHTS + p.slices * p.tokens * X_ROW;
        u8* weights = shared + warp * WEIGHTS;
        u8* tokens = shared + warps * WEIGHTS + slice * p.tokens * X_ROW;
        u32 x_chunks = p.tokens * CHUNKS, x_thread = threadIdx.x - slice * together * 32;

        // The first slice is never the shorter one, so all make as many steps.
        u32 steps = (slice_start(p, 1) * BLOCK + STEP - 1) / STEP;
        u32 units = (p.rows + together * 16 - 1) / (together * 16);

        // Starts the copies of one step of the rows of `unit`.
        auto load = [&](u32 unit, u32 step, u32 stage) {
            u32 feature = begin + step * STEP;
            u32 row = (unit * together + warp % together) * 16;
            u8* to = weights + stage * stage_bytes;
            if constexpr (KIND == BF16) {
                u32 pitch = p.blocks * (BLOCK * 2);
                u32 chunk = lane % CHUNKS, first = lane / CHUNKS;
                u32 f = feature + chunk * 8;
                const u8* w = p.weight + u64(row + first) * pitch + f * 2;
#pragma unroll
                for (u32 i = 0; i < 16; i += 32 / CHUNKS) {
                    bool real = row + first + i < p.rows && f < end;
                    copy_async_16(to + place(first + i, chunk), real ? w + u64(i) * pitch : p.weight, real);
                }
            } else {
                u32 cells = p.blocks * (BLOCK / GROUP);
                const u8* w = p.weight + (u64(row / 16) * cells + feature / GROUP) * CELL<KIND>;
                u32 bytes = row < p.rows && feature < end ? (end - feature) / GROUP * CELL<KIND> : 0;
#pragma unroll
                for (u32 i = 0; i < WEIGHTS; i += 512) {
                    u32 at = i + lane * 16;
                    bool real = at < bytes;
                    if (at < WEIGHTS) copy_async_16(to + at, real ? w + at : p.weight, real);
                }
            }
            for (u32 i = x_thread; i < x_chunks; i += together * 32) {
                u32 token = i / CHUNKS, chunk = i % CHUNKS;
                u32 f = feature + chunk * 8;
                bool real = f < x_end;
                const bf16* x = p.x + u64(token) * p.width + f;
                copy_async_16(tokens + stage * stage_bytes + place(token, chunk), real ? x : p.x, real);
            }
        };

        float sums[TOKEN_TILES][4];
        auto clear = [&]() {
#pragma unroll
            for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;
            }
        };

        // Adds the products of one stage.
        auto multiply = [&](u32 stage) {
            const u8* w = weights + stage * stage_bytes;
            const u8* x = tokens + stage * stage_bytes;
#pragma unroll
            for (u32 group = 0; group < STEP / GROUP; group++) {
                u32 a[2][4];
                if constexpr (KIND == BF16) {
#pragma unroll
                    for (u32 half = 0; half < 2; half++) {
                        ldmatrix_x4(a[half], w + place(lane % 16, group * 4 + half * 2 + lane / 16));
                    }
                } else {
                    widen_half<KIND>(a[0], w + group * CELL<KIND>, lane, 0);
                    widen_half<KIND>(a[1], w + group * CELL<KIND>, lane, 1);
                }
#pragma unroll
                for (int n = 0; n < TOKEN_TILES; n++) {
                    // Tokens that do not exist are computed with others' values, and nobody looks at what comes out.
                    u32 token = min(n * 8 + lane % 8, p.tokens - 1);
                    u32 b[4];
                    ldmatrix_x4(b, x + place(token, group * 4 + lane / 8));
                    u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
                    mma_m16n8k16(sums[n], a[0], b0);
                    mma_m16n8k16(sums[n], a[1], b1);
                }
            }
        };

        u32 load_unit = blockIdx.x, load_step = 0, free = 0;
        auto load_next = [&]() {
            if (load_unit < units) load(load_unit, load_step, free);
            copy_async_commit();
            free = free + 1 == STAGES ? 0 : free + 1;
            if (++load_step == steps) {
                load_step = 0;
                load_unit += gridDim.x;
            }
        };
        for (int i = 0; i < STAGES - 1; i++) load_next();

        u32 here = 0;
        for (u32 unit = blockIdx.x; unit < units; unit += gridDim.x) {
            clear();
            for (u32 step = 0; step < steps; step++) {
                // What this step needs has landed, for all threads; and all have done with the stage before it.
                copy_async_wait<STAGES - 2>();
                __syncthreads();
                load_next();
                multiply(here);
                here = here + 1 == STAGES ? 0 : here + 1;
            }
            finish(p, sums, shared + STAGES * stage_bytes, (unit * together + warp % together) * 16);
        }
        copy_async_wait<0>();
    }

    // Finishes the sums of 16 rows from `row` on. The first slice's warps get what the second's have found through
    // `exchange`; barriers of the next unit's steps keep it from being written again too early.
    static __device__ void finish(const Product& p, const float (&sums)[TOKEN_TILES][4], u8* exchange, u32 row) {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, together = blockDim.x / 32 / p.slices;
        float4* others = reinterpret_cast<float4*>(exchange) + warp % together * (TOKEN_TILES * 32) + lane;
        if (p.slices == 2) {
            if (warp >= together) {
#pragma unroll
                for (int n = 0; n < TOKEN_TILES; n++) {
                    others[n * 32] = make_float4(sums[n][0], sums[n][1], sums[n][2], sums[n][3]);
                }
            }
            __syncthreads();
            if (warp >= together) return;
        }
        u32 upper = row + lane / 4, lower = upper + 8;
        float bias_upper = bias_of(p, upper), bias_lower = bias_of(p, lower);
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; n++) {
            float4 second = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (p.slices == 2) second = others[n * 32];
            float more[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 token = n * 8 + lane % 4 * 2 + i;
                if (token >= p.tokens) continue;
                float a = sums[n][i] + bias_upper, b = sums[n][2 + i] + bias_lower;
                if (p.finish == SWIGLU) {
                    if (upper < p.rows) put(p, STORE, token, row / 2 + lane / 4, swiglu(a, b));
                    continue;
                }
                if (upper < p.rows) {
                    put(p, p.finish, token, upper, a);
                    if (p.slices == 2) put(p, ADD, token, upper, more[i]);
                }
                if (lower < p.rows) {
                    put(p, p.finish, token, lower, b);
                    if (p.slices == 2) put(p, ADD, token, lower, more[2 + i]);
                }
            }
        }
    }
};

#define SKINNY(kind, name, tokens, step, stages)                                                                 \
    extern "C" __global__ void __launch_bounds__(256) linear_skinny_##tokens##_##name(const Product p) {         \
        SHARED_MEMORY(shared);                                                                                   \
        Skinny<kind, tokens / 8, step, stages>::run(p, shared);                                                       \
    }

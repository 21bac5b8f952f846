// Causal attention of a few queries of each sequence, usually one, over its keys and values in the paged cache: the
// decoder's steps. The keys of a sequence are split among blocks, and a second kernel puts their results together in a
// fixed order.
//
//   Bytes: keys and values are read once for all query heads of a group, 4 * D bytes a key and head of keys: 2.7 MB a layer
//   at depth 1,300 with 4 heads of 128, 0.7 us at 4 TB/s beside 116 us of weights. So it is latency that counts: enough
//   blocks to spread over the device, all loads of a block on their way at once, and few dependent ones before them.
//   Operations: 4 * 16 * D a key of which 7 or 8 rows of 16 are real: 16 a byte, a tenth of what tensor cores can do.
//   Splits: of 128 keys up to 8,192, then twice as long for each doubling (`split_keys`), so at most 64. They depend on the
//   sequence's own length alone: its result has the same bits whatever else is in the batch and whatever bucket the grid
//   was made for. Blocks beyond a sequence's end return at once.
//   Within a split, each of four warps takes every fourth block of 16 keys and waits only for its own loads, two blocks
//   ahead; the four are then put together in the order of the warps. A split of 128 keys is all on its way from the start.
//   Occupancy at D = 128: 74 KB (a warp's two stages of 16 keys and 16 values are 17.4 KB), at most 168 registers (64 sums, 32 of
//   queries, 8 scores): 3 blocks of 128 threads on Hopper, up to 196 KB on their way, where 4 TB/s at 800 ns need 24 KB.
#pragma once
#include "attention/flash.cuh"

namespace {

constexpr int BLOCK = 16;   // Tokens in a block of the cache.
constexpr int WARPS = 4;
constexpr int STAGES = 2;
constexpr int MOST_SPLITS = 64;

// How many keys of a sequence of `keys` belong to one split.
__device__ __forceinline__ int split_keys(int keys) {
    int n = 128;
    while (n * MOST_SPLITS < keys) n *= 2;
    return n;
}

// Shared memory of a warp in bytes: keys and values of its stages, and later its part of the result.
template <int D>
constexpr int WARP_BYTES = STAGES * 2 * BLOCK * flash::STRIDE<D>;

// `q: (tokens, heads, D)`; `keys`, `values`: `(slots, kv_heads, D)`; `tables: (any, table_width)`, blocks of sequences;
// `sequences`: for each its first row in `q`, how many queries it has there (at most 16 * M / group), how many keys in the
// cache (none: a row that only fills a bucket up), and its row of `tables`. Writes for each split sums that are not yet divided, `partial: (sequences, kv_heads, splits, 16 * M, D)`,
// and for each of these rows the base of its weights and their sum, `weights: (sequences, kv_heads, splits,
// 16 * M)`. Grid: splits, kv_heads, sequences. 128 threads, WARPS * WARP_BYTES<D> + 16 * M * STRIDE<D> bytes.
template <int D, int M>
__device__ __forceinline__ void split(const bf16* q, const bf16* keys, const bf16* values, const u32* tables,
                                      const uint4* sequences, float* partial, float2* weights, int table_width,
                                      int splits, int heads, int kv_heads, float scale) {
    using namespace flash;
    SHARED_MEMORY(shared);
    constexpr int CHUNKS = D / 8, N = BLOCK / 8;
    const uint4 sequence = sequences[blockIdx.z];
    const int queries = sequence.y, all_keys = sequence.z, length = split_keys(all_keys);
    const int begin = blockIdx.x * length, group = heads / kv_heads, n_rows = queries * group;
    if (begin >= all_keys || n_rows == 0) return;
    const int end = begin + length < all_keys ? begin + length : all_keys;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    u8 *mine = shared + warp * WARP_BYTES<D>, *query_rows = shared + WARPS * WARP_BYTES<D>;
    scale *= LOG2_E;

    // Where packed row `row` lies in `q`, in elements: query `row / group`, head `row % group` of the group.
    const auto place = [&](int row) {
        return (u64(sequence.x + row / group) * heads + blockIdx.y * group + row % group) * D;
    };
    for (int i = thread; i < 16 * M * CHUNKS; i += 32 * WARPS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        const bool real = row < n_rows;
        copy_async_16(query_rows + row * STRIDE<D> + chunk * 16, real ? q + place(row) + chunk * 8 : q, real);
    }
    copy_async_commit();

    const u32* blocks = tables + u64(sequence.w) * table_width;
    const auto first_of = [&](int turn) { return begin + (turn * WARPS + warp) * BLOCK; };
    // Begins to load this warp's block of turn `turn`; beyond the end, nothing.
    const auto load = [&](int turn) {
        const int first = first_of(turn);
        if (first < end) {
            u8 *key_rows = mine + turn % STAGES * 2 * BLOCK * STRIDE<D>, *value_rows = key_rows + BLOCK * STRIDE<D>;
            const u64 base = (u64(__ldg(blocks + first / BLOCK)) * BLOCK * kv_heads + blockIdx.y) * D;
#pragma unroll
            for (int n = 0; n < BLOCK * CHUNKS / 32; n++) {
                const int i = n * 32 + lane, row = i / CHUNKS, chunk = i % CHUNKS;
                const bool real = first + row < end;
                const u64 from = real ? base + u64(row * kv_heads) * D + chunk * 8 : 0;
                copy_async_16(key_rows + row * STRIDE<D> + chunk * 16, keys + from, real);
                copy_async_16(value_rows + row * STRIDE<D> + chunk * 16, values + from, real);
            }
        }
        copy_async_commit();
    };
#pragma unroll
    for (int turn = 0; turn < STAGES; turn++) load(turn);

    copy_async_wait<STAGES>();
    __syncthreads();
    // Sixteen rows of queries fit into registers; more are read again for each block.
    constexpr bool HELD = M == 1;
    u32 held[D / 16][4];
    if constexpr (HELD) {
#pragma unroll
        for (int k = 0; k < D / 16; k++) load_rows<D>(held[k], query_rows + k * 32, lane);
    }
    int limits[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = m * 16 + h * 8 + lane / 4;
            limits[m][h] = all_keys - queries + (row < n_rows ? row : n_rows - 1) / group + 1;
        }
    }
    const int least = all_keys - queries + 1;

    Rows<D, M> rows;
    rows.clear();
    for (int turn = 0; first_of(turn) < end; turn++) {
        u8 *key_rows = mine + turn % STAGES * 2 * BLOCK * STRIDE<D>, *value_rows = key_rows + BLOCK * STRIDE<D>;
        copy_async_wait<STAGES - 1>();
        // What other lanes have loaded is here for all lanes.
        __syncwarp();
        float scores[M][N][4];
        u32 shares[M][N][2];
        multiply_keys<D, M, N>(
            scores,
            [&](int m, int k, u32(&a)[4]) {
                if constexpr (HELD) {
#pragma unroll
                    for (int i = 0; i < 4; i++) a[i] = held[k][i];
                } else {
                    load_rows<D>(a, query_rows + m * 16 * STRIDE<D> + k * 32, lane);
                }
            },
            key_rows, lane);
        if (first_of(turn) + BLOCK > least) hide(scores, first_of(turn), limits, lane);
        soften(rows, scores, shares, scale);
        add_values(rows, shares, value_rows, lane);
        // All lanes have read this stage before one of them loads into it again.
        __syncwarp();
        load(turn + STAGES);
    }
    complete_sums(rows);

    // Each warp puts its part into its own room, where nothing is on its way any more.
    copy_async_wait<0>();
    __syncwarp();
    float *sums = reinterpret_cast<float*>(mine), *facts = sums + 16 * M * D;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = m * 16 + h * 8 + lane / 4;
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
                *reinterpret_cast<float2*>(sums + row * D + d * 8 + lane % 4 * 2) =
                    make_float2(rows.out[m][d][2 * h], rows.out[m][d][2 * h + 1]);
            }
            if (lane % 4 == 0) {
                facts[2 * row] = rows.base[m][h];
                facts[2 * row + 1] = rows.sums[m][h];
            }
        }
    }
    __syncthreads();

    const u64 first_row = ((u64(blockIdx.z) * kv_heads + blockIdx.y) * splits + blockIdx.x) * 16 * M;
    for (int i = thread; i < n_rows * D; i += 32 * WARPS) {
        const int row = i / D;
        const float* parts = reinterpret_cast<const float*>(shared);
        constexpr int PART = WARP_BYTES<D> / 4;
        float largest = nothing(), all = 0.0f, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, parts[w * PART + 16 * M * D + 2 * row]);
        const float base = largest == nothing() ? 0.0f : largest;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float share = exp2_fast(parts[w * PART + 16 * M * D + 2 * row] - base);
            sum += share * parts[w * PART + i];
            all += share * parts[w * PART + 16 * M * D + 2 * row + 1];
        }
        partial[first_row * D + i] = sum;
        if (i % D == 0) weights[first_row + row] = make_float2(largest, all);
    }
}

// Puts the splits of `partial` and `weights` together, the first one first, into `out: (tokens, heads, D)`. A sequence without
// keys gets zeros. Grid: rows (queries * group) of the sequence that has most, kv_heads, sequences. max(D, 32) threads.
template <int D>
__device__ __forceinline__ void combine(const float* partial, const float2* weights, const uint4* sequences, bf16* out,
                                        int splits, int pitch, int heads, int kv_heads) {
    constexpr int AHEAD = 8;   // Loads on their way at a time.
    const uint4 sequence = sequences[blockIdx.z];
    const int keys = sequence.z, group = heads / kv_heads, row = blockIdx.x, column = threadIdx.x, lane = column % 32;
    if (row >= int(sequence.y) * group) return;
    const int length = split_keys(keys), count = (keys + length - 1) / length;
    const u64 first = ((u64(blockIdx.z) * kv_heads + blockIdx.y) * splits) * pitch + row;

    // Two splits for each lane, in all warps the same.
    const float2 none = make_float2(flash::nothing(), 0.0f);
    const float2 a = lane < count ? weights[first + u64(lane) * pitch] : none;
    const float2 b = lane + 32 < count ? weights[first + u64(lane + 32) * pitch] : none;
    const float largest = warp_max(fmaxf(a.x, b.x));
    const float base = largest == flash::nothing() ? 0.0f : largest;
    const float shares[2] = {exp2_fast(a.x - base), exp2_fast(b.x - base)};
    const float all = warp_sum(shares[0] * a.y + shares[1] * b.y);

    float sum = 0.0f;
    for (int i = 0; i < count; i += AHEAD) {
        float parts[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const bool real = i + j < count && column < D;
            parts[j] = real ? partial[(first + u64(i + j) * pitch) * D + column] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            sum += parts[j] * __shfl_sync(0xffffffffu, shares[i / 32], (i + j) % 32);
        }
    }
    if (column < D) {
        const u64 token = sequence.x + row / group, head = blockIdx.y * group + row % group;
        out[(token * heads + head) * D + column] = to_bf16(all > 0.0f ? sum / all : 0.0f);
    }
}

}  // namespace

#define SPLIT(D, M, ROWS, PER_MULTIPROCESSOR)                                                                          \
    extern "C" __global__ void __launch_bounds__(128, PER_MULTIPROCESSOR) attention_split_##D##_##ROWS(                \
        const bf16* q, const bf16* keys, const bf16* values, const u32* tables, const uint4* sequences,                \
        float* partial, float2* weights, u32 table_width, u32 splits, u32 heads, u32 kv_heads, float scale) {          \
        split<D, M>(q, keys, values, tables, sequences, partial, weights, table_width, splits, heads, kv_heads,        \
                    scale);                                                                                            \
    }

#define COMBINE(D)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(D < 32 ? 32 : D)                                                      \
        attention_combine_##D(const float* partial, const float2* weights, const uint4* sequences, bf16* out,          \
                              u32 splits, u32 pitch, u32 heads, u32 kv_heads) {                                        \
        combine<D>(partial, weights, sequences, out, splits, pitch, heads, kv_heads);                                  \
    }

// The kernels for heads of one width: for up to 16 rows of a sequence, for up to 32, and to put splits together.
#define DECODE(D)                                                                                                      \
    SPLIT(D, 1, 16, 3)                                                                                                 \
    SPLIT(D, 2, 32, 2)                                                                                                 \
    COMBINE(D)

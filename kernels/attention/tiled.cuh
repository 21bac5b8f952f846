// Attention of a tile of 128 query rows over tiles of 64 keys: the loop that whole frames (`varlen.cuh`) and the decoder's
// prefill (`causal.cuh`) share. They differ in where rows lie and in which keys a row may see, which a `Job` says.
//
// Four warps have 32 query rows each, so that every key and value that comes from shared memory is used for two row
// blocks: 64 * D * 4 bytes of keys and values for 32 * 64 * D * 4 operations are 32 operations a byte, 4,096 a clock at
// 128 bytes a clock, above what the tensor cores take (2,048 on Ampere, about 2,700 of mma.sync on Hopper).
// There are two tiles in shared memory, one of keys and one of values, and each is loaded while the other is worked on:
// values during the first product and the softmax, the next keys during the second product. With
// two such blocks on a multiprocessor, each fills the other's waits.
#pragma once
#include "attention/flash.cuh"

namespace flash {

constexpr int QUERY_ROWS = 128;
constexpr int KEYS = 64;
constexpr int THREADS = 128;

// Queries of narrow heads stay in registers; those of wide ones are read again from shared memory for each tile.
template <int D>
constexpr bool HELD = D <= 80;

// Shared memory in bytes: a tile of keys and one of values; queries that are held lie there only in the beginning.
template <int D>
constexpr int TILED_BYTES = (HELD<D> ? QUERY_ROWS : 2 * QUERY_ROWS) * STRIDE<D>;

// Begins to copy `ROWS` rows to a tile in shared memory. `source(row)` is where a row lies, null for a row of zeros;
// `anywhere` is some valid address.
template <int D, int ROWS, class Source>
__device__ __forceinline__ void copy_rows(u8* tile, const bf16* anywhere, Source source) {
    constexpr int CHUNKS = D / 8;
    constexpr bool EVEN = THREADS % CHUNKS == 0;   // A thread's rows are equally far apart.
    const int thread = opaque(threadIdx.x);
#pragma unroll
    for (int n = 0; n < ROWS * CHUNKS / THREADS; n++) {
        const int row = EVEN ? n * (THREADS / CHUNKS) + thread / CHUNKS : (n * THREADS + thread) / CHUNKS;
        const int chunk = EVEN ? thread % CHUNKS : (n * THREADS + thread) % CHUNKS;
        const bf16* from = source(row);
        copy_async_16(tile + row * STRIDE<D> + chunk * 16, from != nullptr ? from + chunk * 8 : anywhere, from != nullptr);
    }
    copy_async_commit();
}

// A `Job` has:
// - `const bf16* query(int row)`: the row's queries, null beyond the last; `int rows`: how many there are, at least 1;
// - `const bf16* key(int key)`, `const bf16* value(int key)`: null when there is no such key;
// - `int limit(int row)`: keys that the row may see, never falling from row to row; `int visible`: those of the last row;
// - `bf16* output(int row)`: where it goes, null beyond the last;
// - `const bf16* anywhere`: some valid address.
template <int D, class Job>
__device__ __forceinline__ void attend(const Job& job, u8* shared, float scale) {
    constexpr int M = 2, N = KEYS / 8;
    const int thread = threadIdx.x, lane = thread % 32, first_row = thread / 32 * 16 * M;
    u8* queries = shared;
    u8* keys = shared + (HELD<D> ? 0 : QUERY_ROWS * STRIDE<D>);
    u8* values = keys + KEYS * STRIDE<D>;

    const auto copy_keys = [&](int tile) {
        copy_rows<D, KEYS>(keys, job.anywhere, [&](int row) { return job.key(tile * KEYS + row); });
    };
    const auto copy_values = [&](int tile) {
        copy_rows<D, KEYS>(values, job.anywhere, [&](int row) { return job.value(tile * KEYS + row); });
    };

    copy_rows<D, QUERY_ROWS>(queries, job.anywhere, [&](int row) { return job.query(row); });
    const u8* my_queries = queries + first_row * STRIDE<D>;
    u32 held[HELD<D> ? M : 1][HELD<D> ? D / 16 : 1][4];
    if constexpr (HELD<D>) {
        copy_async_wait<0>();
        __syncthreads();
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int k = 0; k < D / 16; k++) load_rows<D>(held[m][k], my_queries + m * 16 * STRIDE<D> + k * 32, lane);
        }
        __syncthreads();
    }
    copy_keys(0);

    // The same for all lanes, so that none is missing from the products. The barriers below are for all warps.
    const bool busy = first_row < job.rows;
    const int least = job.limit(0), tiles = (job.visible + KEYS - 1) / KEYS;

    Rows<D, M> rows;
    rows.clear();
    const auto query = [&](int m, int k, u32(&a)[4]) {
        if constexpr (HELD<D>) {
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = held[m][k][i];
        } else {
            load_rows<D>(a, my_queries + m * 16 * STRIDE<D> + k * 32, lane);
        }
    };
    for (int tile = 0; tile < tiles; tile++) {
        u32 weights[M][N][2];
        copy_async_wait<0>();
        // The keys are here for everybody, and nobody reads the values of the tile before any more.
        __syncthreads();
        copy_values(tile);
        if (busy) {
            float scores[M][N][4];
            multiply_keys<D, M, N>(scores, query, keys, lane);
            if ((tile + 1) * KEYS > least) {
                // Few tiles come here, and registers are scarce: limits are found again each time.
                int limits[M][2];
#pragma unroll
                for (int m = 0; m < M; m++) {
#pragma unroll
                    for (int h = 0; h < 2; h++) limits[m][h] = job.limit(first_row + m * 16 + h * 8 + lane / 4);
                }
                hide(scores, tile * KEYS, limits, lane);
            }
            soften(rows, scores, weights, scale);
        }
        copy_async_wait<0>();
        // The values are here for everybody, and nobody reads the keys any more.
        __syncthreads();
        if (tile + 1 < tiles) copy_keys(tile + 1);
        if (busy) add_values(rows, weights, values, lane);
    }
    // Rows go out through the queries' room, which held queries share with keys and values.
    __syncthreads();
    if (busy) {
        const auto to = [&](int row) { return job.output(first_row + row); };
        store(rows, queries + first_row * STRIDE<D>, to, lane);
    }
}

}  // namespace flash

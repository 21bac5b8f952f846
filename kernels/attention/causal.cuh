// Causal attention of the newest tokens of many sequences over their keys and values in the paged cache: the decoder's
// prefill, whole or in chunks.
//
// The query heads that share a head of keys and values are rows of one product: row `r` of a sequence is its query
// `r / group` and the head `r % group` of the group. So a tile of 128 rows has few queries (18 of a group of 7) and ends
// little beyond the diagonal, keys and values are read once for the whole group, and a handful of queries fills a tile as
// well as it can.
//   Operations: 2 * n * n * heads * D for n new tokens of a new sequence: 0.48 TFLOP a layer at 8,192 tokens and 28 heads
//   of 128, 1.4 ms at 350 TFLOP/s, beside 9.5 ms of matrix products at 400.
//   Bytes: queries and results once; keys and values from the second-level cache, 512 bytes a key for every 128 rows: 128
//   operations a byte. They do not decide.
//   Occupancy at D = 128: 69.6 KB (a tile of queries, 34.8 KB, one of keys and one of values), at most 255 registers (128
//   sums, 64 scores; queries are read from shared memory for each tile): 2 blocks of 128 threads on Ampere and Hopper, one
//   where a multiprocessor has 100 KB. Reading queries again makes 26 operations a byte of shared memory, 3,355 a clock.
// The blocks with most keys are started first (the host orders the tiles), so that the last ones are short.
#pragma once
#include "attention/tiled.cuh"

namespace {

constexpr int BLOCK = 16;   // Tokens in a block of the cache.

// Rows of one sequence and one head of keys and values. It is small because it lies in registers beside the sums.
template <int D>
struct Packed {
    const bf16 *q, *keys, *values, *anywhere;
    const u32* blocks;
    bf16* out;
    int heads, kv_heads, group;
    int start, first;      // The sequence's first row in `q`, and which of its packed rows is the tile's first.
    int rows, before, visible;

    // Where row `row` of the tile lies in queries and in results, in elements.
    __device__ u64 place(int row) const {
        const int r = first + row;
        return (u64(start + r / group) * heads + blockIdx.y * group + r % group) * D;
    }
    __device__ u64 slot(int key) const {
        return ((u64(__ldg(blocks + key / BLOCK)) * BLOCK + key % BLOCK) * kv_heads + blockIdx.y) * D;
    }
    __device__ const bf16* query(int row) const { return row < rows ? q + place(row) : nullptr; }
    __device__ const bf16* key(int key) const { return key < visible ? keys + slot(key) : nullptr; }
    __device__ const bf16* value(int key) const { return key < visible ? values + slot(key) : nullptr; }
    __device__ int limit(int row) const {
        return before + (first + (row < rows ? row : rows - 1)) / group + 1;
    }
    __device__ bf16* output(int row) const { return row < rows ? out + place(row) : nullptr; }
};

// `q`, `out`: `(tokens, heads, D)`; `keys`, `values`: `(slots, kv_heads, D)`; `tables: (any, table_width)`, blocks of
// sequences; `sequences`: for each the first of its rows in `q`, how many queries it has there, how many keys in the cache,
// and its row of `tables`; `tiles`: for each tile of 128 rows its sequence and its first row. Grid: tiles, kv_heads. 128
// threads, TILED_BYTES<D> bytes.
template <int D>
__device__ __forceinline__ void causal(const bf16* q, const bf16* keys, const bf16* values, const u32* tables,
                                       const uint4* sequences, const uint2* tiles, bf16* out, int table_width, int heads,
                                       int kv_heads, float scale) {
    using namespace flash;
    SHARED_MEMORY(shared);
    const uint2 tile = tiles[blockIdx.x];
    const uint4 sequence = sequences[tile.x];
    Packed<D> job;
    job.q = q;
    job.keys = job.anywhere = keys;
    job.values = values;
    job.out = out;
    job.heads = heads;
    job.kv_heads = kv_heads;
    job.group = heads / kv_heads;
    job.blocks = tables + u64(sequence.w) * table_width;
    job.start = sequence.x;
    job.first = tile.y;
    const int queries = sequence.y, left = queries * job.group - job.first;
    job.rows = left < QUERY_ROWS ? left : QUERY_ROWS;
    job.before = int(sequence.z) - queries;
    job.visible = job.limit(job.rows - 1);
    attend<D>(job, shared, scale * LOG2_E);
}

}  // namespace

#define CAUSAL(D)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_causal_##D(                                         \
        const bf16* q, const bf16* keys, const bf16* values, const u32* tables, const uint4* sequences,                \
        const uint2* tiles, bf16* out, u32 table_width, u32 heads, u32 kv_heads, float scale) {                        \
        causal<D>(q, keys, values, tables, sequences, tiles, out, table_width, heads, kv_heads, scale);                \
    }

// Attention within segments, for the vision tower: windows of at most 64 patches, and whole frames of up to 65,536.
// Every token attends to all of its segment and to nothing else; there is no mask.
//
// Windows (`attention_windows_D`): one block has one window and a few heads, one after the other. It reads queries, keys and
// values as the projection wrote them, rotates queries and keys on the way to shared memory, and has all scores of a head
// in registers at once.
//   Bytes: qkv is read once and the result written once, 8 * D bytes a token and head; the angles (4 * D bytes a token,
//   only the first halves of the rows) are read again for each group of heads. At 65,536 patches, 16 heads of 80 and 4
//   heads a block: 671 MB and 84 MB, 0.19 ms at 4 TB/s. Rotating in a kernel of its own would read and write 671 MB more.
//   Operations: 4 * 64 * D a token and head: 21 GFLOP there, 0.03 ms at 800 TFLOP/s. So bytes decide.
//   Occupancy: 3 tiles of 64 rows, 33.8 KB at D = 80; at most 128 registers: 4 blocks of 128 threads on a
//   multiprocessor, which have up to 4 * 30 KB of loads on their way at a time. 4 TB/s at 800 ns need 3.2 MB, 24 KB on
//   each of 132.
//
// Frames (`attention_frames_D`): queries and keys have been rotated before (`rotary.cu`), because each key is read by
// every tile of queries. See `tiled.cuh` for the loop.
//   Operations: 4 * n * n * D a head: at 65,536 patches and 16 heads of 80 are 22 TFLOP a layer; the bytes (0.7 GB with
//   the results, and keys and values again for each query tile from the second-level cache: 512 * 21 MB a head, 172 GB,
//   35 ms at 5 TB/s against 60 ms of products at 370 TFLOP/s) do not decide. Blocks of one head run side by side, and its
//   21 MB of keys and values stay in the cache.
//   A tile of 128 x 64 is 2.6 MFLOP: 1,280 clocks of mma at 2,048 a clock (Ampere), 990 at about 2,650 (mma.sync on
//   Hopper). Beside them 8,192 exponentials take 512 clocks, and a warp issues about 820 instructions in all, 160 of them
//   mma: 820 issue slots of each scheduler for one block, less than the products take. Two blocks on a multiprocessor lie
//   one over the other; about 60 % of what mma.sync gives, 370 TFLOP/s on an H200.
//   Occupancy at D = 80: 22.5 KB, 252 registers (80 sums, 64 scores, 40 of queries): 2 blocks of 128 threads.
#pragma once
#include "attention/tiled.cuh"
#include "rotary/rotation.cuh"

namespace {

constexpr int WINDOW = 64;

// Rotates eight elements of a row and the eight half a head further on, on the way to shared memory.
__device__ __forceinline__ void copy_rotated(const bf16* from, const rotary::Eight& cos, const rotary::Eight& sin, int half,
                                             u8* to) {
    uint4 low = *reinterpret_cast<const uint4*>(from), high = *reinterpret_cast<const uint4*>(from + half);
    rotary::rotate(low, high, cos, sin);
    *reinterpret_cast<uint4*>(to) = low;
    *reinterpret_cast<uint4*>(to + half * 2) = high;
}

// `qkv: (tokens, 3 * heads * D)`; `cos`, `sin`: `(tokens, D)`; `segments`: first token and length (0..=64) of each window;
// `out: (tokens, heads * D)`. Grid: windows, heads / heads_per_block. 128 threads, 3 * 64 * STRIDE<D> bytes.
template <int D>
__device__ __forceinline__ void windows(const bf16* qkv, const float* cos, const float* sin, const uint2* segments,
                                        bf16* out, int heads, int heads_per_block, float scale) {
    using namespace flash;
    SHARED_MEMORY(shared);
    constexpr int N = WINDOW / 8, PAIRS = D / 16;
    u8 *queries = shared, *keys = queries + WINDOW * STRIDE<D>, *values = keys + WINDOW * STRIDE<D>;
    const uint2 segment = segments[blockIdx.x];
    const u64 start = segment.x;
    const int length = segment.y;
    const u64 width = u64(heads) * D;
    scale *= LOG2_E;

    const int first_head = blockIdx.y * heads_per_block;
    const int end = first_head + heads_per_block < heads ? first_head + heads_per_block : heads;
    for (int head = first_head; head < end; head++) {
        // Found again for each head, so that what follows from them is not kept in registers meanwhile.
        const int thread = opaque(threadIdx.x), lane = thread % 32, first_row = thread / 32 * 16;
        // The head before has been read to its end.
        __syncthreads();
        const bf16* source = qkv + start * 3 * width + head * D;
        copy_rows<D, WINDOW>(values, qkv, [&](int row) {
            return row < length ? source + row * 3 * width + 2 * width : nullptr;
        });
        for (int i = thread; i < WINDOW * PAIRS; i += THREADS) {
            const int row = i / PAIRS, column = i % PAIRS * 8;
            u8* to = queries + row * STRIDE<D> + column * 2;
            if (row < length) {
                const u64 angles = (start + row) * D + column;
                const rotary::Eight c(cos + angles), s(sin + angles);
                const bf16* from = source + row * 3 * width + column;
                copy_rotated(from, c, s, D / 2, to);
                copy_rotated(from + width, c, s, D / 2, to + WINDOW * STRIDE<D>);
            } else {
                // Rows of queries and keys beyond the window: zeros, so that no product is infinite or not a number.
                const uint4 zeros = make_uint4(0, 0, 0, 0);
                u8* places[4] = {to, to + D, to + WINDOW * STRIDE<D>, to + WINDOW * STRIDE<D> + D};
#pragma unroll
                for (int place = 0; place < 4; place++) *reinterpret_cast<uint4*>(places[place]) = zeros;
            }
        }
        copy_async_wait<0>();
        __syncthreads();
        // The same for all lanes of a warp.
        if (first_row >= length) continue;
        u8* my_queries = queries + first_row * STRIDE<D>;
        const int limits[1][2] = {{length, length}};
        float scores[1][N][4];
        u32 weights[1][N][2];
        Rows<D, 1> rows;
        rows.clear();
        multiply_keys<D, 1, N>(
            scores, [&](int, int k, u32(&a)[4]) { load_rows<D>(a, my_queries + k * 32, lane); }, keys, lane);
        if (length < WINDOW) hide(scores, 0, limits, lane);
        soften(rows, scores, weights, scale);
        add_values(rows, weights, values, lane);
        // The queries of this warp's rows have been read; all its lanes must have done so before it writes there.
        __syncwarp();
        bf16* to = out + (start + first_row) * width + head * D;
        store(
            rows, my_queries, [&](int row) { return first_row + row < length ? to + row * width : nullptr; }, lane);
    }
}

// A tile of queries of a frame.
template <int D>
struct Frame {
    const bf16 *queries, *keys, *values, *anywhere;   // The tile's first query, and the frame's first key and value.
    bf16* out;
    u64 stride, value_stride, out_stride;             // In elements, from token to token.
    int rows, visible;

    __device__ const bf16* query(int row) const { return row < rows ? queries + row * stride : nullptr; }
    __device__ const bf16* key(int key) const { return key < visible ? keys + key * stride : nullptr; }
    __device__ const bf16* value(int key) const { return key < visible ? values + key * value_stride : nullptr; }
    __device__ int limit(int) const { return visible; }
    __device__ bf16* output(int row) const { return row < rows ? out + row * out_stride : nullptr; }
};

// `rotated: (tokens, 2 * heads * D)`, queries and keys; `qkv` and `out` as above; `tiles`: for each tile of 128 queries its
// frame's first token and length, and which of the frame's tokens is its first query. Grid: tiles, heads. 128 threads,
// TILED_BYTES<D> bytes.
template <int D>
__device__ __forceinline__ void frames(const bf16* rotated, const bf16* qkv, const uint4* tiles, bf16* out, int heads,
                                       float scale) {
    using namespace flash;
    SHARED_MEMORY(shared);
    const uint4 tile = tiles[blockIdx.x];
    const u64 start = tile.x, first = start + tile.z, width = u64(heads) * D, column = u64(blockIdx.y) * D;
    const int length = tile.y, left = length - int(tile.z);
    Frame<D> job;
    job.stride = 2 * width;
    job.value_stride = 3 * width;
    job.out_stride = width;
    job.anywhere = qkv;
    job.queries = rotated + first * job.stride + column;
    job.keys = rotated + start * job.stride + width + column;
    job.values = qkv + start * job.value_stride + 2 * width + column;
    job.out = out + first * width + column;
    job.rows = left < QUERY_ROWS ? left : QUERY_ROWS;
    job.visible = length;
    attend<D>(job, shared, scale * LOG2_E);
}

}  // namespace

#define VARLEN(D)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128, 4)                                                               \
        attention_windows_##D(const bf16* qkv, const float* cos, const float* sin, const uint2* segments, bf16* out,   \
                              u32 heads, u32 heads_per_block, float scale) {                                           \
        windows<D>(qkv, cos, sin, segments, out, heads, heads_per_block, scale);                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 2)                                                               \
        attention_frames_##D(const bf16* rotated, const bf16* qkv, const uint4* tiles, bf16* out, u32 heads,           \
                             float scale) {                                                                            \
        frames<D>(rotated, qkv, tiles, out, heads, scale);                                                             \
    }

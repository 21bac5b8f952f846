// Rows of the vocabulary's table, widened to f32.
//
// Floor: a row read as it is stored and 4 bytes written for each element: 1,276 tokens of 3,584 in bf16: 27 MB, 7 us at
// 4 TB/s; a step's 16 rows are nothing but the launch. Of a table in bf16 a thread reads 16 bytes and writes 32. Of a
// quantized one it reads a pair of codes and writes 8 bytes; a row's codes lie 64 bytes together in cells of 16 rows, so
// that up to eight times more is fetched than used, still less than is written. Ids lie in the device's memory, so that
// a step can take those that sampling has just left there.

#include "../linear/codes.cuh"
#include "eights.cuh"

// Row `ids[i]` of `table: (rows, pitch)`, of which `dim` elements count, becomes row `i` of `y: (n, dim)`. The pitch is
// a multiple of 8 elements and the table aligned to 16 bytes. An id outside gives zeros.
extern "C" __global__ void __launch_bounds__(256) embedding_bf16(
    const bf16* table, const u32* ids, float* y, u32 rows, u32 pitch, u32 n, u32 dim) {
    const u32 eights = (dim + 7) / 8;
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * eights) return;
    const u32 row = i / eights, first = i % eights * 8, id = ids[row];
    float values[8] = {};
    if (id < rows) load_eight(table + u64(id) * pitch + first, values);
    float* to = y + u64(row) * dim + first;
    if (dim % 8 == 0) {
        store_eight(to, values);
        return;
    }
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        if (first + j < dim) to[j] = values[j];
    }
}

// The same from cells as codes.cuh describes them; `pitch` is the bytes of 16 rows. Codes times scales are exact in f32.
template <int KIND>
__device__ void from_cells(const u8* table, const u32* ids, float* y, u32 rows, u32 pitch, u32 n, u32 dim) {
    const u32 pairs = (dim + 1) / 2;
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * pairs) return;
    const u32 row = i / pairs, feature = i % pairs * 2, id = ids[row];
    float values[2] = {};
    if (id < rows) {
        const u8* cell = table + u64(id / 16) * pitch + feature / GROUP * CELL<KIND>;
        const u32 step = feature % GROUP / 16, lane = id % 8 * 4 + feature % 8 / 2;
        // Which of the four registers of `mma`: the lower rows, the farther features.
        const u32 reg = id % 16 / 8 + feature % 16 / 8 * 2;
        const u32 word = reinterpret_cast<const u16*>(cell + CELL<KIND> - 32)[id % 8 * 2 + id % 16 / 8];
        float scale = __uint_as_float(word << 16), zero = 64.0f;
        if constexpr (KIND == INT4_ZERO) {
            // Nine bits: five of the exponent, counted from 2^-26, and four of the mantissa.
            scale = __uint_as_float((word >> 7) + ((127 - 26) << 4) << 19);
            zero = float(word & 0x7f);
        }
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            if constexpr (KIND == INT8) {
                values[j] = (float(cell[lane * 16 + step * 8 + reg * 2 + j]) - 128.0f) * scale;
            } else {
                const u32 code = cell[lane * 8 + step * 4 + j * 2 + reg / 2] >> (reg % 2 * 4) & 15;
                values[j] = (8.0f * float(code) - zero) * scale;
            }
        }
    }
    float* to = y + u64(row) * dim + feature;
    to[0] = values[0];
    if (feature + 1 < dim) to[1] = values[1];
}

#define FROM_CELLS(name, KIND)                                                                            \
    extern "C" __global__ void __launch_bounds__(256) name(                                               \
        const u8* table, const u32* ids, float* y, u32 rows, u32 pitch, u32 n, u32 dim) {                 \
        from_cells<KIND>(table, ids, y, rows, pitch, n, dim);                                             \
    }

FROM_CELLS(embedding_int8, INT8)
FROM_CELLS(embedding_int4, INT4)
FROM_CELLS(embedding_int4_zero, INT4_ZERO)

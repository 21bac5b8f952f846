// Rows of the vocabulary's table, widened to f32.
//
// Floor: 6 bytes for each element of a row: 1,276 tokens of 3,584: 27 MB, 7 us at 4 TB/s; a step's 16 rows are nothing
// but the launch. Each thread reads 16 bytes and writes 32. Ids lie in the device's memory, so that a step can take
// those that sampling has just left there.

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

// The largest elements of each row, for arg-max and for the log-probabilities that a request asks for.
//
// Floor: a row read once: 151,936 logits in f32 are 608 KB, 0.2 us at 4 TB/s and still in the cache of the second
// level after the output layer. One launch: 75 blocks for each such row, each of which keeps 8 elements a thread in
// registers and finds its own `k` largest in `k` rounds; the row's last block finds the largest among those. A round is
// two barriers, about 0.2 us: 4 us with the launch for the arg-max, 10 us for k = 20.

#include "order.cuh"

constexpr u32 EACH = CHUNK / THREADS;

// `found: (rows, k)` becomes the columns of the `k` largest elements of each row of `x: (rows, columns)`, largest first,
// and `values: (rows, k)` the elements; what is missing when `columns < k` is left alone. The grid is
// `(chunks, rows)`; `candidates: (rows, chunks, k)` is room; `arrived: (rows)` is zero before and after.
extern "C" __global__ void __launch_bounds__(256) top_k(
    const float* x, u32 columns, u32 k, u64* candidates, u32* arrived, u32* found, float* values) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    const u32 row = blockIdx.y, chunk = blockIdx.x, chunks = gridDim.x;
    const float* elements = x + u64(row) * columns;
    u64 places[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 column = chunk * CHUNK + i * THREADS + threadIdx.x;
        places[i] = column < columns ? place_of(elements[column], column) : 0;
    }
    u64* all = candidates + u64(row) * chunks * k;
    u64 bound = ~u64(0);
    for (u32 round = 0; round < k; round++) {
        u64 largest = 0;
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            if (places[i] < bound && places[i] > largest) largest = places[i];
        }
        bound = max_of_block(largest, room);
        if (threadIdx.x == 0) all[chunk * k + round] = bound;
    }
    if (!is_last(arrived + row, chunks, room)) return;
    const volatile u64* others = all;
    bound = ~u64(0);
    for (u32 round = 0; round < k && round < columns; round++) {
        u64 largest = 0;
        for (u32 i = threadIdx.x; i < chunks * k; i += THREADS) {
            const u64 place = others[i];
            if (place < bound && place > largest) largest = place;
        }
        bound = max_of_block(largest, room);
        if (threadIdx.x == 0) {
            found[row * k + round] = index_at(bound);
            values[row * k + round] = elements[index_at(bound)];
        }
    }
}

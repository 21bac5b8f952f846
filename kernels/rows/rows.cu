// Gather and scatter of rows: copies in units of 16, 4 or 2 bytes, the widest that rows and addresses allow. Elements
// are never looked at, so all types share these.
//
// Floor: each byte read and written once. The tower's permutation of 16,384 patches of 1,280 in f32: 168 MB, 42 us at
// 4 TB/s; a prompt's picture of 1,280 tokens of 3,584: 37 MB, 9 us. One unit to a thread: 2,048 threads of a
// multiprocessor have 32 KB on their way, 4.3 MB on all 132 of an H100, twice what latency times bandwidth asks for.

#include "device.cuh"

// Row `indices[i]` of `x: (rows, units)` becomes row `i` of `y: (n, units)`. An index outside gives zeros: indices on
// the device are not seen by the host.
template <typename Unit>
__device__ void gather(const Unit* x, const u32* indices, Unit* y, u32 rows, u32 n, u32 units) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * units) return;
    const u32 row = i / units, unit = i % units, index = indices[row];
    y[i] = index < rows ? x[u64(index) * units + unit] : Unit{};
}

// Row `i` of `x: (n, units)` replaces row `indices[i]` of `y: (rows, units)`; an index outside replaces nothing.
template <typename Unit>
__device__ void scatter(const Unit* x, const u32* indices, Unit* y, u32 rows, u32 n, u32 units) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * units) return;
    const u32 row = i / units, unit = i % units, index = indices[row];
    if (index < rows) y[u64(index) * units + unit] = x[i];
}

#define ROWS(bytes, Unit)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) gather_##bytes(                                       \
        const Unit* x, const u32* indices, Unit* y, u32 rows, u32 n, u32 units) {                           \
        gather(x, indices, y, rows, n, units);                                                              \
    }                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) scatter_##bytes(                                      \
        const Unit* x, const u32* indices, Unit* y, u32 rows, u32 n, u32 units) {                           \
        scatter(x, indices, y, rows, n, units);                                                             \
    }

ROWS(16, uint4)
ROWS(4, u32)
ROWS(2, u16)

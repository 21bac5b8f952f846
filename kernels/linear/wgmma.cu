// Products of many tokens with bf16 weights on Hopper: `wgmma` of tiles that are copied by the hardware.
//
// **The floor.** As in tiles.cuh: 2 * tokens * rows * width operations, at some 800 T/s in practice.
//
// **Tiles.** 128 tokens x 256 rows (192 or 128 where that leaves fewer multiprocessors without work), 64 features at a
// time. One warpgroup starts copies; two multiply, each 64 tokens by all rows, so that a tile of rows is copied once for
// both. `wgmma` m64n256k16 takes 128 cycles and reads 10 KiB of shared memory, 80 of 128 bytes a cycle; copies write 48 KiB
// in the 1024 cycles of a step. Four stages of 48 KiB (five of 40, six of 32) are 192 KiB, three of them, some 3000 cycles,
// under way: several times the memory's latency.
//
// **Registers.** 65536 / 384 threads are 168; the copying warpgroup keeps 40, the others get 232, of which 128 hold sums.
//
// **Order.** Blocks stay on their multiprocessors and take every gridDim.x-th tile; 8 tiles of tokens go through all rows
// before the next 8 begin, so that tiles that run together share factors in the second-level cache. The copies of the
// next tile go on while sums are finished.
//
// **Sums** are made 16 features at a time in their order, as everywhere else in this folder.

#include "hopper.cuh"
#include "product.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr u32 WGMMA_TOKENS = 128;
constexpr u32 WGMMA_GROUPED = 8;
constexpr u32 MULTIPLIERS = 2;

template <int ROWS, int STAGES>
struct Wgmma {
    static constexpr u32 X_BYTES = WGMMA_TOKENS * 128;
    static constexpr u32 STAGE = X_BYTES + ROWS * 128;
    static constexpr u32 STAGING = MULTIPLIERS * 4 * STAGED_BYTES;

    struct Place {
        u32 token, row;
    };

    // Where tile `index` begins.
    static __device__ Place place(const Product& p, u32 index) {
        u32 token_tiles = (p.tokens + WGMMA_TOKENS - 1) / WGMMA_TOKENS, row_tiles = (p.rows + ROWS - 1) / ROWS;
        u32 grouped = WGMMA_GROUPED * row_tiles;
        u32 first = index / grouped * WGMMA_GROUPED, within = index % grouped;
        u32 height = min(token_tiles - first, WGMMA_GROUPED);
        return {(first + within % height) * WGMMA_TOKENS, within / height * ROWS};
    }

    static __device__ u32 tiles(const Product& p) {
        return (p.tokens + WGMMA_TOKENS - 1) / WGMMA_TOKENS * ((p.rows + ROWS - 1) / ROWS);
    }

    // One thread starts all copies, in the order in which the others multiply.
    static __device__ void copy(
        const Product& p, const TensorMap* x, const TensorMap* weight, u8* shared, u64* full, u64* empty) {
        u32 stage = 0, parity = 1;
        for (u32 index = blockIdx.x; index < tiles(p); index += gridDim.x) {
            Place at = place(p, index);
            for (u32 block = 0; block < p.blocks; block++) {
                // At first all stages are free: the phase before the first counts as ended.
                phase_barrier_wait(&empty[stage], parity);
                u8* to = shared + stage * STAGE;
                phase_barrier_expect(&full[stage], STAGE);
                copy_tile_async(to, x, block * BLOCK, at.token, &full[stage]);
                copy_tile_async(to + X_BYTES, weight, block * BLOCK, at.row, &full[stage]);
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
            }
        }
    }

    static __device__ void multiply(const Product& p, u8* shared, u64* full, u64* empty, u8* staging, u32 group) {
        u32 warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        staging += (group * 4 + warp) * STAGED_BYTES;
        u32 stage = 0, parity = 0;
        for (u32 index = blockIdx.x; index < tiles(p); index += gridDim.x) {
            Place at = place(p, index);
            for (u32 slice = 0; slice < p.slices; slice++) {
                float sums[1][ROWS / 8][4];
#pragma unroll
                for (int n = 0; n < ROWS / 8; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[0][n][i] = 0.0f;
                }
                hold_sums(sums[0]);
                u32 begin = slice_start(p, slice), end = slice_start(p, slice + 1);
                u32 before = 0;
                for (u32 block = begin; block < end; block++) {
                    phase_barrier_wait(&full[stage], parity);
                    const u8* x = shared + stage * STAGE + group * (64 * 128);
                    const u8* weight = shared + stage * STAGE + X_BYTES;
                    wgmma_fence();
#pragma unroll
                    for (u32 feature = 0; feature < BLOCK; feature += 16) {
                        wgmma_k16(sums[0], describe_tile(x, feature), describe_tile(weight, feature));
                    }
                    wgmma_commit();
                    // The products of the step before are done when only this one's are under way.
                    wgmma_wait<1>();
                    if (block != begin && lane == 0) phase_barrier_arrive(&empty[before]);
                    before = stage;
                    if (++stage == STAGES) {
                        stage = 0;
                        parity ^= 1;
                    }
                }
                wgmma_wait<0>();
                hold_sums(sums[0]);
                if (begin != end && lane == 0) phase_barrier_arrive(&empty[before]);
                finish_tile(p, sums, staging, at.token + group * 64 + warp * 16, at.row, slice == 0);
            }
        }
    }

    static __device__ void run(const Product& p, const TensorMap* x, const TensorMap* weight, u8* shared) {
        u8* staging = shared + STAGES * STAGE;
        u64* full = reinterpret_cast<u64*>(staging + STAGING);
        u64* empty = full + STAGES;
        if (threadIdx.x == 0) {
            prefetch_map(x);
            prefetch_map(weight);
            for (int i = 0; i < STAGES; i++) {
                phase_barrier_init(&full[i], 1);
                phase_barrier_init(&empty[i], MULTIPLIERS * 4);
            }
            phase_barriers_ready();
        }
        __syncthreads();
        u32 group = threadIdx.x / 128;
        if (group == MULTIPLIERS) {
            fewer_registers<40>();
            if (threadIdx.x == MULTIPLIERS * 128) copy(p, x, weight, shared, full, empty);
        } else {
            more_registers<232>();
            multiply(p, shared, full, empty, staging, group);
        }
    }
};

#define WGMMA(rows, stages)                                                                                         \
    extern "C" __global__ void __launch_bounds__(384, 1) linear_wgmma_##rows(                                       \
        const Product p, const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight) {           \
        SHARED_MEMORY(shared);                                                                                      \
        Wgmma<rows, stages>::run(p, &x, &weight, shared);                                                           \
    }

// hot: linear_wgmma_128 linear_wgmma_192 linear_wgmma_256
WGMMA(128, 6)
WGMMA(192, 5)
WGMMA(256, 4)

#endif

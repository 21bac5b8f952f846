// What the attention kernels share: products of a warp's query rows with a tile of keys and of values on tensor cores,
// and the softmax that is corrected as larger scores come (Milakov and Gimelshein, https://arxiv.org/abs/1805.02867;
// Dao, https://arxiv.org/abs/2307.08691).
//
// Numbers: factors of both products are bf16, sums are f32. Scores stay f32 and are scaled as f32; their exponentials
// (base 2, with log2(e) in the scale) are rounded to bf16 only for the second product, while their sum is taken before
// that rounding. A score that nobody may see is minus infinity.
//
// Shared memory: a row of `D` elements has one chunk of 16 bytes more than it needs. `D` is a multiple of 16, so a row is
// an odd number of chunks, and any eight rows in a row that `ldmatrix` reads at one column lie in eight different groups
// of four banks, for every `D`: no conflicts, and no other swizzle is needed.
#pragma once
#include "device.cuh"

namespace flash {

constexpr float LOG2_E = 1.4426950408889634f;

// Minus infinity: the score of what is not seen.
__device__ __forceinline__ float nothing() {
    return low_float(0xff80);
}

// Bytes from one row of `D` elements to the next in shared memory.
template <int D>
constexpr int STRIDE = 2 * D + 16;

// What a warp keeps of `16 * M` query rows: lane `l` has of row block `m` the rows `l / 4` and `l / 4 + 8` (index `h`
// below), and of each 8 columns the two from `2 * (l % 4)` on. All of it lies in registers.
template <int D, int M>
struct Rows {
    float sums[M][2];      // Of this lane's columns only; the four lanes of a row are added up at the end.
    float base[M][2];      // What is subtracted from scaled scores; minus infinity as long as nothing was seen.
    float out[M][D / 8][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                sums[m][h] = 0.0f;
                base[m][h] = nothing();
            }
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
#pragma unroll
                for (int i = 0; i < 4; i++) out[m][d][i] = 0.0f;
            }
        }
    }
};

// The factors of 16 rows and 16 columns whose first row and column are at `rows`.
template <int D>
__device__ __forceinline__ void load_rows(u32 (&a)[4], const u8* rows, int lane) {
    ldmatrix_x4(a, rows + opaque((lane % 16) * STRIDE<D> + (lane / 16) * 16));
}

// `scores = queries . keys^T` for `16 * M` rows of queries and `8 * N` keys. `query(m, k, a)` gives the factors of row
// block `m` at columns `16 * k`; `keys` are in shared memory.
template <int D, int M, int N, class Query>
__device__ __forceinline__ void multiply_keys(float (&scores)[M][N][4], Query query, const u8* keys, int lane) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[m][n][i] = 0.0f;
        }
    }
    const u8* mine = keys + opaque(((lane / 16) * 8 + lane % 8) * STRIDE<D> + (lane / 8 % 2) * 16);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) query(m, k, a[m]);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            u32 b[4];
            ldmatrix_x4(b, mine + n * 16 * STRIDE<D> + k * 32);
            const u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16(scores[m][2 * n], a[m], first);
                mma_m16n8k16(scores[m][2 * n + 1], a[m], second);
            }
        }
    }
}

// `rows.out += weights . values` for `8 * N` values in shared memory.
template <int D, int M, int N>
__device__ __forceinline__ void add_values(Rows<D, M>& rows, const u32 (&weights)[M][N][2], const u8* values, int lane) {
    const u8* mine = values + opaque((lane % 16) * STRIDE<D> + (lane / 16) * 16);
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        // The accumulators of two neighbouring tiles of scores are, as they lie, the factors of 16 columns.
        u32 a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) a[m][i] = weights[m][2 * n + i / 2][i % 2];
        }
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            u32 b[4];
            ldmatrix_x4_trans(b, mine + n * 16 * STRIDE<D> + d * 32);
            const u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16(rows.out[m][2 * d], a[m], first);
                mma_m16n8k16(rows.out[m][2 * d + 1], a[m], second);
            }
        }
    }
}

// Hides what must not be seen: key `first + column` from row `(m, h)` unless it is below `limits[m][h]`.
template <int M, int N>
__device__ __forceinline__ void hide(float (&scores)[M][N][4], int first, const int (&limits)[M][2], int lane) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = first + n * 8 + lane % 4 * 2 + i % 2;
                if (key >= limits[m][i / 2]) scores[m][n][i] = nothing();
            }
        }
    }
}

// How far, as a power of two, a score may be above the base of its row before the base moves.
constexpr float SLACK = 8.0f;

// Turns scores into weights relative to the row's base, two of them in one register. The base is the largest score when it
// was set, and moves only when a score is more than SLACK above it: weights are then below 2^SLACK, their relative
// roundings are the same, and what was added up before is made relative to a new base only in few tiles. Whether a row's base
// moves is its own matter; that all rows of a warp are multiplied then, most of them by 1, changes nothing.
// `scale` is positive and has log2(e) in it.
template <int D, int M, int N>
__device__ __forceinline__ void soften(Rows<D, M>& rows, const float (&scores)[M][N][4], u32 (&weights)[M][N][2],
                                       float scale) {
    float largest[M][2];
    bool moves = false;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = nothing();
#pragma unroll
            for (int n = 0; n < N; n++) {
                most = fmaxf(most, fmaxf(scores[m][n][2 * h], scores[m][n][2 * h + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2)) * scale;
            largest[m][h] = most;
            moves = moves || most > rows.base[m][h] + SLACK;
        }
    }
    if (__ballot_sync(0xffffffffu, moves) != 0) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float before = rows.base[m][h];
                if (largest[m][h] > before + SLACK) rows.base[m][h] = largest[m][h];
                // Where nothing was seen before there is nothing to correct, or nothing was seen yet.
                const float correction = before == rows.base[m][h] ? 1.0f : exp2_fast(before - rows.base[m][h]);
                rows.sums[m][h] *= correction;
#pragma unroll
                for (int d = 0; d < D / 8; d++) {
                    rows.out[m][d][2 * h] *= correction;
                    rows.out[m][d][2 * h + 1] *= correction;
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            // A row that has seen nothing yet subtracts 0, so that its weights are 0 and not the exponential of nothing
            // less nothing.
            const float base = rows.base[m][h] == nothing() ? 0.0f : rows.base[m][h];
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < N; n++) {
                const float a = exp2_fast(scores[m][n][2 * h] * scale - base);
                const float b = exp2_fast(scores[m][n][2 * h + 1] * scale - base);
                sum += a + b;
                weights[m][n][h] = pack_bf16(a, b);
            }
            rows.sums[m][h] += sum;
        }
    }
}

// Adds up the sums of a row's four lanes.
template <int D, int M>
__device__ __forceinline__ void complete_sums(Rows<D, M>& rows) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = rows.sums[m][h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            rows.sums[m][h] = sum;
        }
    }
}

// Divides by the sums and writes the rows out by way of `room`, `16 * M` rows of shared memory that are this warp's alone,
// so that each row is stored in whole chunks of 16 bytes. `to(row)` is where a row goes, or null.
template <int D, int M, class To>
__device__ __forceinline__ void store(Rows<D, M>& rows, u8* room, To to, int lane) {
    complete_sums(rows);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float share = rows.sums[m][h] > 0.0f ? 1.0f / rows.sums[m][h] : 0.0f;
            u8* row = room + (m * 16 + h * 8 + lane / 4) * STRIDE<D> + lane % 4 * 4;
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
                *reinterpret_cast<u32*>(row + d * 16) =
                    pack_bf16(rows.out[m][d][2 * h] * share, rows.out[m][d][2 * h + 1] * share);
            }
        }
    }
    __syncwarp();
#pragma unroll
    for (int n = 0; n < M * D / 16; n++) {
        const int i = n * 32 + lane, row = i / (D / 8), chunk = i % (D / 8);
        bf16* out = to(row);
        if (out != nullptr) {
            *reinterpret_cast<uint4*>(out + chunk * 8) =
                *reinterpret_cast<const uint4*>(room + row * STRIDE<D> + chunk * 16);
        }
    }
}

}  // namespace flash

// What all matrix products share: their arguments, the order of their sums, and what happens to finished sums.
//
// y = x . W^T + b, with x: (tokens, width) bf16, W: (rows, width), sums in f32.
//
// **Company.** An output has the same bits whatever other tokens are computed with it. Every kernel of this folder
// multiplies with `mma` of 16 features at a time, in the order of the features, into one accumulator that begins at zero;
// only `slices` cuts that order, and it follows from the weight's shape and the finish alone. Tiles of any size, warps in
// any number, and weights as the first or the second factor (a product of two numbers does not know which came first)
// therefore give the same sums. Features that fill a row up to a multiple of 64 add zeros.

#pragma once
#include "device.cuh"

// Weights are filled up with zeros to a multiple of this many features.
constexpr u32 BLOCK = 64;

// What happens to finished sums; the bias, where there is one, is added before.
enum Finish : u32 {
    STORE = 0,      // y = sum, bf16
    STORE_F32 = 1,  // y = sum, f32
    ADD = 2,        // y += sum, f32
    SWIGLU = 3,     // y = silu(gate) * up, bf16; eight rows of gates and eight of ups alternate
    GELU = 4,       // y = gelu(sum), bf16, the exact one with erf
};

// The layout is that of `Arguments` in cuda/launch.rs.
struct Product {
    const bf16* x;
    const u8* weight;
    // f32, one for each row of the weight, or null.
    const float* bias;
    void* y;
    u32 tokens;
    // Elements of a row of x: a multiple of 8, so that rows begin at multiples of 16 bytes.
    u32 width;
    // Rows of the weight. Their number is even where they alternate.
    u32 rows;
    // Blocks of 64 features of the weight.
    u32 blocks;
    // Elements of a row of y: `rows`, or half of them for SWIGLU.
    u32 outputs;
    Finish finish;
    // 1, or 2 for ADD with a long row: y = (y + (first half + bias)) + second half.
    u32 slices;
    u32 unused;
};

// The first block of slice `slice`.
__device__ inline u32 slice_start(const Product& p, u32 slice) {
    return (p.blocks * slice + p.slices - 1) / p.slices;
}

__device__ inline float gelu(float x) {
    float half = 0.5f * x;
    return fmaf(half, erff(x * 0.70710678118654752f), half);
}

__device__ inline float swiglu(float gate, float up) {
    return gate * reciprocal_fast(1.0f + exp2_fast(gate * -1.4426950408889634f)) * up;
}

__device__ inline float bias_of(const Product& p, u32 row) {
    return p.bias != nullptr && row < p.rows ? p.bias[row] : 0.0f;
}

// Writes one output.
__device__ inline void put(const Product& p, u32 finish, u32 token, u32 output, float value) {
    u64 at = u64(token) * p.outputs + output;
    if (finish == STORE_F32) {
        static_cast<float*>(p.y)[at] = value;
    } else if (finish == ADD) {
        static_cast<float*>(p.y)[at] += value;
    } else {
        static_cast<bf16*>(p.y)[at] = to_bf16(finish == GELU ? gelu(value) : value);
    }
}

// Eight neighbouring numbers, of which the first lies at a multiple of 16 bytes.
__device__ inline void read_eight(float (&to)[8], const float* from) {
    float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

__device__ inline void write_eight(float* to, const float (&from)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

// Adds the biases of eight rows from `row` on, a multiple of 8.
__device__ inline void add_bias(const Product& p, float (&sums)[8], u32 row) {
    if (row + 8 <= p.rows) {
        float bias[8];
        read_eight(bias, p.bias + row);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += bias[i];
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += bias_of(p, row + i);
    }
}

// Writes eight outputs from `output` on, a multiple of 8; those that do not exist are left out.
__device__ inline void put_eight(const Product& p, u32 finish, u32 token, u32 output, float (&values)[8]) {
    if (p.outputs % 8 != 0) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (output + i < p.outputs) put(p, finish, token, output + i, values[i]);
        }
        return;
    }
    u64 at = u64(token) * p.outputs + output;
    if (finish == STORE_F32) {
        write_eight(static_cast<float*>(p.y) + at, values);
    } else if (finish == ADD) {
        float* y = static_cast<float*>(p.y) + at;
        float old[8];
        read_eight(old, y);
#pragma unroll
        for (int i = 0; i < 8; i++) old[i] += values[i];
        write_eight(y, old);
    } else {
        if (finish == GELU) {
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = gelu(values[i]);
        }
        uint4 packed;
        packed.x = pack_bf16(values[0], values[1]);
        packed.y = pack_bf16(values[2], values[3]);
        packed.z = pack_bf16(values[4], values[5]);
        packed.w = pack_bf16(values[6], values[7]);
        *reinterpret_cast<uint4*>(static_cast<bf16*>(p.y) + at) = packed;
    }
}

// Sums are staged 16 tokens by 32 rows at a time.
constexpr int STAGED_TILES = 4;
// Floats between the beginnings of two tokens' staged sums: what `mma` leaves is written there without two lanes of a half
// warp meeting in a bank.
constexpr u32 STAGED_PITCH = STAGED_TILES * 8 + 8;
// Bytes that a warp needs for them.
constexpr u32 STAGED_BYTES = 16 * STAGED_PITCH * 4;

// Finishes the sums of one warp: `TOKEN_TILES` times 16 tokens from `token` on and `ROW_TILES` times 8 rows from `row` on
// (a multiple of 16), as `mma` leaves them when tokens are its first factor; `wgmma` leaves its own the same way. They go
// through `STAGED_BYTES` of shared memory that are this warp's alone, so that each lane writes 16 or 32 bytes at a time.
// `first` says that they are the sums of the first slice.
template <int TOKEN_TILES, int ROW_TILES>
__device__ inline void finish_tile(
    const Product& p, const float (&sums)[TOKEN_TILES][ROW_TILES][4], u8* staging, u32 token, u32 row, bool first) {
    constexpr int PARTS = ROW_TILES / STAGED_TILES;
    u32 lane = threadIdx.x % 32;
    float* staged = reinterpret_cast<float*>(staging);
    bool pairs = p.finish == SWIGLU;
    u32 eights = pairs ? STAGED_TILES / 2 : STAGED_TILES;
#pragma unroll 1
    for (int round = 0; round < TOKEN_TILES * PARTS; round++) {
        u32 first_token = token + round / PARTS * 16, first_row = row + round % PARTS * (STAGED_TILES * 8);
        if (first_token >= p.tokens || first_row >= p.rows) continue;
#pragma unroll
        for (int m = 0; m < TOKEN_TILES; m++) {
#pragma unroll
            for (int n = 0; n < ROW_TILES; n++) {
                if (m * PARTS + n / STAGED_TILES != round) continue;
                float* to = staged + lane / 4 * STAGED_PITCH + n % STAGED_TILES * 8 + lane % 4 * 2;
                *reinterpret_cast<float2*>(to) = make_float2(sums[m][n][0], sums[m][n][1]);
                *reinterpret_cast<float2*>(to + 8 * STAGED_PITCH) = make_float2(sums[m][n][2], sums[m][n][3]);
            }
        }
        __syncwarp();
#pragma unroll 1
        for (u32 i = lane; i < 16 * eights; i += 32) {
            u32 t = i / eights, offset = i % eights * (pairs ? 16 : 8);
            u32 r = first_row + offset;
            if (first_token + t >= p.tokens || r >= p.rows) continue;
            float values[8];
            read_eight(values, staged + t * STAGED_PITCH + offset);
            if (first && p.bias != nullptr) add_bias(p, values, r);
            if (pairs) {
                float ups[8];
                read_eight(ups, staged + t * STAGED_PITCH + offset + 8);
                if (p.bias != nullptr) add_bias(p, ups, r + 8);
#pragma unroll
                for (int j = 0; j < 8; j++) values[j] = swiglu(values[j], ups[j]);
                put_eight(p, STORE, first_token + t, r / 2, values);
            } else {
                put_eight(p, p.finish, first_token + t, r, values);
            }
        }
        __syncwarp();
    }
}

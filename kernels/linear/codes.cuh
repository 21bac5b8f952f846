// Weights as they are stored on the device, and how a warp widens them to factors of `mma`.
//
// | kind | bytes |
// |---|---|
// | `BF16` | rows one after the other, each filled up with zeros to a multiple of 64 features |
// | `INT8` | cells of 544 bytes: 512 of codes, 32 of scales |
// | `INT4` | cells of 288 bytes: 256 of codes, 32 of scales |
// | `INT4_ZERO` | the same, with a zero point beside each scale |
//
// A cell holds 16 rows and the 32 features that share a scale; the cells of 16 rows lie side by side, so that they are
// read as one stream. Each lane of a warp reads its own 16 or 8 bytes of a cell's codes, and they are those that `mma`
// wants of it: lane 4 g + t holds rows g and g + 8 at features 2 t, 2 t + 1, 2 t + 8, 2 t + 9 and the
// same four 16 features further. Word g of the scales holds that of row g in its lower half, of row g + 8 in its upper.
// The scales are the 16 bits that the processor's format has as well.
//
// A weight becomes a whole number between -128 and 127 exactly, then is multiplied by its scale and rounded to bf16.

#pragma once
#include "device.cuh"

enum Kind { BF16, INT8, INT4, INT4_ZERO };

// Features that share a scale.
constexpr u32 GROUP = 32;

template <int KIND>
constexpr u32 CELL = KIND == INT8 ? 544 : 288;

// Both halves of the result are the lower half of `x`, or its upper half.
__device__ inline u32 twice_low(u32 x) { return (x & 0xffff) | x << 16; }
__device__ inline u32 twice_high(u32 x) { return (x & 0xffff0000) | x >> 16; }

// -0.0 in both halves: what is added where only a product is wanted.
constexpr u32 NOTHING = 0x80008000;
constexpr u32 ONES = 0x3f803f80;

// Two codes of eight bits, in the lower bytes of both halves, as whole numbers around zero. With the exponent of 128 the
// lower seven bits are a number from 128 on; the eighth decides whether 128 or 256 is taken away from it.
__device__ inline u32 widen_bytes(u32 codes) {
    u32 from_128 = (codes & 0x007f007f) | 0x43004300;
    u32 minus = (codes & 0x00800080) ^ 0xc380c380;
    return fma_bf16x2(from_128, ONES, minus);
}

// Two codes of four bits, in bits 3 to 6 of both halves, times eight, minus a zero point: with the exponent of 128 they
// are 128 + 8 q, and `minus` is -(128 + z).
__device__ inline u32 widen_nibbles(u32 codes, u32 minus) {
    return fma_bf16x2((codes & 0x00780078) | 0x43004300, ONES, minus);
}

// The factors of 16 of a cell's features for this lane, those of the first half or the second: the four registers that
// `mma` takes of a first factor of 16 rows. As second factors of 8 rows, 0 and 2 are those of the upper rows, 1 and 3 of
// the lower. Half a cell at a time is what the registers of large tiles have room for.
template <int KIND>
__device__ inline void widen_half(u32 (&a)[4], const u8* cell, u32 lane, u32 half) {
    u32 word = *reinterpret_cast<const u32*>(cell + CELL<KIND> - 32 + lane / 4 * 4);
    u32 scale[2] = {twice_low(word), twice_high(word)};
    if constexpr (KIND == INT8) {
        uint2 codes = *reinterpret_cast<const uint2*>(cell + lane * 16 + half * 8);
        u32 words[2] = {codes.x, codes.y};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 pair = words[i / 2] >> 16 * (i % 2);
            pair = (pair & 0xff) | (pair & 0xff00) << 8;
            a[i] = fma_bf16x2(widen_bytes(pair), scale[i % 2], NOTHING);
        }
    } else {
        u32 minus[2] = {0xc340c340, 0xc340c340};
        if constexpr (KIND == INT4_ZERO) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                minus[i] = (scale[i] & 0x007f007f) | 0xc300c300;
                // Nine bits: five of the exponent, counted from 2^-26, and four of the mantissa.
                scale[i] = (scale[i] >> 4 & 0x0ff80ff8) + 0x32803280;
            }
        }
        u32 codes = *reinterpret_cast<const u32*>(cell + lane * 8 + half * 4);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 pair = i == 0 ? codes << 3 : codes >> (4 * i - 3);
            a[i] = fma_bf16x2(widen_nibbles(pair, minus[i % 2]), scale[i % 2], NOTHING);
        }
    }
}

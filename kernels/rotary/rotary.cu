// The tables of rotary position embedding, and the rotation of heads of bf16.
//
// Tables are made once for a step and read by all layers: at 65,536 patches of 80, 2 * 21 MB are written, and 2.6 million
// cosines and as many sines computed, well under 0.1 ms.
//
// The rotation reads each element once and writes it once: 4 bytes an element. Queries and keys of 65,536 patches and 16
// heads of 80 are 671 MB, 0.17 ms at 4 TB/s; the angles, 320 bytes a patch, come from the caches for all heads but the
// first. 16-byte loads and stores, no shared memory, about 40 registers: memory is kept busy by 2,048 threads a
// multiprocessor with 32 bytes each on their way.
#include "rotary/rotation.cuh"

// `cos`, `sin`: `(tokens, 2 * half)`, the second half of a row like its first: the angle of column `i < half` is
// `positions[token][axes[i]] * frequencies[i]`. `positions: (tokens, n_axes)`. Threads: one for each token and `i`.
extern "C" __global__ void __launch_bounds__(256)
    rotary_tables(const u32* positions, const float* frequencies, const u32* axes, float* cos, float* sin, u32 tokens,
                  u32 n_axes, u32 half) {
    const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= u64(tokens) * half) return;
    const u64 token = index / half;
    const u32 i = index % half;
    const float angle = float(positions[token * n_axes + axes[i]]) * frequencies[i];
    // The functions that reduce any angle: positions reach 100,000 and more radians.
    const float c = cosf(angle), s = sinf(angle);
    const u64 place = token * 2 * half + i;
    cos[place] = c;
    cos[place + half] = c;
    sin[place] = s;
    sin[place + half] = s;
}

// Rotates the first `heads` heads of each row of `x`, which are `head_dim` wide and lie side by side. `x_stride` and
// `y_stride` are elements from one row to the next. Grid: tokens, eights of half a row / 128. 128 threads.
extern "C" __global__ void __launch_bounds__(128)
    rotary_rotate(const bf16* x, const float* cos, const float* sin, bf16* y, u32 x_stride, u32 y_stride, u32 heads,
                  u32 head_dim) {
    const u64 token = blockIdx.x;
    const u32 eights = head_dim / 16, index = blockIdx.y * blockDim.x + threadIdx.x;
    if (index >= heads * eights) return;
    const u32 column = index % eights * 8, place = index / eights * head_dim + column;
    const bf16* from = x + token * x_stride + place;
    bf16* to = y + token * y_stride + place;
    uint4 low = *reinterpret_cast<const uint4*>(from), high = *reinterpret_cast<const uint4*>(from + head_dim / 2);
    const rotary::Eight c(cos + token * head_dim + column), s(sin + token * head_dim + column);
    rotary::rotate(low, high, c, s);
    *reinterpret_cast<uint4*>(to) = low;
    *reinterpret_cast<uint4*>(to + head_dim / 2) = high;
}

// The matrix instructions used as the PTX manual shows them, for the emulator's tests. No device ever runs these.

#include "device.cuh"

// d = a · b with a: (16, 16) by rows and b given as `bt`: (8, 16), its transpose by rows; one warp.
extern "C" __global__ void instruction_product(const bf16* a, const bf16* bt, float* d) {
    SHARED_MEMORY(shared);
    bf16* room = reinterpret_cast<bf16*>(shared);
    for (u32 i = threadIdx.x; i < 256; i += 32) room[i] = a[i];
    for (u32 i = threadIdx.x; i < 128; i += 32) room[256 + i] = bt[i];
    __syncwarp();
    u32 lane = threadIdx.x;
    u32 fa[4], fb[2];
    float fd[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    // Matrices: rows 0 to 7 and 8 to 15 of the first eight columns, then of the others.
    ldmatrix_x4(fa, room + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x2(fb, room + 256 + lane % 8 * 16 + lane % 16 / 8 * 8);
    mma_m16n8k16(fd, fa, fb);
    for (u32 i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = fd[i];
}

// The same with b: (16, 8) by rows and a given as `at`: (16, 16), its transpose by rows.
extern "C" __global__ void instruction_product_trans(const bf16* at, const bf16* b, float* d) {
    SHARED_MEMORY(shared);
    bf16* room = reinterpret_cast<bf16*>(shared);
    for (u32 i = threadIdx.x; i < 256; i += 32) room[i] = at[i];
    for (u32 i = threadIdx.x; i < 128; i += 32) room[256 + i] = b[i];
    __syncwarp();
    u32 lane = threadIdx.x;
    u32 fa[4], fb[2];
    float fd[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    // Matrix m of a's four begins at row 8 (m % 2) and column 8 (m / 2); transposed, these change places.
    ldmatrix_x4_trans(fa, room + (lane % 8 + lane / 16 * 8) * 16 + lane % 16 / 8 * 8);
    ldmatrix_x2_trans(fb, room + 256 + lane % 16 * 8);
    mma_m16n8k16(fd, fa, fb);
    for (u32 i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = fd[i];
}

extern "C" __global__ void instruction_shuffles(i32* out) {
    i32 lane = i32(threadIdx.x);
    i32* mine = out + 6 * lane;
    mine[0] = __shfl_sync(0xFFFFFFFFu, lane, 5);
    mine[1] = __shfl_xor_sync(0xFFFFFFFFu, lane, 12);
    mine[2] = __shfl_down_sync(0xFFFFFFFFu, lane, 3u);
    mine[3] = __shfl_up_sync(0xFFFFFFFFu, lane, 3u, 8);
    mine[4] = i32(__ballot_sync(0xFFFFFFFFu, lane % 3 == 0));
    mine[5] = i32(warp_sum(float(lane)));
}

// Kernels with one mistake each, which the emulator must find, and right ones beside them. No device ever runs these.

#include "device.cuh"

// Each thread writes what its neighbour reads, without a barrier between.
extern "C" __global__ void fault_no_barrier(float* out) {
    SHARED_MEMORY(shared);
    float* room = reinterpret_cast<float*>(shared);
    room[threadIdx.x] = float(threadIdx.x);
    out[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void fault_barrier(float* out) {
    SHARED_MEMORY(shared);
    float* room = reinterpret_cast<float*>(shared);
    room[threadIdx.x] = float(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void fault_half_a_barrier(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    }
    out[threadIdx.x] = 0.0f;
}

extern "C" __global__ void fault_two_barriers(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0.0f;
}

extern "C" __global__ void fault_diverged_shuffle(float* out) {
    float x = float(threadIdx.x);
    if (threadIdx.x % 2 == 0) {
        x = __shfl_xor_sync(0xFFFFFFFFu, x, 2);
    } else {
        x = __shfl_xor_sync(0xFFFFFFFFu, x, 4);
    }
    out[threadIdx.x] = x;
}

extern "C" __global__ void fault_lost_lane(float* out) {
    if (threadIdx.x == 7) {
        return;
    }
    out[threadIdx.x] = warp_sum(1.0f);
}

// Copies to shared memory, waiting for the copies when told so.
extern "C" __global__ void fault_copy(const float* in, float* out, i32 wait, i32 barrier) {
    SHARED_MEMORY(shared);
    copy_async_16(shared + 16 * threadIdx.x, in + 4 * threadIdx.x, true);
    copy_async_commit();
    if (wait) {
        copy_async_wait<0>();
    }
    if (barrier) {
        __syncthreads();
    }
    const float* room = reinterpret_cast<const float*>(shared);
    for (u32 i = 0; i < 4; i++) {
        u32 at = (4 * threadIdx.x + i + 4) % (4 * blockDim.x);
        out[4 * threadIdx.x + i] = room[at];
    }
}

extern "C" __global__ void fault_read(const float* in, float* out, i32 place) { out[threadIdx.x] = in[place]; }

extern "C" __global__ void fault_write(float* out, i32 place) {
    if (threadIdx.x == 3) {
        out[place] = 1.0f;
    }
}

extern "C" __global__ void fault_shared_write(float* out, i32 place) {
    SHARED_MEMORY(shared);
    shared[place] = 1;
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void fault_uninitialised(float* out) {
    SHARED_MEMORY(shared);
    out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x];
}

extern "C" __global__ void fault_divide(u32* out, u32 divisor) { out[threadIdx.x] = threadIdx.x / divisor; }

extern "C" __global__ void __launch_bounds__(64) fault_bounds(float* out) { out[threadIdx.x] = 1.0f; }

__device__ float deep(float* out, i32 depth) {
    float room[256];
    for (i32 i = 0; i < 256; i++) room[i] = out[i % 32] + float(depth);
    float below = depth > 0 ? deep(out, depth - 1) : 0.0f;
    for (i32 i = 0; i < 256; i++) below += room[i];
    return below;
}

extern "C" __global__ void fault_deep(float* out, i32 depth) { out[threadIdx.x] = deep(out, depth); }

// A structure by value, as C lays it out.
struct FaultShape {
    u32 features;
    float scale;
    u64 rows;
};

extern "C" __global__ void fault_structure(const FaultShape shape, float* out) {
    out[threadIdx.x] = float(shape.features) * shape.scale + float(shape.rows);
}

// Where every block and thread is, for the shape of launches.
extern "C" __global__ void fault_places(u32* out) {
    u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    u32 thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    atomicAdd(&out[block * (blockDim.x * blockDim.y * blockDim.z) + thread], 1 + block * 1000 + thread);
}

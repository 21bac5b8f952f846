// The CUDA language on a processor: what device.cuh includes in place of inline PTX. See emulator.cpp for how it runs.

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static const
#define __grid_constant__
#define __align__(n) alignas(n)
#define __restrict__ __restrict
// The scan for kernels' names in build.rs sees these words; the compiler does not.
#ifdef OCELLUS_EMULATOR_SCAN
#define __global__ __emulated_global__
#define __launch_bounds__(...) __emulated_bounds__(__VA_ARGS__)
#else
#define __global__
#define __launch_bounds__(...)
#endif

struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct int3 { int x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {

// One thread of a block.
struct Thread;

// Where the running thread is.
struct Place {
    uint3 thread_index, block_index, block_size, grid_size;
    unsigned lane;
};

extern thread_local Place place;

// The block's shared memory.
u8* shared_memory();
// Ends the launch with a message that names kernel, block and thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Fails unless `bytes` bytes from `pointer` on are shared memory and `pointer` is a multiple of `alignment`.
void expect_shared(const void* pointer, size_t bytes, size_t alignment, const char* what);

// What a collective operation of a warp does once all its lanes are there: operands[i] is what lane i brought, null for a
// lane that takes no part.
typedef void (*Action)(void* const* operands);
// Waits for all lanes of `mask`, of which each brings an operand; the last does `action` for all.
void together(unsigned mask, const char* what, const char* file, int line, void* operand, Action action);
// Waits for `threads` threads of the block.
void barrier(unsigned id, unsigned threads, const char* file, int line);
// Waits until `ready(state)` holds, while other threads run; for instructions that spin.
void wait_until(bool (*ready)(void* state), void* state, const char* what);

void copy_async(void* shared, const void* global, bool real);
void copy_async_commit();
void copy_async_wait(unsigned pending);

// The kernels of the compiled files.
struct Entry {
    const char* name;
    void (*call)(void* const* arguments);
    const unsigned* sizes;
    unsigned arguments;
    unsigned most_threads;
};

template <typename... T>
struct Arguments {
    static constexpr unsigned sizes[sizeof...(T) + 1] = {sizeof(T)..., 0};
    static constexpr unsigned count = sizeof...(T);
};

// Arguments are copied out, since they may lie less aligned than their type wants.
template <typename T>
T argument(const void* from) {
    T value;
    memcpy(&value, from, sizeof(T));
    return value;
}

template <size_t... I>
struct Indices {};
template <size_t N, size_t... I>
struct IndicesTo : IndicesTo<N - 1, N - 1, I...> {};
template <size_t... I>
struct IndicesTo<0, I...> {
    typedef Indices<I...> type;
};

template <typename... T, size_t... I>
inline void call(void (*kernel)(T...), void* const* arguments, Indices<I...>) {
    kernel(argument<T>(arguments[I])...);
}

template <typename... T>
inline void call(void (*kernel)(T...), void* const* arguments) {
    call(kernel, arguments, typename IndicesTo<sizeof...(T)>::type());
}

template <typename... T>
constexpr Arguments<T...> arguments_of(void (*)(T...)) {
    return {};
}

constexpr unsigned most_threads() { return 1024; }
constexpr unsigned most_threads(unsigned threads, unsigned = 0, unsigned = 0) { return threads; }

struct Table {
    const Entry* entries;
    unsigned count;
};

}  // namespace emulator

// One kernel in a file's table; the third argument is what its __launch_bounds__ says, in parentheses.
#define OCELLUS_KERNEL(kernel, bounds)                                                                  \
    {#kernel, [](void* const* arguments) { ::emulator::call(&kernel, arguments); },                     \
     decltype(::emulator::arguments_of(&kernel))::sizes, decltype(::emulator::arguments_of(&kernel))::count, \
     ::emulator::most_threads bounds}

#define threadIdx (::emulator::place.thread_index)
#define blockIdx (::emulator::place.block_index)
#define blockDim (::emulator::place.block_size)
#define gridDim (::emulator::place.grid_size)
#define warpSize 32

#define SHARED_MEMORY(name) u8* name = ::emulator::shared_memory()
#define __syncthreads() ::emulator::barrier(0, 0, __FILE__, __LINE__)
#define named_barrier(id, threads) ::emulator::barrier(id, threads, __FILE__, __LINE__)

#define OCELLUS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

void __syncwarp(unsigned mask = 0xFFFFFFFFu, OCELLUS_HERE);
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace emulator {

// A lane's value on its way to other lanes: at most 8 bytes.
struct Shuffled {
    unsigned long long value, result;
    unsigned source;
};

void shuffle(unsigned mask, Shuffled& shuffled, const char* what, const char* file, int line);

template <typename T>
T shuffle(unsigned mask, T value, unsigned source, const char* what, const char* file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Shuffled shuffled = {0, 0, source};
    memcpy(&shuffled.value, &value, sizeof(T));
    shuffle(mask, shuffled, what, file, line);
    memcpy(&value, &shuffled.result, sizeof(T));
    return value;
}

// The end of the segment of `width` lanes that the running lane is in.
inline unsigned segment_end(int width) { return (place.lane & ~(unsigned(width) - 1)) + unsigned(width); }

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, OCELLUS_HERE) {
    unsigned first = ::emulator::segment_end(width) - width;
    return ::emulator::shuffle(mask, value, first + (unsigned(lane) & (width - 1)), "__shfl_sync", file, line);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, OCELLUS_HERE) {
    unsigned source = ::emulator::place.lane ^ unsigned(lanes);
    if (source >= ::emulator::segment_end(width)) source = ::emulator::place.lane;
    return ::emulator::shuffle(mask, value, source, "__shfl_xor_sync", file, line);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, OCELLUS_HERE) {
    unsigned source = ::emulator::place.lane + lanes;
    if (source >= ::emulator::segment_end(width)) source = ::emulator::place.lane;
    return ::emulator::shuffle(mask, value, source, "__shfl_down_sync", file, line);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, OCELLUS_HERE) {
    unsigned first = ::emulator::segment_end(width) - width;
    unsigned source = ::emulator::place.lane >= first + lanes ? ::emulator::place.lane - lanes : ::emulator::place.lane;
    return ::emulator::shuffle(mask, value, source, "__shfl_up_sync", file, line);
}

unsigned __ballot_sync(unsigned mask, bool holds, OCELLUS_HERE);
inline bool __any_sync(unsigned mask, bool holds, OCELLUS_HERE) { return __ballot_sync(mask, holds, file, line) != 0; }
inline bool __all_sync(unsigned mask, bool holds, OCELLUS_HERE) {
    return __ballot_sync(mask, !holds, file, line) == 0;
}

// Blocks and threads of a launch run one at a time, so plain reads and writes are atomic.
template <typename T>
T atomicAdd(T* address, T value) {
    T before = *address;
    *address = before + value;
    return before;
}
template <typename T>
T atomicMax(T* address, T value) {
    T before = *address;
    if (value > before) *address = value;
    return before;
}
template <typename T>
T atomicMin(T* address, T value) {
    T before = *address;
    if (value < before) *address = value;
    return before;
}
template <typename T>
T atomicOr(T* address, T value) {
    T before = *address;
    *address = before | value;
    return before;
}
template <typename T>
T atomicExch(T* address, T value) {
    T before = *address;
    *address = value;
    return before;
}
template <typename T>
T atomicCAS(T* address, T compare, T value) {
    T before = *address;
    if (before == compare) *address = value;
    return before;
}
inline unsigned atomicInc(unsigned* address, unsigned most) {
    unsigned before = *address;
    *address = before >= most ? 0 : before + 1;
    return before;
}

template <typename T>
inline T __ldg(const T* address) {
    return *address;
}
template <typename T>
inline T __ldcs(const T* address) {
    return *address;
}
template <typename T>
inline T __ldcg(const T* address) {
    return *address;
}
template <typename T>
inline void __stcs(T* address, T value) {
    *address = value;
}

inline float __uint_as_float(unsigned x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
inline unsigned __float_as_uint(float x) {
    unsigned y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __int_as_float(int x) { return __uint_as_float(unsigned(x)); }
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((unsigned long long)x * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = selector >> (4 * i) & 0xF;
        unsigned byte = unsigned(both >> (8 * (choice & 7))) & 0xFF;
        if (choice & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

#define OCELLUS_MIN_MAX(T)                               \
    inline T min(T x, T y) { return y < x ? y : x; }     \
    inline T max(T x, T y) { return x < y ? y : x; }
OCELLUS_MIN_MAX(int)
OCELLUS_MIN_MAX(unsigned)
OCELLUS_MIN_MAX(long long)
OCELLUS_MIN_MAX(unsigned long long)
#undef OCELLUS_MIN_MAX
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }

// The instructions that device.cuh has in PTX for the device.

inline float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline bf16 to_bf16(float x) {
    unsigned bits = __float_as_uint(x);
    if (x != x) return {0x7FFF};
    return {u16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}
inline u32 pack_bf16(float low, float high) { return to_bf16(low).bits | u32(to_bf16(high).bits) << 16; }
inline float low_float(u32 pair) { return __uint_as_float(pair << 16); }
inline float high_float(u32 pair) { return __uint_as_float(pair & 0xFFFF0000u); }
inline float exp2_fast(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}
inline float reciprocal_fast(float x) { return 1.0f / x; }
inline u32 shared_address(const void* pointer) {
    ::emulator::expect_shared(pointer, 0, 1, "shared_address");
    return u32((const u8*)pointer - ::emulator::shared_memory());
}

inline void copy_async_16(void* shared, const void* global, bool real) { ::emulator::copy_async(shared, global, real); }
inline void copy_async_commit() { ::emulator::copy_async_commit(); }
template <int PENDING>
inline void copy_async_wait() {
    ::emulator::copy_async_wait(PENDING);
}

void ldmatrix_x4(u32 (&r)[4], const void* row, OCELLUS_HERE);
void ldmatrix_x2(u32 (&r)[2], const void* row, OCELLUS_HERE);
void ldmatrix_x4_trans(u32 (&r)[4], const void* row, OCELLUS_HERE);
void ldmatrix_x2_trans(u32 (&r)[2], const void* row, OCELLUS_HERE);
void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], OCELLUS_HERE);

// A product of two bf16 is exact in f64, and its sum with a third is but for numbers so far apart that rounding to odd, the
// last bit set where anything is lost, leaves the second rounding right.
inline u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    auto one = [](float x, float y, float z) {
        double exact = double(x) * double(y) + double(z);
        float narrow = float(exact);
        if (double(narrow) != exact && exact == exact) {
            unsigned bits = __float_as_uint(narrow);
            if (fabs(double(narrow)) > fabs(exact)) bits -= 1;
            narrow = __uint_as_float(bits | 1);
        }
        return to_bf16(narrow).bits;
    };
    return one(low_float(a), low_float(b), low_float(c)) |
           u32(one(high_float(a), high_float(b), high_float(c))) << 16;
}

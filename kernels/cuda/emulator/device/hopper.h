// Hopper's instructions on a processor: what hopper.cuh includes in place of inline PTX. Written from the PTX manual,
// "mbarrier", "cp.async.bulk.tensor", "Matrix descriptor" and "wgmma.mma_async".
//
// Everything asynchronous happens as late as it may: a tile is NaN until somebody waits for its barrier; sums are NaN, and
// factors are not looked at, until the products' group is waited for. So a stage that is given back too early, or read
// too early, shows as NaN.

#pragma once

#include <map>
#include <vector>

namespace emulator {

// --- Barriers with phases -----------------------------------------------------------------------------------------

// An mbarrier as it lies in its 64 bits; the device's own layout is not told.
struct PhaseBarrier {
    u32 phase : 1, expected : 15, pending : 16;
    i32 bytes;
};
static_assert(sizeof(PhaseBarrier) == 8, "an mbarrier has 64 bits");

// --- Tiles on their way -------------------------------------------------------------------------------------------

// As `tensor_map` of the emulated driver writes it.
constexpr u64 MAP_MAGIC = 0x6F63656C6C75736Dull;
struct EmulatedMap {
    u64 magic, address, columns, rows, pitch, tile_columns, tile_rows;
};

struct TileCopy {
    u8* shared;
    // Of its first row in shared memory.
    size_t place;
    EmulatedMap map;
    u32 x, y;
    PhaseBarrier* barrier;
};

inline thread_local std::vector<TileCopy> tile_copies;

inline void end_phase_if_complete(PhaseBarrier& barrier) {
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.phase ^= 1;
        barrier.pending = barrier.expected;
    }
}

// The place of a byte of a tile whose swizzle is 128 bytes: bits 4 to 6 of its address change with bits 7 to 9.
inline size_t swizzled(size_t place) { return place ^ (place >> 7 & 7) << 4; }

inline void land(const TileCopy& copy) {
    const EmulatedMap& map = copy.map;
    for (u64 row = 0; row < map.tile_rows; row++) {
        for (u64 column = 0; column < map.tile_columns; column++) {
            u16 value = 0;
            if (copy.y + row < map.rows && copy.x + column < map.columns) {
                const u8* from = (const u8*)map.address + (copy.y + row) * map.pitch + (copy.x + column) * 2;
                memcpy(&value, from, 2);
            }
            size_t place = swizzled(copy.place + row * map.tile_columns * 2 + column * 2);
            memcpy(copy.shared - copy.place + place, &value, 2);
        }
    }
    copy.barrier->bytes -= i32(map.tile_rows * map.tile_columns * 2);
    end_phase_if_complete(*copy.barrier);
}

struct PhaseWait {
    PhaseBarrier* barrier;
    u32 parity;
};

inline bool phase_has_ended(void* state) {
    PhaseWait& wait = *(PhaseWait*)state;
    // What has been announced to this barrier comes at last.
    for (size_t i = 0; i < tile_copies.size();) {
        if (tile_copies[i].barrier == wait.barrier) {
            TileCopy copy = tile_copies[i];
            tile_copies.erase(tile_copies.begin() + i);
            land(copy);
        } else {
            i++;
        }
    }
    return wait.barrier->phase != wait.parity;
}

// --- Products on their way ----------------------------------------------------------------------------------------

struct GroupProduct {
    // `tiles` times 4.
    float* sums;
    int tiles;
    u64 a, b;
};

// What one thread of a warpgroup has begun.
struct GroupThread {
    bool fenced = false;
    std::vector<GroupProduct> open;
    std::vector<std::vector<GroupProduct>> groups;
    // The true values of sums that may not be read yet.
    std::map<float*, std::vector<float>> hidden;
};

inline thread_local std::map<u32, GroupThread> group_threads;

// Sixteen features of a row of a tile: rows are 128 bytes, eight of them 1024; the descriptor says where the next eight
// begin. What a chunk of 16 bytes holds is found at its swizzled place.
inline void described(u64 descriptor, u32 row, double (&values)[16]) {
    if (descriptor >> 62 != 1) fail("wgmma: only the swizzle of 128 bytes is emulated");
    if (descriptor >> 49 & 7) fail("wgmma: only tiles at multiples of 1024 bytes are emulated");
    size_t start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    for (u32 chunk = 0; chunk < 2; chunk++) {
        size_t at = swizzled(start + row / 8 * stride + row % 8 * 128 + chunk * 16);
        expect_shared(shared_memory() + at, 16, 16, "wgmma");
        for (u32 i = 0; i < 8; i++) {
            bf16 value;
            memcpy(&value, shared_memory() + at + i * 2, 2);
            values[chunk * 8 + i] = to_float(value);
        }
    }
}

inline void carry_out(const GroupProduct& product, std::vector<float>& sums) {
    u32 warp = place.thread_index.x / 32 % 4;
    u32 group = place.lane / 4, pair = place.lane % 4 * 2;
    double a[2][16], b[16];
    for (u32 half = 0; half < 2; half++) described(product.a, warp * 16 + group + half * 8, a[half]);
    for (int n = 0; n < product.tiles; n++) {
        for (u32 i = 0; i < 2; i++) {
            described(product.b, n * 8 + pair + i, b);
            for (u32 half = 0; half < 2; half++) {
                double sum = 0;
                for (u32 k = 0; k < 16; k++) sum += a[half][k] * b[k];
                float& d = sums[n * 4 + half * 2 + i];
                d = float(double(d) + sum);
            }
        }
    }
}

inline void wait_for_products(size_t pending) {
    GroupThread& thread = group_threads[place.thread_index.x];
    while (thread.groups.size() > pending) {
        for (const GroupProduct& product : thread.groups.front()) carry_out(product, thread.hidden[product.sums]);
        thread.groups.erase(thread.groups.begin());
    }
    for (auto entry = thread.hidden.begin(); entry != thread.hidden.end();) {
        bool busy = false;
        for (const GroupProduct& product : thread.open) busy |= product.sums == entry->first;
        for (const auto& group : thread.groups) {
            for (const GroupProduct& product : group) busy |= product.sums == entry->first;
        }
        if (busy) {
            ++entry;
            continue;
        }
        memcpy(entry->first, entry->second.data(), entry->second.size() * 4);
        entry = thread.hidden.erase(entry);
    }
}

}  // namespace emulator

inline ::emulator::PhaseBarrier& emulated_barrier(u64* barrier) {
    ::emulator::expect_shared(barrier, 8, 8, "mbarrier");
    return *(::emulator::PhaseBarrier*)barrier;
}

inline void phase_barrier_init(u64* barrier, u32 count) {
    auto& made = emulated_barrier(barrier);
    // What an earlier launch has left behind when it failed.
    auto& copies = ::emulator::tile_copies;
    for (size_t i = copies.size(); i-- > 0;) {
        if (copies[i].barrier == &made) copies.erase(copies.begin() + i);
    }
    ::emulator::group_threads.clear();
    made.phase = 0;
    made.expected = made.pending = count;
    made.bytes = 0;
}

inline void phase_barriers_ready() {}

inline void phase_barrier_arrive(u64* barrier) {
    auto& state = emulated_barrier(barrier);
    if (state.pending == 0 || state.pending > state.expected) {
        ::emulator::fail("mbarrier: an arrival too many, or at a barrier that was not made");
    }
    state.pending--;
    ::emulator::end_phase_if_complete(state);
}

inline void phase_barrier_expect(u64* barrier, u32 bytes) {
    emulated_barrier(barrier).bytes += bytes;
    phase_barrier_arrive(barrier);
}

inline void phase_barrier_wait(u64* barrier, u32 parity) {
    ::emulator::PhaseWait wait = {&emulated_barrier(barrier), parity};
    ::emulator::wait_until(::emulator::phase_has_ended, &wait, "mbarrier.try_wait");
}

inline void copy_tile_async(void* shared, const TensorMap* map, u32 x, u32 y, u64* barrier) {
    ::emulator::EmulatedMap read;
    memcpy(&read, map, sizeof(read));
    if (read.magic != ::emulator::MAP_MAGIC) ::emulator::fail("cp.async.bulk.tensor: no tensor map");
    size_t bytes = read.tile_columns * read.tile_rows * 2;
    ::emulator::expect_shared(shared, bytes, 1024, "cp.async.bulk.tensor to");
    memset(shared, 0xFF, bytes);
    auto& state = emulated_barrier(barrier);
    size_t place = (u8*)shared - ::emulator::shared_memory();
    ::emulator::tile_copies.push_back({(u8*)shared, place, read, x, y, &state});
}

inline void prefetch_map(const TensorMap*) {}

template <u32 REGISTERS>
inline void fewer_registers() {}
template <u32 REGISTERS>
inline void more_registers() {}

inline void wgmma_fence(OCELLUS_HERE) {
    ::emulator::together(0xFFFFFFFFu, "wgmma.fence", file, line, nullptr, nullptr);
    ::emulator::group_threads[::emulator::place.thread_index.x].fenced = true;
}

inline void wgmma_commit(OCELLUS_HERE) {
    ::emulator::together(0xFFFFFFFFu, "wgmma.commit_group", file, line, nullptr, nullptr);
    auto& thread = ::emulator::group_threads[::emulator::place.thread_index.x];
    thread.groups.push_back(std::move(thread.open));
    thread.open.clear();
    thread.fenced = false;
}

template <int PENDING>
inline void wgmma_wait(OCELLUS_HERE) {
    ::emulator::together(0xFFFFFFFFu, "wgmma.wait_group", file, line, nullptr, nullptr);
    ::emulator::wait_for_products(PENDING);
}

template <int TILES>
inline void hold_sums(float (&)[TILES][4]) {}

template <int TILES>
inline void wgmma_k16(float (&d)[TILES][4], u64 a, u64 b, OCELLUS_HERE) {
    ::emulator::together(0xFFFFFFFFu, "wgmma.mma_async", file, line, nullptr, nullptr);
    auto& thread = ::emulator::group_threads[::emulator::place.thread_index.x];
    if (!thread.fenced) ::emulator::fail("wgmma.mma_async without a wgmma.fence");
    float* sums = &d[0][0];
    auto& hidden = thread.hidden[sums];
    if (hidden.empty()) {
        hidden.assign(sums, sums + TILES * 4);
        memset(sums, 0xFF, TILES * 16);
    }
    thread.open.push_back({sums, TILES, a, b});
}

// Runs the blocks of a launch one after the other, and the threads of a block as fibers on one thread of the host, each
// until it waits for others. Which of the runnable threads comes next is drawn by chance from a seed, and so is the order
// of the blocks: a kernel that counts on an order that nobody promised computes something else under another seed.
//
// Shared memory is filled with NaN before each block. What cp.async copies is NaN at its destination until it has been
// waited for. A barrier that not all threads reach, lanes of a warp that meet in different instructions, and reads or
// writes outside of any buffer end the launch with a message that names kernel, block and thread.

#include "../../device.cuh"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <mutex>
#include <vector>

#include "fiber.h"

namespace emulator {

enum class State { Ready, Barrier, Warp, Polling, Done };

struct Copy {
    void* shared;
    const void* global;
    bool real;
};

struct Thread {
    Fiber fiber;
    Place place;
    unsigned warp;
    State state;
    // What it waits for.
    const char* what;
    const char* file;
    int line;
    unsigned barrier, barrier_threads;
    unsigned mask;
    void* operand;
    bool (*ready)(void*);
    void* ready_state;
    // Its copies under way: those of the newest group, and the groups before, oldest first.
    std::vector<Copy> copies;
    std::vector<std::vector<Copy>> groups;
};

struct Block {
    const Entry* entry = nullptr;
    void* const* arguments = nullptr;
    std::vector<Thread> threads;
    std::vector<unsigned> ready;
    u8* shared = nullptr;
    size_t shared_bytes = 0, shared_room = 0;
    unsigned running = 0;
    u64 random = 0;
    bool inside = false, failed = false;
    char message[1024] = {};
    void* fault = nullptr;
    Fiber scheduler;
    sigjmp_buf out;
    Stacks stacks;
    ~Block() {
        if (shared) free(shared);
    }
};

thread_local Place place;
static thread_local Block block;

// Past the end of what a block asked for, shared memory holds this, and it must not change.
constexpr u8 POISON = 0xFF;
constexpr size_t SHARED_SLACK = 1024;

static u64 draw(u64 bound) {
    // splitmix64, whose bias is of no matter here.
    u64 z = block.random += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) % bound;
}

static Thread& current() { return block.threads[block.running]; }

// Back to the scheduler, until this thread is chosen again.
static void leave() { switch_fiber(current().fiber, block.scheduler); }

void fail(const char* format, ...) {
    Place at = place;
    int used = snprintf(block.message, sizeof block.message, "block (%u, %u, %u), thread (%u, %u, %u): ",
                        at.block_index.x, at.block_index.y, at.block_index.z, at.thread_index.x, at.thread_index.y,
                        at.thread_index.z);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(block.message + used, sizeof block.message - used, format, arguments);
    va_end(arguments);
    block.failed = true;
    leave();
    abort();
}

u8* shared_memory() { return block.shared; }

void expect_shared(const void* pointer, size_t bytes, size_t alignment, const char* what) {
    const u8* at = (const u8*)pointer;
    if (at < block.shared || at + bytes > block.shared + block.shared_bytes) {
        long long place = at - block.shared;
        fail("%s: %zu bytes at %lld of %zu bytes of shared memory", what, bytes, place, block.shared_bytes);
    }
    if (size_t(at - block.shared) % alignment != 0) {
        fail("%s: address %zu is not a multiple of %zu", what, size_t(at - block.shared), alignment);
    }
}

static void make_ready(unsigned index) {
    block.threads[index].state = State::Ready;
    block.ready.push_back(index);
}

void barrier(unsigned id, unsigned threads, const char* file, int line) {
    Thread& self = current();
    unsigned all = unsigned(block.threads.size());
    if (id > 15 || threads % 32 != 0 || threads > all) {
        fail("barrier %u of %u threads at %s:%d, the block has %u", id, threads, file, line, all);
    }
    if (threads == 0) threads = all;
    self.state = State::Barrier;
    self.what = "barrier";
    self.barrier = id;
    self.barrier_threads = threads;
    self.file = file;
    self.line = line;
    unsigned waiting = 0;
    for (Thread& other : block.threads) {
        if (other.state != State::Barrier || other.barrier != id) continue;
        waiting++;
        if (other.barrier_threads != threads) {
            fail("barrier %u is of %u threads at %s:%d and of %u at %s:%d", id, threads, file, line,
                 other.barrier_threads, other.file, other.line);
        }
        // Barrier 0 is everybody's, so everybody is at the same line of the source. Named ones pair producers with
        // consumers, which are not.
        if (id == 0 && (other.line != line || strcmp(other.file, file) != 0)) {
            fail("at the __syncthreads of %s:%d while another thread is at that of %s:%d", file, line, other.file,
                 other.line);
        }
    }
    if (waiting == threads) {
        for (unsigned i = 0; i < all; i++) {
            if (block.threads[i].state == State::Barrier && block.threads[i].barrier == id) make_ready(i);
        }
    }
    leave();
}

void together(unsigned mask, const char* what, const char* file, int line, void* operand, Action action) {
    Thread& self = current();
    if (!(mask >> self.place.lane & 1)) {
        fail("%s at %s:%d: lane %u is not in its own mask %08x", what, file, line, self.place.lane, mask);
    }
    self.state = State::Warp;
    self.what = what;
    self.file = file;
    self.line = line;
    self.mask = mask;
    self.operand = operand;
    void* operands[32] = {};
    bool all = true;
    unsigned first = self.warp * 32;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        Thread& other = block.threads[first + lane];
        if (other.state == State::Done) {
            fail("%s at %s:%d waits for lane %u, which has returned", what, file, line, lane);
        }
        if (other.state != State::Warp) {
            all = false;
            continue;
        }
        // The same text nearly always lies at the same address.
        if (other.mask != mask || other.line != line || (other.what != what && strcmp(other.what, what) != 0) ||
            (other.file != file && strcmp(other.file, file) != 0)) {
            fail("%s at %s:%d with mask %08x while lane %u is in %s at %s:%d with mask %08x", what, file, line, mask,
                 lane, other.what, other.file, other.line, other.mask);
        }
        operands[lane] = other.operand;
    }
    if (all) {
        if (action) action(operands);
        for (unsigned lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) make_ready(first + lane);
        }
    }
    leave();
}

void wait_until(bool (*ready)(void*), void* state, const char* what) {
    Thread& self = current();
    self.state = State::Polling;
    self.what = what;
    self.file = "";
    self.line = 0;
    self.ready = ready;
    self.ready_state = state;
    leave();
}

void copy_async(void* shared, const void* global, bool real) {
    expect_shared(shared, 16, 16, "cp.async to");
    if (real && uintptr_t(global) % 16 != 0) fail("cp.async from an address that is not a multiple of 16");
    memset(shared, POISON, 16);
    current().copies.push_back({shared, global, real});
}

void copy_async_commit() {
    Thread& self = current();
    self.groups.push_back(std::move(self.copies));
    self.copies.clear();
}

void copy_async_wait(unsigned pending) {
    Thread& self = current();
    if (self.groups.size() <= pending) return;
    size_t finished = self.groups.size() - pending;
    for (size_t i = 0; i < finished; i++) {
        for (const Copy& copy : self.groups[i]) {
            if (copy.real) {
                memcpy(copy.shared, copy.global, 16);
            } else {
                memset(copy.shared, 0, 16);
            }
        }
    }
    self.groups.erase(self.groups.begin(), self.groups.begin() + finished);
}

// A thread's whole life.
static void live() {
    block.entry->call(block.arguments);
    current().state = State::Done;
    leave();
    abort();
}

// --- Faults -------------------------------------------------------------------------------------------------------

static struct sigaction before_segv, before_bus, before_fpe;

static void on_signal(int signal, siginfo_t* info, void* context) {
    if (block.inside) {
        block.fault = info->si_addr;
        block.message[0] = char(signal);
        siglongjmp(block.out, 1);
    }
    struct sigaction& before = signal == SIGSEGV ? before_segv : signal == SIGBUS ? before_bus : before_fpe;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
        sigaction(signal, &before, nullptr);
    } else {
        before.sa_handler(signal);
    }
}

static void catch_signals() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &before_segv);
        sigaction(SIGBUS, &action, &before_bus);
        sigaction(SIGFPE, &action, &before_fpe);
    });
    // A fault on a fiber's guard page needs a stack of its own.
    static thread_local bool has_stack = false;
    if (!has_stack) {
        has_stack = true;
        stack_t now = {};
        sigaltstack(nullptr, &now);
        if (now.ss_flags & SS_DISABLE) {
            static thread_local std::vector<u8> room(64 << 10);
            stack_t stack = {};
            stack.ss_sp = room.data();
            stack.ss_size = room.size();
            sigaltstack(&stack, nullptr);
        }
    }
}

// --- The scheduler ------------------------------------------------------------------------------------------------

// What the threads that can't go on wait for.
static void report_deadlock() {
    unsigned returned = 0, shown = 0;
    int used = snprintf(block.message, sizeof block.message, "block (%u, %u, %u):", place.block_index.x,
                        place.block_index.y, place.block_index.z);
    for (const Thread& thread : block.threads) returned += thread.state == State::Done;
    std::vector<bool> told(block.threads.size());
    for (size_t i = 0; i < block.threads.size() && shown < 4; i++) {
        const Thread& thread = block.threads[i];
        if (told[i] || thread.state == State::Done) continue;
        unsigned same = 0;
        for (size_t j = i; j < block.threads.size(); j++) {
            const Thread& other = block.threads[j];
            if (other.state == thread.state && other.line == thread.line && other.what == thread.what) {
                told[j] = true;
                same++;
            }
        }
        used += snprintf(block.message + used, sizeof block.message - used, " %u threads wait for ever in %s at %s:%d,",
                         same, thread.what, thread.file, thread.line);
        if (used >= int(sizeof block.message) - 200) break;
        shown++;
    }
    snprintf(block.message + used, sizeof block.message - used, " %u have returned", returned);
    block.failed = true;
}

static bool check_slack() {
    for (size_t i = 0; i < SHARED_SLACK; i++) {
        if (block.shared[block.shared_bytes + i] != POISON) {
            snprintf(block.message, sizeof block.message,
                     "block (%u, %u, %u): a write %zu bytes past the end of %zu bytes of shared memory",
                     place.block_index.x, place.block_index.y, place.block_index.z, i, block.shared_bytes);
            return false;
        }
    }
    return true;
}

// Runs one block; false when it failed.
static bool run_block(uint3 index, uint3 size, uint3 grid) {
    unsigned count = size.x * size.y * size.z;
    block.threads.resize(count);
    block.ready.clear();
    memset(block.shared, POISON, block.shared_bytes + SHARED_SLACK);
    for (unsigned i = 0; i < count; i++) {
        Thread& thread = block.threads[i];
        thread.place.thread_index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        thread.place.block_index = index;
        thread.place.block_size = size;
        thread.place.grid_size = grid;
        thread.place.lane = i % 32;
        thread.warp = i / 32;
        thread.copies.clear();
        thread.groups.clear();
        prepare_fiber(thread.fiber, block.stacks.at(i), Stacks::BYTES, live);
        make_ready(i);
    }
    place.block_index = index;
    unsigned done = 0;
    std::vector<unsigned> polling;
    while (done < count) {
        if (block.ready.empty()) {
            // Those that spin may go on now.
            std::vector<unsigned> still;
            for (unsigned i : polling) {
                Thread& thread = block.threads[i];
                if (thread.ready(thread.ready_state)) {
                    make_ready(i);
                } else {
                    still.push_back(i);
                }
            }
            polling = still;
            if (block.ready.empty()) {
                report_deadlock();
                return false;
            }
        }
        size_t chosen = draw(block.ready.size());
        block.running = block.ready[chosen];
        block.ready[chosen] = block.ready.back();
        block.ready.pop_back();
        Thread& thread = current();
        place = thread.place;
        switch_fiber(block.scheduler, thread.fiber);
        if (block.failed) return false;
        if (thread.state == State::Done) done++;
        if (thread.state == State::Polling) polling.push_back(block.running);
    }
    return check_slack();
}

static bool run_grid(uint3 grid, uint3 size) {
    u64 blocks = u64(grid.x) * grid.y * grid.z;
    // A step that shares no divisor with their number visits all blocks; the draws decide step and beginning.
    u64 step = 1, start = draw(blocks);
    if (blocks > 2) {
        auto divisor = [](u64 a, u64 b) {
            while (b) {
                u64 rest = a % b;
                a = b;
                b = rest;
            }
            return a;
        };
        do {
            step = 1 + draw(blocks - 1);
        } while (divisor(step, blocks) != 1);
    }
    for (u64 i = 0, at = start; i < blocks; i++, at = (at + step) % blocks) {
        uint3 index = {unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / (u64(grid.x) * grid.y))};
        if (!run_block(index, size, grid)) return false;
    }
    return true;
}

// --- Collective instructions ----------------------------------------------------------------------------------------

static void exchange(void* const* operands) {
    for (unsigned lane = 0; lane < 32; lane++) {
        Shuffled* mine = (Shuffled*)operands[lane];
        if (!mine) continue;
        Shuffled* source = (Shuffled*)operands[mine->source];
        // What a lane outside of the mask would give is undefined.
        mine->result = source ? source->value : ~0ull;
    }
}

void shuffle(unsigned mask, Shuffled& shuffled, const char* what, const char* file, int line) {
    together(mask, what, file, line, &shuffled, exchange);
}

struct Ballot {
    bool holds;
    unsigned result;
};

static void count_votes(void* const* operands) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (operands[lane] && ((Ballot*)operands[lane])->holds) votes |= 1u << lane;
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        if (operands[lane]) ((Ballot*)operands[lane])->result = votes;
    }
}

// PTX manual, "Warp-level matrix load instruction: ldmatrix".
struct LoadMatrix {
    const void* row;
    u32* registers;
    unsigned matrices;
    bool transposed;
};

static void load_matrices(void* const* operands) {
    unsigned matrices = ((LoadMatrix*)operands[0])->matrices;
    bool transposed = ((LoadMatrix*)operands[0])->transposed;
    for (unsigned m = 0; m < matrices; m++) {
        u16 matrix[8][8];
        for (unsigned r = 0; r < 8; r++) memcpy(matrix[r], ((LoadMatrix*)operands[8 * m + r])->row, 16);
        for (unsigned lane = 0; lane < 32; lane++) {
            unsigned i = lane / 4, j = lane % 4 * 2;
            u16 low = transposed ? matrix[j][i] : matrix[i][j];
            u16 high = transposed ? matrix[j + 1][i] : matrix[i][j + 1];
            ((LoadMatrix*)operands[lane])->registers[m] = low | u32(high) << 16;
        }
    }
}

static void load_matrix(LoadMatrix load, const char* what, const char* file, int line) {
    if (place.lane < 8 * load.matrices) expect_shared(load.row, 16, 16, what);
    together(0xFFFFFFFFu, what, file, line, &load, load_matrices);
}

// PTX manual, "Matrix fragments for mma.m16n8k16 with floating point type". Products are exact, and so, in f64, are
// sums of sixteen; the device rounds sums in an order that is not told, to no fewer bits than f32 has.
struct Multiply {
    float* d;
    const u32* a;
    const u32* b;
};

static void multiply(void* const* operands) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const Multiply& m = *(Multiply*)operands[lane];
        unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = group + (i % 2 == 1 ? 8 : 0), k = pair + (i >= 2 ? 8 : 0);
            a[row][k] = low_float(m.a[i]);
            a[row][k + 1] = high_float(m.a[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            unsigned k = pair + 8 * i;
            b[k][group] = low_float(m.b[i]);
            b[k + 1][group] = high_float(m.b[i]);
        }
    }
    double sums[16][8] = {};
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned k = 0; k < 16; k++) {
            double factor = a[row][k];
            for (unsigned column = 0; column < 8; column++) sums[row][column] += factor * double(b[k][column]);
        }
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        const Multiply& m = *(Multiply*)operands[lane];
        unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            m.d[i] = float(double(m.d[i]) + sums[group + (i >= 2 ? 8 : 0)][pair + i % 2]);
        }
    }
}

}  // namespace emulator

void __syncwarp(unsigned mask, const char* file, int line) {
    emulator::together(mask, "__syncwarp", file, line, nullptr, nullptr);
}

unsigned __ballot_sync(unsigned mask, bool holds, const char* file, int line) {
    emulator::Ballot ballot = {holds, 0};
    emulator::together(mask, "__ballot_sync", file, line, &ballot, emulator::count_votes);
    return ballot.result;
}

void ldmatrix_x4(u32 (&r)[4], const void* row, const char* file, int line) {
    emulator::load_matrix({row, r, 4, false}, "ldmatrix_x4", file, line);
}
void ldmatrix_x2(u32 (&r)[2], const void* row, const char* file, int line) {
    emulator::load_matrix({row, r, 2, false}, "ldmatrix_x2", file, line);
}
void ldmatrix_x4_trans(u32 (&r)[4], const void* row, const char* file, int line) {
    emulator::load_matrix({row, r, 4, true}, "ldmatrix_x4_trans", file, line);
}
void ldmatrix_x2_trans(u32 (&r)[2], const void* row, const char* file, int line) {
    emulator::load_matrix({row, r, 2, true}, "ldmatrix_x2_trans", file, line);
}
void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], const char* file, int line) {
    emulator::Multiply operand = {d, a, b};
    emulator::together(0xFFFFFFFFu, "mma_m16n8k16", file, line, &operand, emulator::multiply);
}

// --- What Rust calls ------------------------------------------------------------------------------------------------

// Generated by build.rs.
extern "C" const unsigned ocellus_emulator_table_count;
extern "C" unsigned ocellus_emulator_table(unsigned index, const emulator::Entry** entries);

extern "C" const emulator::Entry* ocellus_emulator_find(const char* name) {
    for (unsigned i = 0; i < ocellus_emulator_table_count; i++) {
        const emulator::Entry* entries;
        unsigned count = ocellus_emulator_table(i, &entries);
        for (unsigned j = 0; j < count; j++) {
            if (strcmp(entries[j].name, name) == 0) return &entries[j];
        }
    }
    return nullptr;
}

struct EmulatorLaunch {
    const emulator::Entry* entry;
    void* const* arguments;
    const u32* sizes;
    u32 argument_count;
    u32 grid[3], block[3];
    u32 shared_bytes;
    u64 seed;
};

// 0: done. 1: failed, `message` says why. 2: touched memory that nobody has, at `fault`.
extern "C" int ocellus_emulator_launch(const EmulatorLaunch* launch, char* message, size_t room, u64* fault) {
    using namespace emulator;
    const Entry* entry = launch->entry;
    auto refuse = [&](const char* format, auto... values) {
        snprintf(message, room, format, values...);
        return 1;
    };
    if (launch->argument_count != entry->arguments) {
        return refuse("%u arguments were given, it takes %u", launch->argument_count, entry->arguments);
    }
    for (u32 i = 0; i < launch->argument_count; i++) {
        if (launch->sizes[i] != entry->sizes[i]) {
            return refuse("argument %u has %u bytes, it takes %u", i, launch->sizes[i], entry->sizes[i]);
        }
    }
    u32 threads = launch->block[0] * launch->block[1] * launch->block[2];
    if (threads > entry->most_threads) {
        return refuse("%u threads in a block, its __launch_bounds__ are %u", threads, entry->most_threads);
    }
    catch_signals();
    block.entry = entry;
    block.arguments = launch->arguments;
    block.random = launch->seed;
    block.failed = false;
    size_t wanted = launch->shared_bytes + SHARED_SLACK;
    if (block.shared_room < wanted) {
        free(block.shared);
        block.shared_room = (wanted + 1023) / 1024 * 1024;
        block.shared = (u8*)aligned_alloc(1024, block.shared_room);
    }
    block.shared_bytes = launch->shared_bytes;
    block.stacks.reserve(threads);
    uint3 grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    uint3 size = {launch->block[0], launch->block[1], launch->block[2]};
    if (sigsetjmp(block.out, 1)) {
        block.inside = false;
        *fault = u64(block.fault);
        const char* what = block.message[0] == SIGFPE ? "divides by zero" : "reads or writes memory that nobody has";
        snprintf(message, room, "block (%u, %u, %u), thread (%u, %u, %u) %s", place.block_index.x, place.block_index.y,
                 place.block_index.z, place.thread_index.x, place.thread_index.y, place.thread_index.z, what);
        block.ready.clear();
        return 2;
    }
    block.inside = true;
    bool good = run_grid(grid, size);
    block.inside = false;
    if (good) return 0;
    return refuse("%s", block.message);
}

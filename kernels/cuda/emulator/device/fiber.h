// Fibers: stacks that a thread of the host jumps between. The jump is a handful of instructions where we know the
// processor's calling convention, and the C library's ucontext elsewhere.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

namespace emulator {

// Stacks with a page below each that may not be touched.
struct Stacks {
    static constexpr size_t BYTES = 128 << 10;
    static constexpr size_t GUARD = 16 << 10;

    void reserve(unsigned wanted) {
        if (wanted <= count) return;
        release();
        void* memory = mmap(nullptr, wanted * (BYTES + GUARD), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) abort();
        base = (uint8_t*)memory;
        count = wanted;
        for (unsigned i = 0; i < count; i++) mprotect(base + i * (BYTES + GUARD), GUARD, PROT_NONE);
    }

    void* at(unsigned i) { return base + i * (BYTES + GUARD) + GUARD; }

    void release() {
        if (base) munmap(base, count * (BYTES + GUARD));
        base = nullptr;
        count = 0;
    }

    ~Stacks() { release(); }

    uint8_t* base = nullptr;
    unsigned count = 0;
};

#if defined(__x86_64__) || defined(__aarch64__)

struct Fiber {
    void* stack_pointer = nullptr;
};

extern "C" void ocellus_switch_fiber(void** from, void* to);

inline void switch_fiber(Fiber& from, Fiber& to) { ocellus_switch_fiber(&from.stack_pointer, to.stack_pointer); }

#if defined(__x86_64__)

// What a called function must keep: rbx, rbp and r12 to r15. The kernels leave rounding modes alone.
asm(R"(
.text
.type ocellus_switch_fiber, @function
ocellus_switch_fiber:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size ocellus_switch_fiber, .-ocellus_switch_fiber
)");

inline void prepare_fiber(Fiber& fiber, void* stack, size_t bytes, void (*run)()) {
    uint8_t* top = (uint8_t*)stack + bytes;
    // A function finds its stack 8 bytes off a multiple of 16, as the return address of its caller leaves it.
    void** words = (void**)(top - 16);
    words[0] = (void*)run;
    memset(words - 6, 0, 6 * sizeof(void*));
    fiber.stack_pointer = words - 6;
}

#else

// What a called function must keep: x19 to x30 and the lower halves of v8 to v15.
asm(R"(
.text
.type ocellus_switch_fiber, %function
ocellus_switch_fiber:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size ocellus_switch_fiber, .-ocellus_switch_fiber
)");

inline void prepare_fiber(Fiber& fiber, void* stack, size_t bytes, void (*run)()) {
    uint8_t* frame = (uint8_t*)stack + bytes - 160;
    memset(frame, 0, 160);
    // x30 is where it returns to.
    memcpy(frame + 88, &run, sizeof run);
    fiber.stack_pointer = frame;
}

#endif

#else

struct Fiber {
    ucontext_t context;
};

inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

inline void prepare_fiber(Fiber& fiber, void* stack, size_t bytes, void (*run)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run, 0);
}

#endif

}  // namespace emulator

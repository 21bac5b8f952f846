// Chooses the next token of each sequence from its logits, without a sort and without a step of the host; the formula
// is in mod.rs. All weights are integers, so that sums are the same in any order and the choice is the reference's,
// bit for bit, on every device.
//
// Four kernels, one block for each 2,048 tokens of a row; the last block of a row to arrive decides for the row:
//   sampling_best     finds the likeliest token. Rows that take it are done: a greedy batch needs this launch alone.
//   sampling_weigh    sums the weights of each chunk and, where something is cut, of each of 1,024 bins of a 32nd of a
//                     natural logarithm. Rows without a cut draw at once.
//   sampling_cut      collects the tokens of the bins where the cut must lie and finds the exact place.
//   sampling_draw     sums what is left of each chunk, finds the chunk that the random number falls into, then the token.
// Blocks of rows that need no more return at once.
//
// Floor: 151,936 logits are 608 KB, which the output layer has just left in the cache of the second level: 75 blocks
// read them in 1 to 2 us, four times at most. With a launch of 1.5 us each and 2 us for each decision, a greedy step
// takes about 3 us and a cut one 15 us, for one sequence or for 16: 1,200 blocks of 256 threads are one wave. The double
// precision of a weight, 20 operations, takes 5 us for a row on a GeForce card, whose units for it are few; each row is
// weighed two or three times.

#include "order.cuh"

constexpr u32 EACH = CHUNK / THREADS;
constexpr u32 BINS = 1024;
// Tokens that are collected. Where more lie in one bin, all of the row is searched in their stead, which is slow.
constexpr u32 MEMBERS = 8192;

// What a sequence asks for, see `Request` in request.rs.
struct Request {
    // 53 random bits.
    u64 number;
    double inverse_temperature;
    // In units of 2^-53; 2^53 and more cut nothing.
    u64 top_p;
    // In units of a weight; 0 cuts nothing.
    u64 min_p;
    float repetition_penalty;
    float presence_penalty;
    float frequency_penalty;
    // Bins for each unit of a logit.
    float bins;
    // 0 cuts nothing.
    u32 top_k;
    u32 flags;
    // Whose counts and biases these are.
    u32 slot;
    u32 unused;
};

constexpr u32 ACTIVE = 1, RANDOM = 2, PENALIZED = 4, BIASED = 8, RESTRICTED = 16;
constexpr u32 SEEN_TIMES = 0x7fff;
// The weight of the likeliest token.
constexpr u64 ONE = u64(1) << 40;
constexpr u64 CERTAIN = u64(1) << 53;

// How far a row is; all zeros before and after.
struct State {
    u64 best;
    // Tokens at this place and before it stay.
    u64 cut;
    // Weight of, and tokens in, the bins before `first_bin`.
    u64 weight_before;
    u64 wanted;
    u32 count_before;
    u32 first_bin, last_bin;
    u32 members;
    u32 arrived;
    u32 stage;
    u32 cuts_count;
    float max;
};

constexpr u32 WEIGH = 1, CUT = 2, DRAW = 3;

static_assert(sizeof(Request) == 64 && sizeof(State) == 64, "the host takes them to be so large");

__device__ inline float infinity() { return __uint_as_float(0x7f800000); }

struct Bin {
    u64 weight;
    u64 count;
};

struct Member {
    u64 place;
    u64 weight;
};

struct Tables {
    // (rows, vocabulary)
    const float* logits;
    // (slots, vocabulary)
    const float* biases;
    // (slots, vocabulary): the highest bit for a token of the prompt, and how often the answer has it.
    u16* seen;
    // (rows, words): a bit for each token that may come.
    const u32* allowed;
    // (rows)
    const Request* requests;
    State* states;
    // (rows, BINS), zeros before and after.
    Bin* bins;
    // (rows, chunks)
    u64* sums;
    // (rows, MEMBERS)
    Member* members;
    // (2, most_rows): the tokens, and whether their numbers were used.
    u32* chosen;
    u32 vocabulary;
    u32 words;
    u32 most_rows;
    u32 unused;
};

// A row and what the functions below need of it.
struct Row {
    const Tables& tables;
    const Request& request;
    u32 index;
    float max;

    __device__ float logit(u32 id) const {
        if (request.flags & RESTRICTED) {
            const u32 word = tables.allowed[index * tables.words + id / 32];
            if ((word >> id % 32 & 1) == 0) return -infinity();
        }
        float logit = tables.logits[u64(index) * tables.vocabulary + id];
        // The intrinsics keep the compiler from fusing what the host rounds twice.
        if (request.flags & BIASED) {
            logit = __fadd_rn(logit, tables.biases[u64(request.slot) * tables.vocabulary + id]);
        }
        if (request.flags & PENALIZED) {
            const u32 seen = tables.seen[u64(request.slot) * tables.vocabulary + id];
            if (seen != 0) {
                const float penalty = request.repetition_penalty;
                logit = logit > 0.0f ? logit / penalty : __fmul_rn(logit, penalty);
            }
            if (seen & SEEN_TIMES) {
                const float times = __fmul_rn(request.frequency_penalty, float(seen & SEEN_TIMES));
                logit = __fadd_rn(logit, -__fadd_rn(times, request.presence_penalty));
            }
        }
        return logit;
    }

    // e^((logit - max) / temperature) in units of 2^-40, rounded; see `weight` in reference.rs, which is the same.
    __device__ u64 weight(float logit) const {
        if (!(logit > -infinity())) return 0;
        if (logit == max) return ONE;
        const double x = (double(logit) - double(max)) * request.inverse_temperature;
        if (!(x > -29.0)) return 0;
        const i32 k = i32(fma(x, 1.4426950408889634, -0.5));
        const double r = fma(double(k), -1.9082149292705877e-10, fma(double(k), -0.6931471803691238, x));
        double e = 1.0 / 39916800.0;
        e = fma(e, r, 1.0 / 3628800.0);
        e = fma(e, r, 1.0 / 362880.0);
        e = fma(e, r, 1.0 / 40320.0);
        e = fma(e, r, 1.0 / 5040.0);
        e = fma(e, r, 1.0 / 720.0);
        e = fma(e, r, 1.0 / 120.0);
        e = fma(e, r, 1.0 / 24.0);
        e = fma(e, r, 1.0 / 6.0);
        e = fma(e, r, 0.5);
        e = fma(e, r, 1.0);
        e = fma(e, r, 1.0);
        const u64 mantissa = u64(e * 4503599627370496.0);
        const u32 shift = u32(12 - k);
        return (mantissa + (u64(1) << (shift - 1))) >> shift;
    }

    __device__ u32 bin(float logit) const {
        const float distance = (max - logit) * request.bins;
        return distance < float(BINS - 1) ? u32(distance) : BINS - 1;
    }

    // Whether a token of this weight is left by min-p. The likeliest is, whatever min-p is.
    __device__ bool reaches_min_p(float logit, u64 weight) const {
        return weight >= request.min_p || logit == max;
    }

    // The weight of a token, 0 when it is cut off.
    __device__ u64 weight_left(u32 id, u64 cut) const {
        const float logit = this->logit(id);
        const u64 weight = this->weight(logit);
        return place_of(logit, id) >= cut && reaches_min_p(logit, weight) ? weight : 0;
    }
};

__device__ inline bool has_cuts(const Request& request) {
    return request.top_k != 0 || request.top_p < CERTAIN;
}

// `fraction` of 2^53 times `total`, rounded down. The product has more than 64 bits.
__device__ inline u64 fraction_of(u64 fraction, u64 total) {
    return __umul64hi(fraction, total) << 11 | (fraction * total) >> 53;
}

// The weight that top-p wants: rounded up, and at least the likeliest token.
__device__ inline u64 wanted_of(u64 top_p, u64 total) {
    const u64 whole = fraction_of(top_p, total);
    const u64 up = whole + (((top_p * total) & (CERTAIN - 1)) != 0);
    return up > 0 ? up : 1;
}

// Remembers the choice. Called by one thread.
__device__ inline void choose(const Tables& tables, const Request& request, u32 row, u32 id, bool drawn) {
    tables.chosen[row] = id;
    tables.chosen[tables.most_rows + row] = drawn;
    if (request.flags & PENALIZED) {
        u16* seen = tables.seen + u64(request.slot) * tables.vocabulary + id;
        if ((*seen & SEEN_TIMES) != SEEN_TIMES) *seen = u16(*seen + 1);
    }
    tables.states[row].stage = 0;
}

// Draws from the sums of the chunks of a row. All threads of one block.
__device__ inline void draw(const Row& row, u64 cut, u32 chunks, Together* room) {
    const Tables& tables = row.tables;
    const volatile u64* sums = tables.sums + u64(row.index) * chunks;
    const u32 each = (chunks + THREADS - 1) / THREADS;
    u64 own = 0, total = 0;
    for (u32 i = threadIdx.x * each; i < (threadIdx.x + 1) * each && i < chunks; i++) own += sums[i];
    u64 before = sum_before(own, &total, room);
    const u64 target = fraction_of(row.request.number, total);
    // The chunk where the sum first exceeds the target, and what is missing there; both in shared memory for all.
    if (before <= target && target < before + own) {
        u32 chunk = threadIdx.x * each;
        while (before + sums[chunk] <= target) before += sums[chunk++];
        room->words[0] = chunk;
        room->words[1] = target - before;
    }
    __syncthreads();
    const u32 chunk = u32(room->words[0]);
    const u64 missing = room->words[1];
    __syncthreads();
    u64 weights[EACH];
    own = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = chunk * CHUNK + threadIdx.x * EACH + i;
        weights[i] = id < tables.vocabulary ? row.weight_left(id, cut) : 0;
        own += weights[i];
    }
    before = sum_before(own, &total, room);
    if (before <= missing && missing < before + own) {
        u32 offset = 0;
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            before += weights[i];
            offset += before <= missing;
        }
        choose(tables, row.request, row.index, chunk * CHUNK + threadIdx.x * EACH + offset, true);
    }
}

extern "C" __global__ void __launch_bounds__(256) sampling_best(const Tables tables) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    const Request request = tables.requests[blockIdx.y];
    if ((request.flags & ACTIVE) == 0) return;
    const Row row{tables, request, blockIdx.y, 0.0f};
    State* state = tables.states + row.index;
    u64 best = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = blockIdx.x * CHUNK + i * THREADS + threadIdx.x;
        if (id >= tables.vocabulary) break;
        const float logit = row.logit(id);
        if (logit > -infinity()) {
            const u64 place = place_of(logit, id);
            best = place > best ? place : best;
        }
    }
    best = max_of_block(best, room);
    if (threadIdx.x == 0) atomicMax(&state->best, best);
    if (!is_last(&state->arrived, gridDim.x, room)) return;
    best = *const_cast<volatile u64*>(&state->best);
    // All have read it before it is cleared.
    __syncthreads();
    if (best == 0) {
        // Nothing is possible: the first token that is allowed, or else the first of all.
        u64 first = ~u64(0);
        if (request.flags & RESTRICTED) {
            for (u32 i = threadIdx.x; i < tables.words; i += THREADS) {
                const u32 word = tables.allowed[row.index * tables.words + i];
                for (u32 bit = 0; bit < 32 && first == ~u64(0); bit++) {
                    if (word >> bit & 1 && i * 32 + bit < tables.vocabulary) first = i * 32 + bit;
                }
            }
        }
        first = min_of_block(first, room);
        if (threadIdx.x == 0) {
            choose(tables, request, row.index, first == ~u64(0) ? 0 : u32(first), false);
        }
        return;
    }
    if (threadIdx.x == 0) {
        const float max = row.logit(index_at(best));
        state->best = 0;
        if ((request.flags & RANDOM) && max < infinity()) {
            state->max = max;
            state->cut = 0;
            state->stage = WEIGH;
        } else {
            choose(tables, request, row.index, index_at(best), false);
        }
    }
}

// The bin where the running sum of counts or of weights first reaches `wanted`, which the sum of all does, and the sums
// of the bins before it, for all threads of a block.
struct Crossing {
    u32 bin;
    u64 count_before, weight_before;
    // Of this bin and those before.
    u64 count;
};

__device__ inline Crossing cross(const volatile Bin* bins, bool by_count, u64 wanted, Together* room) {
    constexpr u32 OWN = BINS / THREADS;
    u64 counts = 0, weights = 0, total = 0;
    for (u32 i = 0; i < OWN; i++) {
        counts += bins[threadIdx.x * OWN + i].count;
        weights += bins[threadIdx.x * OWN + i].weight;
    }
    u64 count = sum_before(counts, &total, room);
    u64 weight = sum_before(weights, &total, room);
    const u64 before = by_count ? count : weight;
    if (before < wanted && wanted <= before + (by_count ? counts : weights)) {
        u32 i = threadIdx.x * OWN;
        while ((by_count ? count + bins[i].count : weight + bins[i].weight) < wanted) {
            count += bins[i].count;
            weight += bins[i].weight;
            i++;
        }
        room->words[0] = i;
        room->words[1] = count;
        room->words[2] = weight;
        room->words[3] = count + bins[i].count;
    }
    __syncthreads();
    const Crossing crossing{u32(room->words[0]), room->words[1], room->words[2], room->words[3]};
    __syncthreads();
    return crossing;
}

// Shared memory of `sampling_weigh`: the bins of a block. A weight is added in two halves of 20 and 21 bits, whose sums
// over a chunk fit into words that shared memory adds to by itself.
struct BlockBins {
    u32 count[BINS];
    u32 low[BINS];
    u32 high[BINS];
};

extern "C" __global__ void __launch_bounds__(256) sampling_weigh(const Tables tables) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    BlockBins* own = reinterpret_cast<BlockBins*>(shared + sizeof(Together));
    State* state = tables.states + blockIdx.y;
    if (state->stage != WEIGH) return;
    const Request request = tables.requests[blockIdx.y];
    const Row row{tables, request, blockIdx.y, state->max};
    Bin* bins = tables.bins + row.index * BINS;
    const bool cuts = has_cuts(request);
    if (cuts) {
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) own->count[i] = own->low[i] = own->high[i] = 0;
        __syncthreads();
    }
    u64 sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = blockIdx.x * CHUNK + i * THREADS + threadIdx.x;
        if (id >= tables.vocabulary) break;
        const float logit = row.logit(id);
        const u64 weight = row.weight(logit);
        if (weight == 0) continue;
        if (cuts) {
            const u32 bin = row.bin(logit);
            atomicAdd(&own->count[bin], 1u);
            atomicAdd(&own->low[bin], u32(weight) & 0xfffff);
            atomicAdd(&own->high[bin], u32(weight >> 20));
        } else if (row.reaches_min_p(logit, weight)) {
            sum += weight;
        }
    }
    if (cuts) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
            if (own->count[i] == 0) continue;
            atomicAdd(&bins[i].count, u64(own->count[i]));
            atomicAdd(&bins[i].weight, (u64(own->high[i]) << 20) + own->low[i]);
        }
    } else {
        sum = sum_of_block(sum, room);
        if (threadIdx.x == 0) tables.sums[u64(row.index) * gridDim.x + blockIdx.x] = sum;
    }
    if (!is_last(&state->arrived, gridDim.x, room)) return;
    if (!cuts) {
        draw(row, 0, gridDim.x, room);
        return;
    }
    u64 count = 0, weight = 0;
    const volatile Bin* all = bins;
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
        count += all[i].count;
        weight += all[i].weight;
    }
    count = sum_of_block(count, room);
    weight = sum_of_block(weight, room);
    const bool cuts_count = request.top_k != 0 && request.top_k < count;
    if (!cuts_count && request.top_p >= CERTAIN) {
        // Nothing is cut after all; what is left is for the last kernel to sum.
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) bins[i] = Bin{};
        if (threadIdx.x == 0) state->stage = DRAW;
        return;
    }
    const u64 wanted = wanted_of(request.top_p, weight);
    const Crossing crossing = cross(all, cuts_count, cuts_count ? request.top_k : wanted, room);
    if (threadIdx.x == 0) {
        // Where top-p may cut deeper than top-k, all tokens before are collected too, if there is room.
        const bool from_first = cuts_count && crossing.count <= MEMBERS;
        state->first_bin = from_first ? 0 : crossing.bin;
        state->last_bin = crossing.bin;
        state->count_before = from_first ? 0 : u32(crossing.count_before);
        state->weight_before = from_first ? 0 : crossing.weight_before;
        state->wanted = wanted;
        state->cuts_count = cuts_count;
        state->stage = CUT;
    }
}

// Gives `f` the place and weight of each token in a range of bins: from those that were collected, or from all.
struct Tokens {
    const Row& row;
    const volatile Member* members;
    // So many were collected; when they are too many to keep, the row itself is looked at.
    u32 n_members;
    u32 first_bin, last_bin;

    template <typename F>
    __device__ void each(F f) const {
        if (n_members <= MEMBERS) {
            for (u32 i = threadIdx.x; i < n_members; i += THREADS) f(members[i].place, members[i].weight);
            return;
        }
        for (u32 id = threadIdx.x; id < row.tables.vocabulary; id += THREADS) {
            const float logit = row.logit(id);
            const u64 weight = row.weight(logit);
            if (weight == 0) continue;
            const u32 bin = row.bin(logit);
            if (first_bin <= bin && bin <= last_bin) f(place_of(logit, id), weight);
        }
    }
};

// The place of the token where the running sum of counts or of weights, likeliest first, reaches `wanted`; the sum of
// all reaches it. Each round halves the range of places and draws its ends in to the next tokens.
__device__ inline u64 find_cut(const Tokens& tokens, bool by_count, u64 wanted, Together* room) {
    u64 low = ~u64(0), high = 0;
    tokens.each([&](u64 place, u64) {
        low = place < low ? place : low;
        high = place > high ? place : high;
    });
    low = min_of_block(low, room);
    high = max_of_block(high, room);
    while (low < high) {
        const u64 middle = low + (high - low + 1) / 2;
        u64 sum = 0, above = ~u64(0), below = 0;
        tokens.each([&](u64 place, u64 weight) {
            if (place >= middle) {
                sum += by_count ? 1 : weight;
                above = place < above ? place : above;
            } else {
                below = place > below ? place : below;
            }
        });
        sum = sum_of_block(sum, room);
        if (sum >= wanted) {
            low = min_of_block(above, room);
        } else {
            high = max_of_block(below, room);
        }
    }
    return low;
}

extern "C" __global__ void __launch_bounds__(256) sampling_cut(const Tables tables) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    State* state = tables.states + blockIdx.y;
    if (state->stage != CUT) return;
    const Request request = tables.requests[blockIdx.y];
    const Row row{tables, request, blockIdx.y, state->max};
    const u32 first_bin = state->first_bin, last_bin = state->last_bin;
    Member* members = tables.members + u64(row.index) * MEMBERS;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = blockIdx.x * CHUNK + i * THREADS + threadIdx.x;
        if (id >= tables.vocabulary) break;
        const float logit = row.logit(id);
        const u64 weight = row.weight(logit);
        if (weight == 0) continue;
        const u32 bin = row.bin(logit);
        if (bin < first_bin || last_bin < bin) continue;
        const u32 index = atomicAdd(&state->members, 1u);
        if (index < MEMBERS) members[index] = Member{place_of(logit, id), weight};
    }
    if (!is_last(&state->arrived, gridDim.x, room)) return;
    Bin* bins = tables.bins + row.index * BINS;
    const u32 n_members = *const_cast<volatile u32*>(&state->members);
    const Tokens tokens{row, members, n_members, first_bin, last_bin};
    u64 cut = 0, wanted = state->wanted, before = state->weight_before;
    if (state->cuts_count) {
        cut = find_cut(tokens, true, request.top_k - state->count_before, room);
        u64 weight = 0;
        tokens.each([&](u64 place, u64 own) { weight += place >= cut ? own : 0; });
        wanted = wanted_of(request.top_p, before + sum_of_block(weight, room));
    }
    if (request.top_p < CERTAIN) {
        if (before < wanted) {
            cut = find_cut(tokens, false, wanted - before, room);
        } else {
            // Top-k's cut lies in a crowded bin, and top-p's in one before it.
            const Crossing crossing = cross(bins, false, wanted, room);
            const Tokens others{row, members, ~u32(0), crossing.bin, crossing.bin};
            cut = find_cut(others, false, wanted - crossing.weight_before, room);
        }
    }
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) bins[i] = Bin{};
    if (threadIdx.x == 0) {
        state->cut = cut;
        state->members = 0;
        state->stage = DRAW;
    }
}

extern "C" __global__ void __launch_bounds__(256) sampling_draw(const Tables tables) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    State* state = tables.states + blockIdx.y;
    if (state->stage != DRAW) return;
    const Request request = tables.requests[blockIdx.y];
    const Row row{tables, request, blockIdx.y, state->max};
    const u64 cut = state->cut;
    u64 sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = blockIdx.x * CHUNK + i * THREADS + threadIdx.x;
        if (id < tables.vocabulary) sum += row.weight_left(id, cut);
    }
    sum = sum_of_block(sum, room);
    if (threadIdx.x == 0) tables.sums[u64(row.index) * gridDim.x + blockIdx.x] = sum;
    if (!is_last(&state->arrived, gridDim.x, room)) return;
    draw(row, cut, gridDim.x, room);
}

// The sum of the weights of the logits themselves, at temperature 1 and in units of 2^-40, for log-probabilities.
// `largest: (rows)` are the largest of each row of `logits: (rows, vocabulary)`; `totals: (rows)` is zero before.
extern "C" __global__ void __launch_bounds__(256) sampling_total(
    const float* logits, const float* largest, u64* totals, u32 vocabulary) {
    SHARED_MEMORY(shared);
    Together* room = reinterpret_cast<Together*>(shared);
    Tables tables{};
    tables.logits = logits;
    tables.vocabulary = vocabulary;
    Request request{};
    request.inverse_temperature = 1.0;
    const Row row{tables, request, blockIdx.y, largest[blockIdx.y]};
    u64 sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 id = blockIdx.x * CHUNK + i * THREADS + threadIdx.x;
        if (id < vocabulary) sum += row.weight(row.logit(id));
    }
    sum = sum_of_block(sum, room);
    if (threadIdx.x == 0) atomicAdd(&totals[blockIdx.y], sum);
}

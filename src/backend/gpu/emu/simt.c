/* The fibers of simt.h. Threads of a group take turns: each runs until it waits. Under AddressSanitizer and ThreadSanitizer every switch is
 * announced; the latter then reports two accesses of one place without a barrier between them as a data race, since a switch by itself
 * counts as no synchronisation. */
#include "backend/gpu/emu/simt.h"
#include "base/half.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__)) /* what simt_swap is written for */
#define SIMT_SWAP 1
#else
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define SIMT_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define SIMT_TSAN 1
#endif
#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#define NO_SANITIZE __attribute__((no_sanitize("thread")))
#else
#define NO_SANITIZE
#endif

#define STACK ((size_t)256 << 10)

/* Where a fiber goes on. Nearly all that the emulator does is to switch: by a call and a return, which processors foresee as the next fiber mostly stands at the
 * same place of the kernel (bench/NOTES.md). */
#ifdef SIMT_SWAP
typedef void *Place; /* its stack pointer; on the stack what a callee saves, and where to return */
void simt_swap(Place *from, const Place *to);
#ifdef __x86_64__ /* System V ABI, 3.2.1 */
enum { SAVED = 8, RETURN = 6 }; /* words: six registers, where to return, and there 8 bytes beyond a multiple of 16 */
#define SWAP_TEXT                                                                                            \
    "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"             \
    "    mov %rsp, (%rdi)\n"                                                                                 \
    "    mov (%rsi), %rsp\n"                                                                                 \
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"                   \
    "    ret\n"
#else /* AAPCS64, 6.1 */
enum { SAVED = 20, RETURN = 11 }; /* x19 to x30, d8 to d15 */
#define SWAP_TEXT                                                                                            \
    "    sub sp, sp, #160\n"                                                                                 \
    "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"                     \
    "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"                \
    "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n    stp d14, d15, [sp, #144]\n" \
    "    mov x9, sp\n    str x9, [x0]\n"                                                                     \
    "    ldr x9, [x1]\n    mov sp, x9\n"                                                                     \
    "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"                     \
    "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"                \
    "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n    ldp d14, d15, [sp, #144]\n" \
    "    add sp, sp, #160\n"                                                                                 \
    "    ret\n"
#endif
__asm__(".text\n"
        ".p2align 5\n"
        ".type simt_swap, %function\n"
        "simt_swap:\n" SWAP_TEXT ".size simt_swap, . - simt_swap\n");

static void place_entry(Place *p, void *stack, size_t n_bytes, void (*entry)(void))
{
    void **top = (void **)((char *)stack + n_bytes) - SAVED;
    memset(top, 0, SAVED * sizeof *top);
    memcpy(&top[RETURN], &entry, sizeof entry);
    *p = top;
}
#else
typedef ucontext_t Place;
static void simt_swap(Place *from, const Place *to) { swapcontext(from, to); }
static void place_entry(Place *p, void *stack, size_t n_bytes, void (*entry)(void))
{
    getcontext(p);
    p->uc_stack.ss_sp = stack;
    p->uc_stack.ss_size = n_bytes;
    makecontext(p, entry, 0);
}
#endif

struct fiber {
    struct simt_thread thread; /* first: simt points here */
    Place at;
    struct fiber *before, *after; /* the ring of those that are not done */
    bool started;
    void *stack;
    size_t stack_bytes;
#ifdef SIMT_ASAN
    void *fake_stack;
#endif
#ifdef SIMT_TSAN
    void *tsan;
#endif
};

/* Threads that wait for each other: a group, or a wave of it. */
struct meeting {
    unsigned arrived, of, turn;
    int line;
    /* What the lanes of a wave give, by turns; what the first to read made of it, for the others, at the first lane of its part; which parts those are. */
    uint32_t slot[2][4][SIMT_WAVE], known[2];
    float made[2][SIMT_WAVE];
};

static _Thread_local struct group {
    struct fiber fibers[SIMT_GROUP_MOST], main;
    struct meeting all, waves[SIMT_GROUP_MOST / SIMT_WAVE];
    const struct simt_kernel *kernel;
    const void *params;
    void *const *buffers;
    unsigned char *room;
    size_t room_bytes;
    unsigned idle; /* switches since something happened */
    int bad_line, other_line; /* 0: no error; other_line 0: not all threads arrive */
} *group;

_Thread_local struct simt_thread *simt;

static struct simt_kernel *kernels;

void simt_register(struct simt_kernel *k)
{
    k->next = kernels;
    kernels = k;
}

const struct simt_kernel *simt_find(const char *name)
{
    for (const struct simt_kernel *k = kernels; k; k = k->next)
        if (!strcmp(k->name, name)) return k;
    return NULL;
}

NO_SANITIZE static void hop(struct fiber *from, struct fiber *to)
{
    if (from == to) return;
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    simt = &to->thread;
#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    simt_swap(&from->at, &to->at);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

/* Gives the group up: its fibers are left where they are and made anew by the next. */
NO_SANITIZE static void give_up(int line, int other_line)
{
    group->bad_line = line;
    group->other_line = other_line;
    hop((struct fiber *)simt, &group->main);
}

NO_SANITIZE static void fiber_main(void)
{
    struct fiber *me = (struct fiber *)simt;
#ifdef SIMT_ASAN
    const void *stack;
    size_t n;
    __sanitizer_finish_switch_fiber(NULL, &stack, &n);
    if (!group->main.stack) {
        memcpy(&group->main.stack, &stack, sizeof stack);
        group->main.stack_bytes = n;
    }
#endif
    for (;;) {
#ifdef SIMT_TSAN
        __tsan_acquire(group);
#endif
        group->kernel->call(group->params, group->buffers);
        me->before->after = me->after;
        me->after->before = me->before;
        group->idle = 0;
#ifdef SIMT_TSAN
        __tsan_release(group);
#endif
        hop(me, me->after == me ? &group->main : me->after);
    }
}

NO_SANITIZE static void meet(struct meeting *m, int line)
{
    struct fiber *me = (struct fiber *)simt;
    unsigned turn = m->turn;
    if (!m->arrived) m->line = line;
    if (m->line != line) give_up(m->line, line);
#ifdef SIMT_TSAN
    __tsan_release(m);
#endif
    if (++m->arrived == m->of) {
        m->arrived = 0;
        m->turn++;
        group->idle = 0;
    } else {
        while (m->turn == turn) {
            if (group->idle++ > 2 * me->thread.size || me->after == me) give_up(line, 0);
            hop(me, me->after);
        }
    }
#ifdef SIMT_TSAN
    __tsan_acquire(m);
#endif
}

void simt_barrier(int line) { meet(&group->all, line); }
void simt_wave_barrier(int line) { meet(&group->waves[simt->id / SIMT_WAVE], line); }

/* Gives x to the wave; returns what its lanes gave. A slot is written again two turns later, when all have read it. */
NO_SANITIZE static const uint32_t *give(float x, int line)
{
    struct meeting *m = &group->waves[simt->id / SIMT_WAVE];
    uint32_t *slot = m->slot[m->turn & 1][0];
    if (!m->arrived) m->known[m->turn & 1] = 0;
    slot[simt->id % SIMT_WAVE] = f32_bits(x);
    meet(m, line);
    return slot;
}

/* What `make` makes of the numbers of `width` neighbouring lanes. */
NO_SANITIZE static float reduced(float x, unsigned width, int line, float (*make)(const uint32_t *, unsigned))
{
    struct meeting *m = &group->waves[simt->id / SIMT_WAVE];
    const unsigned turn = m->turn & 1, first = simt->id % SIMT_WAVE / width * width;
    const uint32_t *s = give(x, line);
    if (!(m->known[turn] >> first & 1)) {
        m->made[turn][first] = make(s + first, width);
        m->known[turn] |= 1u << first;
    }
    return m->made[turn][first];
}

static float sum_of(const uint32_t *s, unsigned width) /* in the order of a butterfly of shuffles */
{
    float v[SIMT_WAVE];
    for (unsigned i = 0; i < width; i++) v[i] = f32_from_bits(s[i]);
    for (unsigned m = width / 2; m; m /= 2)
        for (unsigned i = 0; i < m; i++) v[i] += v[i + m];
    return v[0];
}

static float max_of(const uint32_t *s, unsigned width)
{
    float r = f32_from_bits(s[0]);
    for (unsigned i = 1; i < width; i++) r = f32_from_bits(s[i]) > r ? f32_from_bits(s[i]) : r;
    return r;
}

float simt_sum(float x, unsigned width, int line) { return reduced(x, width, line, sum_of); }
float simt_max(float x, unsigned width, int line) { return reduced(x, width, line, max_of); }
float simt_xor(float x, unsigned m, int line) { return f32_from_bits(give(x, line)[simt->id % SIMT_WAVE ^ m]); }

NO_SANITIZE void simt_rows8(float c[2], unsigned a0, unsigned a1, unsigned b0, unsigned b1, int line)
{
    const unsigned words[4] = {a0, a1, b0, b1}, at = simt->id % SIMT_WAVE;
    struct meeting *m = &group->waves[simt->id / SIMT_WAVE];
    uint32_t(*given)[SIMT_WAVE] = m->slot[m->turn & 1];
    for (int i = 0; i < 4; i++) given[i][at] = words[i];
    meet(m, line);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned i = 0; i < 2; i++)
            for (unsigned k = 0; k < 4; k++) {
                const uint32_t a = given[i][at / 4 * 4 + k], b = given[2 + i][(at % 4 * 2 + n) * 4 + k];
                c[n] += f32_from_f16((uint16_t)a) * f32_from_f16((uint16_t)b) + f32_from_f16((uint16_t)(a >> 16)) * f32_from_f16((uint16_t)(b >> 16));
            }
}

static kg_status make_fiber(struct fiber *f)
{
    f->started = true;
    if (!f->stack) {
        void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) return status_set(KG_ERR_MEMORY, "emulator: no memory for stacks");
        f->stack = stack;
        f->stack_bytes = STACK;
    }
    place_entry(&f->at, f->stack, STACK, fiber_main);
#ifdef SIMT_TSAN
    if (!f->tsan) f->tsan = __tsan_create_fiber(0);
#endif
    return KG_OK;
}

/* The memory of a thread that has run kernels is kept for its next one and given back when it ends. */
static pthread_key_t group_key;
static pthread_once_t group_once = PTHREAD_ONCE_INIT;

static void free_group(void *p)
{
    struct group *g = p;
    for (int i = 0; i < SIMT_GROUP_MOST; i++) {
        if (g->fibers[i].stack) munmap(g->fibers[i].stack, STACK);
#ifdef SIMT_TSAN
        if (g->fibers[i].tsan) __tsan_destroy_fiber(g->fibers[i].tsan);
#endif
    }
    free(g->room);
    free(g);
}

static void make_group_key(void) { pthread_key_create(&group_key, free_group); }

NO_SANITIZE static kg_status run_group(unsigned x, unsigned y, unsigned size)
{
    struct group *g = group;
    for (unsigned i = 0; i < size; i++) {
        struct fiber *f = &g->fibers[i];
        if (!f->started) KG_TRY(make_fiber(f));
        f->thread = (struct simt_thread){i, size, {x, y}};
        f->before = &g->fibers[(i ? i : size) - 1];
        f->after = &g->fibers[i + 1 < size ? i + 1 : 0];
        if (i % SIMT_WAVE == 0) {
            struct meeting *m = &g->waves[i / SIMT_WAVE];
            m->arrived = 0;
            m->of = SIMT_WAVE;
        }
    }
    g->all.arrived = 0;
    g->all.of = size;
    g->idle = 0;
    g->bad_line = 0;
#ifdef SIMT_TSAN
    g->main.tsan = __tsan_get_current_fiber();
    __tsan_release(g);
#endif
    hop(&g->main, &g->fibers[0]);
#ifdef SIMT_TSAN
    __tsan_acquire(g);
#endif
    if (!g->bad_line) return KG_OK;
    for (unsigned i = 0; i < SIMT_GROUP_MOST; i++) g->fibers[i].started = false;
    if (g->other_line)
        return status_set(KG_ERR_DEVICE, "emulator: %s: threads of a group wait at different places, lines %d and %d", g->kernel->name, g->bad_line, g->other_line);
    return status_set(KG_ERR_DEVICE, "emulator: %s: not all threads reach the barrier or wave operation in line %d", g->kernel->name, g->bad_line);
}

unsigned char *simt_room(size_t n_bytes)
{
    struct group *g = group;
    if (g->room_bytes >= n_bytes) return g->room;
    free(g->room);
    g->room = aligned_alloc(128, ROUND_UP(n_bytes, (size_t)128));
    g->room_bytes = g->room ? n_bytes : 0;
    return g->room;
}

kg_status simt_run(const struct simt_kernel *k, const unsigned grid[2], unsigned size, const void *params, void *const *buffers)
{
    if (size == 0 || size % SIMT_WAVE || size > (unsigned)k->most_threads)
        return status_set(KG_ERR_DEVICE, "emulator: %s: groups of %u threads", k->name, size);
    pthread_once(&group_once, make_group_key);
    if (!group) {
        group = calloc(1, sizeof *group);
        if (!group) return status_set(KG_ERR_MEMORY, "emulator: out of memory");
        pthread_setspecific(group_key, group);
    }
    group->kernel = k;
    group->params = params;
    group->buffers = buffers;
    for (unsigned y = 0; y < grid[1]; y++)
        for (unsigned x = 0; x < grid[0]; x++) KG_TRY(run_group(x, y, size));
    return KG_OK;
}

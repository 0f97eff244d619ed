/* Comes behind the text of kernels: how the emulator calls each. FAKE_KERNELS lists them as FAKE_KERNEL(name, most threads). */
#include <utility>

/* Argument i of n: the parameters, buffers, and at the end the thread's place. */
struct fake_argument {
    void *const *buffers;
    size_t i, n;
    template <class T> operator T *() const { return (T *)buffers[i - 1]; }
    operator uint3() const
    {
        const struct fake_thread *t = fake_calls->self();
        if (n - i == 5) return uint3{t->group[0], t->group[1], 0};
        return uint3{t->size, 1, 1};
    }
    operator uint() const
    {
        uint id = fake_calls->self()->id;
        return n - i == 3 ? id : n - i == 2 ? id % 32 : id / 32;
    }
};
template <class P, class... A, size_t... I> static void fake_call(void (*f)(P &, A...), const void *params, void *const *buffers, std::index_sequence<I...>)
{
    P p;
    memcpy((void *)&p, params, sizeof p);
    f(p, fake_argument{buffers, I + 1, sizeof...(A) + 1}.operator A()...);
}
template <class P, class... A> static void fake_call(void (*f)(P &, A...), const void *params, void *const *buffers)
{
    fake_call(f, params, buffers, std::index_sequence_for<A...>());
}
template <auto F> static void fake_thunk(const void *params, void *const *buffers) { fake_call(F, params, buffers); }
template <class P, class... A> constexpr size_t fake_params(void (*)(P &, A...)) { return sizeof(P); }
template <class P, class... A> constexpr int fake_buffers(void (*)(P &, A...)) { return sizeof...(A) - 5; }

#define FAKE_KERNEL(name, threads) {#name, fake_thunk<name>, threads, fake_params(name), fake_buffers(name)},
extern "C" {
const struct fake_calls *fake_calls;
extern const struct fake_kernel fake_kernels[];
const struct fake_kernel fake_kernels[] = {FAKE_KERNELS{nullptr, nullptr, 0, 0, 0}};
}

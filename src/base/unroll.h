/* What becomes of the loop that follows, for kernels.
 * UNROLL(n): it has at most n rounds, known when it is compiled, and all are written out, so that arrays they index are registers. clang does that
 * before it decides which arrays can be registers only if told `full`; with sanitizers, whose checks would take it minutes, it is not told.
 * UNROLL_BY(n): n rounds at a time, however many there are. ROLLED: it stays a loop. */
#ifndef BASE_UNROLL_H
#define BASE_UNROLL_H

#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#ifndef __clang__
#define UNROLL(n) PRAGMA(GCC unroll n)
#define UNROLL_BY(n) PRAGMA(GCC unroll n)
#define ROLLED PRAGMA(GCC unroll 1)
#else
#define UNROLL_BY(n) PRAGMA(clang loop unroll_count(n))
#define ROLLED PRAGMA(clang loop unroll(disable))
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer) || __has_feature(thread_sanitizer)
#define UNROLL(n)
#else
#define UNROLL(n) PRAGMA(clang loop unroll(full))
#endif
#endif

#endif

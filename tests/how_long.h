/* How much a test does: all of it (KAGARI_TEST_LONG), or what the quick suite or a sanitizer has time for. */
#ifndef TESTS_HOW_LONG_H
#define TESTS_HOW_LONG_H

#include <stdbool.h>
#include <stdlib.h>

static inline bool is_long(void) { return getenv("KAGARI_TEST_LONG") != NULL; }

/* Built with a sanitizer: ten times slower; with that for threads, of whose tests one tier is enough, thirty times. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif
#if defined(__SANITIZE_THREAD__)
#define FINDS_RACES 1
#elif defined(__has_feature)
#define FINDS_RACES __has_feature(thread_sanitizer)
#else
#define FINDS_RACES 0
#endif

#endif

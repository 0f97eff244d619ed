/* What all who generate text take from the settings. */
#ifndef APP_GENERATE_H
#define APP_GENERATE_H

#include "kagari.h"
#include "options.h"

kg_generate_params generate_params(const struct settings *s, uint64_t seed);
uint64_t generate_seed(const struct settings *s); /* --seed, or a random one */
double generate_clock(void); /* seconds */

#endif

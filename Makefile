# The front door: everything is built by CMake in build/; these targets install what is missing and call it.
BUILD  ?= build
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX ?= /usr/local
PROMPT ?= Once upon a time there was a little fox
SEED   ?= 8

# CMake calls its own make, which must not inherit the job server of this one.
cmake = env -u MFLAGS MAKEFLAGS=--no-print-directory cmake

.DEFAULT_GOAL := build
.PHONY: build run test install clean format layers sanitize fuzz setup

setup:
	@tools/setup.sh

build: setup
	@mkdir -p $(BUILD)
	@$(cmake) -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
	@$(cmake) --build $(BUILD) -j $(JOBS)

run: build
	@printf '\n%s' "$(PROMPT)"
	@$(BUILD)/kagari -p "$(PROMPT)" --seed $(SEED) --max-tokens 130 --repeat-penalty 1.05 </dev/null
	@printf ' ...\n'

test: build
	@cd $(BUILD) && ctest --output-on-failure -j $(JOBS)

install: build
	@$(cmake) --install $(BUILD)

clean:
	rm -rf $(BUILD) $(addprefix $(BUILD)-,asan tsan ubsan fuzz aarch64)

format:
	clang-format -i $$(find include src app tests -name '*.[ch]' ! -name codebooks.c)

layers:
	@tests/check_layers.sh

# Every test under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: setup
	@$(cmake) --preset asan
	@$(cmake) --build --preset asan -j $(JOBS)
	@cd $(BUILD)-asan && ctest --output-on-failure -j $(JOBS)

# Every fuzz target for FUZZ_SECONDS.
FUZZ_SECONDS ?= 20
fuzz:
	@tools/setup.sh fuzz
	@$(cmake) --preset fuzz
	@$(cmake) --build --preset fuzz -j $(JOBS) --target fuzz_targets
	@tests/run_fuzz.sh $(BUILD)-fuzz $(FUZZ_SECONDS)

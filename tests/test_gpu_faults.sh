#!/usr/bin/env bash
# Tests of the tests: three mistakes are put into copies of the GPU kernels, and what checks kernels without a GPU must find each: a missing
# barrier (the emulator under ThreadSanitizer), a read out of bounds (under AddressSanitizer), a pointer to the wrong memory or to none that is named
# (clang, kernels as OpenCL C and as Metal's language). The kernels as they are must pass.
#   tests/test_gpu_faults.sh SOURCE_FOLDER
set -u
cd "$1" || exit 2
cc=${CC:-cc}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
bad() { failed=1; printf 'FAILED: %s\n' "$*" >&2; }

# A norm of three rows in groups of 96 threads, every buffer as small as it may be.
cat >"$tmp/main.c" <<'END'
#include "backend/gpu/emu/compat_emu.h"
#include "backend/gpu/kernels/module_basic.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    enum { WIDTH = 375, STRIDE = 384, ROWS = 3 };
    float *x = aligned_alloc(64, ROWS * STRIDE * sizeof *x), *w = aligned_alloc(64, STRIDE * sizeof *w), *y = aligned_alloc(64, ROWS * STRIDE * sizeof *y);
    for (int i = 0; i < ROWS * STRIDE; i++) x[i] = i % STRIDE < WIDTH ? (float)(i % 7 - 3) : 0, y[i] = 0;
    for (int i = 0; i < STRIDE; i++) w[i] = i < WIDTH;
    NormP p = {.width = WIDTH, .stride = STRIDE, .out_stride = STRIDE, .n_units = STRIDE / 32, .norm = NORM_RMS, .eps = 1e-6f};
    kg_status st = simt_run(simt_find("norm_rows"), (unsigned[]){ROWS, 1}, 96, &p, (void *[]){x, w, w, y});
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += (double)y[i] * (double)y[i];
    printf("%d %.4f\n", (int)st, sum / WIDTH);
    free(x);
    free(w);
    free(y);
    return st != KG_OK || fabs(sum / WIDTH - 1) > 1e-4;
}
END

# build NAME SANITIZER FILE EDIT: the kernels with one edit (sed) in one file
build() {
    rm -rf "$tmp/src"
    mkdir -p "$tmp/src/backend/gpu"
    cp -r src/backend/gpu/kernels src/backend/gpu/emu src/backend/gpu/opencl src/backend/gpu/metal "$tmp/src/backend/gpu/"
    sed -i "$4" "$tmp/src/backend/gpu/kernels/$3"
    if [ -n "$4" ] && cmp -s "$tmp/src/backend/gpu/kernels/$3" "src/backend/gpu/kernels/$3"; then bad "$1: the edit changes nothing any more"; fi
    [ -z "$2" ] && return
    "$cc" -std=c17 -D_GNU_SOURCE -O1 -g -w -fsanitize="$2" -I"$tmp/src" -Isrc -Iinclude "$tmp/main.c" src/backend/gpu/emu/simt.c src/base/base.c \
        -o "$tmp/run" -lm -pthread 2>"$tmp/err" || { cat "$tmp/err" >&2; bad "$1: does not build"; }
}
run() { TSAN_OPTIONS=exitcode=66 setarch -R "$tmp/run" >"$tmp/out" 2>&1; }
finds() { # NAME SANITIZER FILE EDIT REPORT
    build "$1" "$2" "$3" "$4"
    if run; then bad "$1: not found: $(cat "$tmp/out")"; fi
    grep -q "$5" "$tmp/out" || bad "$1: no '$5' in: $(head -c 600 "$tmp/out")"
}

if echo 'int main(void) { return 0; }' | "$cc" -fsanitize=thread -x c - -o "$tmp/probe" 2>/dev/null && setarch -R "$tmp/probe" 2>/dev/null; then
    build "as they are" thread common.h ''
    run || bad "as they are, ThreadSanitizer: $(cat "$tmp/out")"
    # in group_sum: between the sums of the waves and their readers
    finds "missing barrier" thread common.h '/group_sum(LOCAL/,/^}/ { /^    BARRIER();$/d }' 'data race'
else echo "gpu_faults: skipped: the missing barrier: no ThreadSanitizer here"; fi

if echo 'int main(void) { return 0; }' | "$cc" -fsanitize=address -x c - -o "$tmp/probe" 2>/dev/null && setarch -R "$tmp/probe" 2>/dev/null; then
    build "as they are" address,undefined common.h ''
    run || bad "as they are, AddressSanitizer: $(cat "$tmp/out")"
    finds "read out of bounds" address,undefined basic.h '/^KERNEL(norm_rows/,/^}/ s/i < p.stride \/ 4;/i <= p.stride \/ 4;/' 'heap-buffer-overflow'
else echo "gpu_faults: skipped: the read out of bounds: no AddressSanitizer here"; fi

# As OpenCL C and as Metal's language, with address spaces as part of types. A pointer that names none is an error to Metal only; as OpenCL C 2.0
# it is one of the generic space.
modules=(basic route state "attend;KV f16;KV_TYPE 0;KV_N 8" "wide;KV q8_0;KV_TYPE 2;KV_N 16" "pack;FMT n4_km;FMT_CODE 4;FMT_BOOK 0;FMT_SCALE 5;FMT_OFFSET 0" "pack;FMT b3_kk;FMT_CODE 3;FMT_BOOK 1;FMT_SCALE 6;FMT_OFFSET 0"
         "pack;FMT f16;FMT_CODE 16;FMT_BOOK 0;FMT_SCALE 0;FMT_OFFSET 0")
text_of() { # COMPAT MODULE
    local part
    IFS=';' read -ra part <<<"$2"
    printf '#include "backend/gpu/%s"\ntypedef int begin_here;\n' "$1"
    if [ "${#part[@]}" -gt 1 ]; then printf '#define %s\n' "${part[@]:1}"; fi
    printf '#include "backend/gpu/kernels/module_%s.h"\n' "${part[0]}"
}
as_opencl() {
    text_of opencl/compat_opencl.h "$1" >"$tmp/text.cl"
    clang -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -fsyntax-only -w -I"$tmp/src" "$tmp/text.cl" >"$tmp/out" 2>&1
}
as_metal() {
    text_of metal/compat_metal.h "$1" >"$tmp/text.cc"
    clang++ -std=c++17 -fsyntax-only -w -DFAKE_ADDRESS_SPACES -Itests/metal/msl -I"$tmp/src" "$tmp/text.cc" >"$tmp/out" 2>&1
}
no_bare_pointers() {
    text_of opencl/compat_opencl.h "$1" >"$tmp/text.cl"
    clang -x cl -cl-std=CL2.0 -target spir64 -Xclang -finclude-default-header -fsyntax-only -w -Xclang -ast-dump -I"$tmp/src" "$tmp/text.cl" 2>/dev/null |
        awk '/begin_here/ { on = 1 } on && /VarDecl/ && /__generic/ { print; bad = 1 } END { exit bad || !on }' >"$tmp/out"
}
if command -v clang++ >/dev/null 2>&1; then
    build "as they are" '' common.h ''
    for check in as_opencl as_metal no_bare_pointers; do
        for m in "${modules[@]}"; do $check "$m" || bad "as they are, $check, ${m%%;*}: $(head -c 600 "$tmp/out")"; done
    done
    for check in as_opencl as_metal; do
        build "wrong address space" '' common.h 's/group_sum(LOCAL float \*tmp/group_sum(GLOBAL float *tmp/'
        if $check basic; then bad "wrong address space, $check: not found"; fi
        grep -qE 'address space|no matching function' "$tmp/out" || bad "wrong address space, $check: $(head -c 600 "$tmp/out")"
        build "a cast to the wrong address space" '' matvec.h 's/GLOBAL const float \*xr = (GLOBAL const float \*)x;/LOCAL const float *xr = (GLOBAL const float *)x;/'
        if $check "pack;FMT n4_km;FMT_CODE 4;FMT_BOOK 0;FMT_SCALE 5;FMT_OFFSET 0"; then bad "a cast to the wrong address space, $check: not found"; fi
    done
    build "pointer without an address space" '' common.h 's/^DEVFN float h2f_lo(uint w) { return /DEVFN float h2f_lo(uint w) { uint *bare = \&w; return *bare > 0x10000u ? 0.0f : /'
    if no_bare_pointers basic; then bad "pointer without an address space: not found"; fi
else echo "gpu_faults: skipped: wrong address spaces: no clang++ here"; fi

[ "$failed" = 0 ] && echo "gpu_faults: passed"
exit "$failed"

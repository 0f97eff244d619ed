#!/usr/bin/env bash
# Installs what the build needs and the system lacks. Does nothing where all of it is there; needs root or sudo otherwise.
#   tools/setup.sh        what `make build`, `make run` and `make test` need
#   tools/setup.sh fuzz   also clang and its fuzzer
#   tools/setup.sh ci     also what .ci/run needs: both of these, compilers for C++ and Objective-C, PoCL, the aarch64 compiler, an emulator
set -euo pipefail

missing=()
need_program() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need_library() { command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$1" || missing+=("$2"); }
need_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed' || missing+=("$1"); }

need_program cc gcc
need_program cmake cmake
need_program pkg-config pkg-config
need_library libpcre2-8 libpcre2-dev
need_library jansson libjansson-dev
need_library libcurl libcurl4-openssl-dev
need_library libcrypto libssl-dev
need_library libutf8proc libutf8proc-dev
need_library libedit libedit-dev
need_library ncursesw libncurses-dev
need_library vterm libvterm-dev
need_library cmocka libcmocka-dev
# gcc may stand without the C library's headers (Debian only recommends them)
if command -v cc >/dev/null 2>&1 && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then missing+=(libc6-dev); fi
case ${1:-} in
'') ;;
fuzz) for package in clang libclang-rt-dev; do need_package "$package"; done ;;
ci) for package in clang libclang-rt-dev g++ gobjc pocl-opencl-icd ocl-icd-libopencl1 qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross; do need_package "$package"; done ;;
*) echo "usage: tools/setup.sh [fuzz|ci]" >&2; exit 2 ;;
esac
[ ${#missing[@]} -gt 0 ] || exit 0

echo "setup: missing: ${missing[*]}" >&2
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this is not a Debian-like system; please install these (Debian's names) with its package manager: ${missing[*]}" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: please run as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n)
fi
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; }

# The package lists of a fresh machine are empty or old: fetch them only if the first try fails.
if ! install >/dev/null 2>&1; then
    "${as_root[@]}" apt-get update -q || echo "setup: apt-get update failed, trying to install all the same" >&2
    if ! install; then
        echo "setup: could not install: ${missing[*]}; please do it by hand" >&2
        exit 1
    fi
fi
echo "setup: installed ${missing[*]}" >&2

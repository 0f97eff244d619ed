#!/usr/bin/env bash
# Checks what a compiler does not: who includes whom (the order is in DESIGN.md), that the library never exits, aborts or prints,
# that file names are unique and files short, and that the public header is C17 and C++.
#   tests/check_layers.sh [source folder]
set -u
cd "${1:-$(dirname "$0")/..}" || exit 2
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); printf 'layers: %s\n' "$*" >&2; }

# The headers that a file may include, as a regular expression over the text between the quotes.
allowed() {
    local base='kagari\.h|base/.*' tensor file text model program='model/program\.h' backend='backend/backend\.h'
    tensor="$base|tensor/.*" file="$base|tensor/.*|file/.*" text="$base|tensor/.*|file/.*|text/.*"
    model="$file|model/.*"
    case $1 in
    src/base/*) echo "$base" ;;
    src/tensor/*) echo "$tensor" ;;
    src/file/*) echo "$file" ;;
    src/text/*) echo "$text" ;;
    src/model/program.[ch]) echo "$tensor|$program" ;;
    src/model/*) echo "$model|arch_list\.inc" ;;
    src/arch/*) echo "$model" ;;
    src/backend/gpu/kernels/*) echo 'backend/gpu/kernels/.*' ;;
    src/backend/*/*) d=${1#src/backend/}; echo "$tensor|$program|$backend|backend/${d%%/*}/.*|[a-z_]+\.inc" ;;
    src/backend/*) echo "$tensor|$program|$backend|backend_list\.inc" ;;
    src/run/*) echo "$text|$model|$backend|run/.*" ;;
    app/*) echo "kagari\.h|[a-z_]+\.(h|def)" ;;
    *) echo '' ;;
    esac
}

files=$(find src app -name '*.[ch]' -o -name '*.def' -path 'src/*' | sort)
for f in $files; do
    pattern=$(allowed "$f")
    if [ -z "$pattern" ]; then
        bad "$f: this folder has no place in the order of layers"
        continue
    fi
    while IFS= read -r header; do
        if ! [[ $header =~ ^($pattern)$ ]]; then bad "$f includes \"$header\", which its layer may not see"
        elif [[ $f == src/backend/ref/* && $header =~ ^(base/half|tensor/decode)\.h$ ]]; then
            bad "$f includes \"$header\": the reference must not share conversions or decoders with what it judges"
        elif [[ $f == app/* && $header != kagari.h && ! -f app/$header ]]; then bad "$f includes \"$header\": the program may use only kagari.h"
        else ok; fi
    done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\(.*\)".*/\1/p' "$f")

    lines=$(wc -l <"$f")
    if [ "$lines" -le 1000 ]; then ok; else bad "$f has $lines lines, more than 1000"; fi
done

# Comments go away first; snprintf and the like write to memory and are welcome.
for f in $(find src -name '*.[ch]' | sort); do
    calls=$("${CC:-cc}" -fpreprocessed -dD -E -P -x c "$f" 2>/dev/null |
        grep -nE '(^|[^[:alnum:]_])(exit|_exit|abort|quick_exit|v?f?printf|puts|fputs|putchar|perror)[[:space:]]*\(' | grep -v '__attribute__')
    if [ -z "$calls" ]; then ok; else bad "$f: a library never exits, aborts or prints: $calls"; fi
done

twice=$(find src -name '*.[ch]' -printf '%f\n' | sort | uniq -d | tr '\n' ' ')
if [ -z "$twice" ]; then ok; else bad "file names that stand twice under src/: $twice"; fi

if "${CC:-cc}" -std=c17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c include/kagari.h; then ok; else bad "kagari.h is not clean C17"; fi
for cxx in "${CXX:-c++}" g++ clang++; do
    command -v "$cxx" >/dev/null 2>&1 || continue
    if "$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ include/kagari.h; then ok; else bad "kagari.h is not clean C++ for $cxx"; fi
    break
done || true
command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 || echo "layers: skipped: kagari.h as C++, no C++ compiler here"

printf 'layers: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]

#!/usr/bin/env bash
# Runs every fuzz target of a build folder for some seconds each, starting from the small valid files that the tests have.
#   tests/run_fuzz.sh BUILD_FOLDER SECONDS
set -euo pipefail
build=$1 seconds=$2
top=$(cd "$(dirname "$0")/.." && pwd)
n=0
for target in "$build"/tests/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=$(basename "$target")
    corpus=$build/corpus/$name
    mkdir -p "$corpus"
    seeds=()
    [ ! -d "$top/tests/seeds/$name" ] || seeds+=("$top/tests/seeds/$name")
    [ "$name" != fuzz_gguf ] || [ ! -d "$top/../shared/hostile/gguf" ] || seeds+=("$top/../shared/hostile/gguf")
    echo "fuzz: $name, $seconds s"
    log=$build/$name.log
    if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$build/$name-" "$corpus" "${seeds[@]}" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "fuzz: $name found something: see $log and $build/$name-*" >&2
        exit 1
    fi
    grep -E '^stat::(number_of_executed_units|new_units_added|peak_rss_mb)' "$log"
    n=$((n + 1))
done
[ "$n" -gt 0 ] || { echo "no fuzz target in $build/tests" >&2; exit 1; }
echo "fuzz: $n targets ran $seconds s each without a finding"

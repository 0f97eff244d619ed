#!/usr/bin/env bash
# Kagari beside a build of llama.cpp: the same model files, the same threads, in turns, so that a machine that changes meanwhile changes for
# both. Prints the medians of all rounds and their ratios as a Markdown table.
#   bench/compare.sh [-k KAGARI] [-l LLAMA_BENCH] [-t THREADS] [-p PROMPT] [-n GENERATE] [-d CONTEXT] [-r ROUNDS] MODEL.gguf...
# Without -l only Kagari is measured. In a round each program reads the prompt once and generates once, after a warm-up of its own.
set -euo pipefail
kagari=$(dirname "$0")/../build/kagari
peer='' threads=$(nproc) prompt=512 generate=128 context=0 rounds=5
usage() {
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
while getopts k:l:t:p:n:d:r: o; do
    case $o in
    k) kagari=$OPTARG ;;
    l) peer=$OPTARG ;;
    t) threads=$OPTARG ;;
    p) prompt=$OPTARG ;;
    n) generate=$OPTARG ;;
    d) context=$OPTARG ;;
    r) rounds=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Value of column $2 of the CSV file $1.
column() { awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) k = i } NR == 2 { print $k }' "$1"; }
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { if (NR) printf "%.6g", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2; else printf "-" }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "%.2f", a / b; else printf "-" }'; }
percent() { awk -v a="$1" 'BEGIN { if (a > 0) printf "%.0f %%", 100 * a; else printf "-" }'; }
number() { awk -v a="$1" 'BEGIN { if (a > 0) printf "%.2f", a; else printf "-" }'; }

# One test of the peer, appended to the file $1: its rate is the one that llama-bench calls avg_ts.
peer_test() {
    local to=$1
    shift
    "$peer" "$@" -t "$threads" -r 1 -o jsonl 2>"$tmp/peer_err" | sed -n 's/.*"avg_ts": *\([0-9.e+-]*\).*/\1/p' >>"$to"
}

round() {
    local model=$1
    "$kagari" bench -m "$model" -t "$threads" -p "$prompt" -n "$generate" --context "$context" --runs 1 --csv >"$tmp/csv"
    for name in prompt_tok_s prompt_share generation_tok_s generation_share load_s peak_rss_mb; do column "$tmp/csv" $name >>"$tmp/$name"; done
    [ -n "$peer" ] || return 0
    peer_test "$tmp/peer_prompt" -m "$model" -p "$prompt" -n 0
    peer_test "$tmp/peer_generation" -m "$model" -p 0 -n "$generate" -d "$context"
}

printf '| model | prompt tok/s | share | llama.cpp | ratio | generation tok/s | share | llama.cpp | ratio | load s | peak MB |\n'
printf '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n'
for model in "$@"; do
    rm -f "$tmp"/*
    touch "$tmp/peer_prompt" "$tmp/peer_generation"
    for _ in $(seq "$rounds"); do round "$model"; done
    if [ -n "$peer" ] && [ "$(cat "$tmp/peer_prompt" "$tmp/peer_generation" | wc -l)" != $((2 * rounds)) ]; then
        echo "compare.sh: $peer failed on $model: $(tail -n 1 "$tmp/peer_err")" >&2
    fi
    p=$(median "$tmp/prompt_tok_s") g=$(median "$tmp/generation_tok_s") q=$(median "$tmp/peer_prompt") h=$(median "$tmp/peer_generation")
    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %.0f |\n' "$(basename "$model" .gguf)" "$(number "$p")" \
        "$(percent "$(median "$tmp/prompt_share")")" "$(number "$q")" "$(ratio "$p" "$q")" "$(number "$g")" \
        "$(percent "$(median "$tmp/generation_share")")" "$(number "$h")" "$(ratio "$g" "$h")" "$(number "$(median "$tmp/load_s")")" \
        "$(median "$tmp/peak_rss_mb")"
done

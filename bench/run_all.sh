#!/usr/bin/env bash
# Everything that bench/RESULTS.md shows, on standard output as Markdown: speed and share of the machine's limits by type of weights, at a
# depth, and (with -l) beside llama.cpp. Keeps the numbers as CSV, and a plot of the shares, in the output folder.
#   bench/run_all.sh [-k KAGARI] [-l LLAMA_BENCH] [-o FOLDER] [-s SHAPE] [-t THREADS] [-r RUNS] [TYPE...]
# With llama.cpp, model files of the shape are written to the folder one at a time, and removed.
set -euo pipefail
here=$(dirname "$0")
kagari=$here/../build/kagari
out=$here/../build/bench
peer='' shape=tinyllama-1.1b threads=$(nproc) runs=5
while getopts k:l:o:s:t:r: o; do
    case $o in
    k) kagari=$OPTARG ;;
    l) peer=$OPTARG ;;
    o) out=$OPTARG ;;
    s) shape=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) runs=$OPTARG ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
types=("$@")
[ $# -gt 0 ] || types=(q4_k_m q4_0 q8_0 q6_k q5_k q3_k q2_k iq4_xs f16 bf16)
mkdir -p "$out"
csv=$out/results.csv
rm -f "$csv"

bench() { # args...: one row of the table, and of the CSV file
    "$kagari" bench --shape "$shape" -t "$threads" --runs "$runs" --csv "$@" >"$out/row.csv"
    [ -e "$csv" ] || sed -n 1p "$out/row.csv" >"$csv"
    sed -n 2p "$out/row.csv" | tee -a "$csv" >/dev/null
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) k[$i] = i }
        NR == 2 { printf "| %s | %s | %.1f (%.1f to %.1f) | %.0f %% of %s | %.2f (%.2f to %.2f) | %.0f %% | %.2f | %.0f | %s | %s | %d |\n", $k["type"], $k["context"],
            $k["prompt_tok_s"], $k["prompt_tok_s_min"], $k["prompt_tok_s_max"], 100 * $k["prompt_share"], $k["arithmetic"],
            $k["generation_tok_s"], $k["generation_tok_s_min"], $k["generation_tok_s_max"], 100 * $k["generation_share"], $k["load_s"], $k["peak_rss_mb"],
            $k["bit_identical"] == "true" ? "yes" : "NO", $k["logits_error"] == "" ? "" : sprintf("%.1e", $k["logits_error"]),
            $k["repeated"] + $k["unsettled"] }' "$out/row.csv"
    rm -f "$out/row.csv"
}

echo "Measured $(date -u +%Y-%m-%d) with $("$kagari" --version), $threads threads, on: $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)."
echo "Noise in the shape of $shape; a prompt of 512, then 128 tokens one by one; medians (lowest to highest) of $runs runs."
echo
echo '| weights | context | prompt tok/s | share of peak | generation tok/s | share of bandwidth | load s | peak MB | bit-identical | logits error | moved |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|'
first=(--verify 32)
for type in "${types[@]}"; do
    bench --type "$type" "${first[@]}"
    first=()
done
bench --type "${types[0]}" --context 1024

awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) k[$i] = i; next }
    { n++; r += $k["read_gb_s"]; a += $k["int8_tops"]; f += $k["f32_tflops"]; b += $k["bf16_tflops"] }
    END { printf "\nLimits, mean over the rows: read %.1f GB/s, int8 %.2f Top/s, f32 %.3f Tflop/s, bf16 %.3f Tflop/s.\n", r / n, a / n, f / n, b / n }' "$csv"
awk -f "$here/plot.awk" "$csv" >"$out/shares.svg"

[ -n "$peer" ] || exit 0
echo
echo "Beside llama.cpp ($("$peer" --version 2>&1 | sed -n 's/^version: //p')), in turns:"
echo
header=''
for type in "${types[@]}"; do
    "$kagari" bench --shape "$shape" --type "$type" --out "$out/$shape-$type.gguf"
    "$here/compare.sh" -k "$kagari" -l "$peer" -t "$threads" -r "$runs" "$out/$shape-$type.gguf" | sed "$header"
    rm -f "$out/$shape-$type.gguf"
    header=1,2d
done

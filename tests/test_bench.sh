#!/usr/bin/env bash
# The command bench from outside: that its reports are whole and its results identical; never how fast anything is.
#   tests/test_bench.sh PATH_OF_KAGARI SOURCE_FOLDER
set -u
kagari=$1
model=$2/models/stories-q4_k_m.gguf
unset KAGARI_MODEL NO_COLOR
export KAGARI_CONFIG=/dev/null # not that of the user
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
short=(--runs 1 --prompt 16 --generate 4)

run() { # STATUS args...
    local want=$1 got=0
    shift
    "$kagari" bench "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    last="kagari bench $*"
    check "exit status $want (got $got: $(head -c 200 "$tmp/err"))" [ "$got" = "$want" ]
}
check() { # what, command...
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED: %s: %s\n' "$last" "$what" >&2
    fi
}
out_has() { check "stdout has '$1' (is: $(head -c 300 "$tmp/out"))" grep -qF -- "$1" "$tmp/out"; }
fails() { # STATUS TEXT args...
    local status=$1 text=$2
    shift 2
    run "$status" "$@"
    check "stderr has '$text' (is: $(head -c 200 "$tmp/err"))" grep -qF -- "$text" "$tmp/err"
    check "one line on stderr" [ "$(wc -l <"$tmp/err")" = 1 ]
    check "nothing on stdout" [ ! -s "$tmp/out" ]
}

# ---- JSON
run 0 --shape tiny --type q4_k_m "${short[@]}" --json
for key in prompt_tok_s prompt_share generation_tok_s generation_share read_gb_s int8_tops f32_tflops bf16_tflops load_s peak_rss_mb; do
    check "\"$key\" is a number above 0" grep -qE "^  \"$key\": ([1-9]|0\.0*[1-9]|[0-9.]+e)" "$tmp/out"
done
out_has '"bit_identical": true'
out_has '"logits_error": null'
if command -v python3 >/dev/null 2>&1; then
    check "valid JSON" python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert d["bit_identical"] is True and d["prompt"] == 16 and d["generate"] == 4 and d["runs"] == 1
assert len(d["prompt_runs_tok_s"]) == len(d["generation_runs_share"]) == 1' "$tmp/out"
else
    echo 'bench: skipped: JSON parsed by another program, there is no python3'
fi

# ---- noise of every type is a model whose logits are near those of float64
for type in $("$kagari" bench --shape tiny --type '?' 2>&1 | sed 's/.*one of //; s/,//g'); do
    run 0 --shape tiny --type "$type" --out "$tmp/noise.gguf"
    last="kagari verify, noise of type $type"
    check "within the bound" "$kagari" verify -m "$tmp/noise.gguf" --tokens 5,400,7,77,511 >"$tmp/out"
    out_has ' ok'
done

# ---- options
run 0 --shape tiny --type q8_0 "${short[@]}" --verify 8 --json
error=$(sed -n 's/^  "logits_error": \(.*\),/\1/p' "$tmp/out") bound=$(sed -n 's/^  "logits_bound": \(.*\),/\1/p' "$tmp/out")
check "error $error within $bound" awk -v e="$error" -v b="$bound" 'BEGIN { exit !(e > 0 && e <= b) }'
# a token is given to 3 of 8 experts: gate, up and down of each 256 x 256; then attention, the router in floats, the output
run 0 --shape tiny-experts --type q8_0 "${short[@]}" -t 3 --verify 8 --json
bytes=$((2 * (3 * 3 * 65536 + 3 * 65536) * 34 / 32 + 2 * 8 * 256 * 4 + 512 * 256 * 34 / 32))
out_has "\"weight_bytes\": $bytes"
out_has '"bit_identical": true'
run 0 --shape tiny "${short[@]}" -t 1 --kv-type q8_0 --activations f32 --context 40 --csv
check "two lines" [ "$(wc -l <"$tmp/out")" = 2 ]
check "as many values as names" [ "$(sed -n 1p "$tmp/out" | tr -cd , | wc -c)" = "$(sed -n 2p "$tmp/out" | tr -cd , | wc -c)" ]
check "the context is reported" awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "context") k = i } NR == 2 { exit $k != 40 }' "$tmp/out"
run 0 -m "$model" --runs 2 -p 8 -n 2
out_has 'bit-identical'
out_has 'median'
run 0 -m "$model" "${short[@]}" -b reference --json
out_has '"prompt_share": null'

# ---- a device: its own limits; threads do not count, and --deterministic makes it identical
run 0 --shape tiny --type q8_0 "${short[@]}" -b emulator --json
for key in prompt_tok_s prompt_tops prompt_share generation_tok_s generation_gb_s generation_share copy_gb_s f16_tflops; do
    check "\"$key\" is a number above 0" grep -qE "^  \"$key\": ([1-9]|0\.0*[1-9]|[0-9.]+e)" "$tmp/out"
done
out_has '"int8_tops": null'
out_has '"int8_vector_tops": null'
run 0 --shape tiny --type q8_0 "${short[@]}" -b emulator --deterministic
out_has ': bit-identical'
out_has 'GB/s'
out_has 'copy bandwidth'

# ---- a model of noise in a file has a vocabulary
"$kagari" -m "$tmp/noise.gguf" -p a --max-tokens 2 --ignore-eos >"$tmp/out" 2>"$tmp/err" </dev/null
status=$? last='kagari -m noise.gguf'
check "it generates" [ "$status" = 0 ]

# ---- mistakes
fails 2 'are both given' --shape tiny -m "$model"
fails 2 'are both given' --shape tiny --json --csv
fails 2 'it needs --shape' --type q8_0
fails 2 'it needs --shape' --out "$tmp/x"
fails 2 'must be one of tinyllama' --shape huge
fails 2 "--type 'q9'" --shape tiny --type q9
fails 2 'a whole number' --shape tiny --prompt 0
fails 1 '/nowhere/x' --shape tiny --out /nowhere/x
fails 1 'Model file not found' -m /nowhere/x
fails 1 'not available' -b cuda

printf 'bench: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]

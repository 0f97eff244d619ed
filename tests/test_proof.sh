#!/usr/bin/env bash
# The commands that prove and draw: perplexity, verify --report, bench --plot.
#   tests/test_proof.sh PATH_OF_KAGARI SOURCE_FOLDER
set -u
kagari=$1
source=$2
model=$source/models/stories-q4_k_m.gguf
unset KAGARI_MODEL
export KAGARI_CONFIG=/dev/null
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 last=''

check() { # what, command...
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED: %s: %s\n' "$last" "$what" >&2
    fi
}
run() { # STATUS args...
    local want=$1 got=0
    shift
    last="kagari $*"
    "$kagari" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    check "exit status $want (got $got: $(head -c 300 "$tmp/err"))" [ "$got" = "$want" ]
}
out_has() { check "stdout has '$1' (is: $(head -c 400 "$tmp/out"))" grep -qF -- "$1" "$tmp/out"; }
fails() { # STATUS TEXT args...
    local status=$1 text=$2
    shift 2
    run "$status" "$@"
    check "stderr has '$text' (is: $(head -c 300 "$tmp/err"))" grep -qF -- "$text" "$tmp/err"
    check "nothing on stdout" [ ! -s "$tmp/out" ]
}

# ---- perplexity
cat >"$tmp/text" <<'EOF'
Once upon a time there was a poor woodcutter who lived with his wife and his two children at the edge of a great forest. They had little
to eat, and one year, when there was no bread left in the land, he could no longer give them what they needed every day. The children
heard what was said, and the girl wept, but her brother told her not to be afraid, for he had found a way to help.
EOF
run 0 perplexity -b cpu -m "$model" -f "$tmp/text" --ctx 32
out_has 'perplexity '
out_has ' +- '
check "no divergence without a base" bash -c "! grep -q KL '$tmp/out'"
check "no progress where there is no terminal" [ ! -s "$tmp/err" ]
run 0 perplexity -b cpu -m "$model" -f "$tmp/text" --ctx 32 --activations f32 --kl-base "$model" --json
out_has '"kl": 0,'
out_has '"same_top": 1'
nll=$(sed -n 's/.*"nll": \([0-9.]*\).*/\1/p' "$tmp/out")
check "a number of nats between 1 and 8 (is $nll)" awk -v x="$nll" 'BEGIN { exit !(x > 1 && x < 8) }'
tokens=$(sed -n 's/.*"tokens": \([0-9]*\).*/\1/p' "$tmp/out")
run 0 perplexity -b cpu -m "$model" -f "$tmp/text" --ctx 32 --chunks 1 --json
check "one window counts 15 tokens" grep -q '"tokens": 15,' "$tmp/out"
check "all windows count a multiple of that (is $tokens)" [ $((tokens % 15)) = 0 -a "$tokens" -gt 15 ]
fails 2 'needs --file' perplexity -m "$model"
fails 1 'cannot open' perplexity -m "$model" -f "$tmp/none"
fails 1 'not found' perplexity -m "$model" -f "$tmp/text" --kl-base "$tmp/none.gguf"
fails 2 'a window takes' perplexity -b cpu -m "$model" -f "$tmp/text" --ctx 4096
fails 2 '--ctx' perplexity -m "$model" -f "$tmp/text" --ctx 3
if command -v script >/dev/null 2>&1; then
    script -qec "'$kagari' perplexity -b cpu -m '$model' -f '$tmp/text' --ctx 32 >/dev/null" /dev/null >"$tmp/out" 2>&1 </dev/null
    last='kagari perplexity on a terminal'
    out_has ' of '
    script -qec "'$kagari' perplexity -b cpu -m '$model' -f '$tmp/text' --ctx 32 --no-progress >/dev/null" /dev/null >"$tmp/out" 2>&1 </dev/null
    check "--no-progress is silent (is: $(head -c 100 "$tmp/out"))" [ ! -s "$tmp/out" ]
else
    echo 'proof: skipped: the bar on a terminal, there is no script(1)'
fi

# ---- verify --report
well_formed() { check "well-formed ($1)" awk -f "$source/tests/well_formed.awk" "$1"; }
hostile="$tmp/a<b>&\"c'"$'\xff'.gguf
cp "$model" "$hostile"
echo before >"$tmp/report.html"
run 0 verify -b cpu -m "$hostile" --tokens 1,402,33,77,5,9,1000,3,8 --report "$tmp/report.html"
out_has ' ok'
well_formed "$tmp/report.html"
for text in '&lt;b&gt;&amp;&quot;c' 'own error' 'Q4_K' 'attn_q' 'rms_norm' 'prefers-color-scheme:dark' 'bound' '<details>'; do
    check "the page has $text" grep -qF -- "$text" "$tmp/report.html"
done
check "six charts (has $(grep -c '<svg' "$tmp/report.html"))" [ "$(grep -c '<svg' "$tmp/report.html")" = 6 ]
check "a row for each operation of 6 layers and 4 outside" [ "$(grep -c '<td>matmul</td>' "$tmp/report.html")" = 43 ]
check "nothing is left beside it" [ "$(find "$tmp" -name '*.part' | wc -l)" = 0 ]
run 0 verify -b cpu -m "$model" --tokens 1,402,33 --base "$model" --activations f32
out_has 'float64 of'
check "no bound with a base" bash -c "! grep -q bound '$tmp/out'"
fails 1 'cannot write' verify -b cpu -m "$model" --tokens 1 --report "$tmp/none/report.html"
fails 1 'not found' verify -b cpu -m "$model" --tokens 1 --base "$tmp/none.gguf"
if [ -c /dev/full ]; then
    fails 1 'cannot write' verify -b cpu -m "$model" --tokens 1 --report /dev/full
    check "a device is not replaced" [ -c /dev/full ]
fi
f16=$source/../shared/models/stories-f16.gguf
if [ -r "$f16" ]; then
    run 0 verify -b cpu -m "$model" --tokens 1,402,33,77,5 --base "$f16" --report "$tmp/base.html"
    well_formed "$tmp/base.html"
    check "the page says that the base's weights count" grep -q 'better file' "$tmp/base.html"
else
    echo 'proof: skipped: a better file as base, ../shared/models is not there'
fi

# ---- bench --plot
run 0 bench -b cpu --shape tiny --type q8_0 --runs 2 --prompt 16 --generate 4 --csv --plot "$tmp/plot.svg"
well_formed "$tmp/plot.svg"
for text in 'prompt of 16' 'generation of 4' 'tokens/s' 'prefers-color-scheme:dark' 'int8 peak'; do
    check "the plot has $text" grep -qF -- "$text" "$tmp/plot.svg"
done
check "two bars with whiskers" [ "$(grep -c 'stroke="currentColor"' "$tmp/plot.svg")" = 2 ]
fails 2 'nothing for --plot' bench --shape tiny --out "$tmp/x.gguf" --plot "$tmp/x.svg"
"$kagari" bench -b cpu --shape tiny --type q8_0 --runs 2 --prompt 16 --generate 4 --csv >"$tmp/rows.csv" 2>"$tmp/err"
awk -f "$source/bench/plot.awk" "$tmp/rows.csv" >"$tmp/rows.svg"
last=bench/plot.awk
well_formed "$tmp/rows.svg"

echo "proof: $passed checks passed, $failed failed"
[ "$failed" = 0 ]

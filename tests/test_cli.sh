#!/usr/bin/env bash
# The command line from outside: what it prints where, and its exit status. Uses the bundled model.
#   tests/test_cli.sh PATH_OF_KAGARI SOURCE_FOLDER
set -u
kagari=$1
model=$2/models/stories-q4_k_m.gguf
shared=$2/../shared
unset KAGARI_MODEL NO_COLOR
export KAGARI_CONFIG=/dev/null # not that of the user
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

# run STATUS args...: runs kagari on an empty standard input, keeps $tmp/out and $tmp/err, checks the exit status.
run() {
    local want=$1 got=0
    shift
    "$kagari" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    last="kagari $*"
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
err_has() { check "stderr has '$1' (is: $(head -c 200 "$tmp/err"))" grep -qF -- "$1" "$tmp/err"; }
out_has() { check "stdout has '$1' (is: $(head -c 200 "$tmp/out"))" grep -qF -- "$1" "$tmp/out"; }
out_empty() { check "nothing on stdout" [ ! -s "$tmp/out" ]; }
err_empty() { check "nothing on stderr (is: $(head -c 200 "$tmp/err"))" [ ! -s "$tmp/err" ]; }
one_line() { check "one line 'kagari: ...' on stderr" [ "$(wc -l <"$tmp/err")" = 1 -a "$(head -c 8 "$tmp/err")" = "kagari: " ]; }
fails() { # STATUS TEXT args...: an error is one line on stderr, and nothing else
    local status=$1 text=$2
    shift 2
    run "$status" "$@"
    err_has "$text"
    one_line
    out_empty
}

# ---- help, version, mistakes
run 0 --help; out_has '--temperature'; out_has 'verify'; err_empty
run 0 help verify; out_has '--kv-type'; check "no generate option in the help of verify" [ "$(grep -c -- --top-k "$tmp/out")" = 0 ]
run 0 verify --help; out_has '--kv-type'
run 0 --version; check "a version" grep -qE '^kagari [0-9]+\.[0-9]+\.[0-9]+$' "$tmp/out"
run 0 backends; out_has 'cpu'; out_has 'reference'
fails 2 'the nearest is --temperature' --temprature 1
fails 2 "the nearest is 'verify'" verfy
fails 2 'unknown option -z' -z
fails 2 '--temperature needs a value' --temperature
fails 2 'from 0 to 2' --temperature 2.5 -p x
fails 2 'from 0 to 2' --temperature nan -p x
fails 2 'from 0 to 1' --top-p=-0.1 -p x
fails 2 'a whole number' --max-tokens 5x -p x
fails 2 'a whole number' --max-tokens 99999999999999999999 -p x
fails 2 'must be one of f16|f32|q8_0' --kv-type f8 -p x
fails 2 'takes no value' --stats=yes -p x
fails 2 'given twice' --seed 1 --seed 2 -p x
fails 2 "item 2, 'a'" --tokens 1,a
fails 2 "item 2, ''" --tokens 1,
fails 2 "--stop is not an option of 'kagari info'" info "$model" --stop x
fails 2 "--json is not an option of 'kagari'" -p x --json
fails 2 'unexpected argument' info "$model" more
fails 2 'given twice' info "$model" -m "$model"
fails 2 'needs --out' logits -m "$model" --tokens 1
fails 2 'are both given' -m "$model" --tokens 1 -p x
fails 2 "are both given" -m "$model" -p x -f x
fails 2 "are both given" -m "$model" --tokens 1 --file x
fails 1 "cannot open /nowhere/prompt" -m "$model" -f /nowhere/prompt
fails 1 "cannot read /:" -m "$model" -f /
fails 2 "is empty" -m "$model" -f /dev/null
# the manual page and the completions know every option of the table
run 0 help --man
"$kagari" --help | grep -oE -- '--[a-z0-9-]+' | sort -u | sed 's/-/\\-/g' >"$tmp/names"
missing=0; while read -r name; do grep -qF -- "$name" "$tmp/out" || missing=$((missing + 1)); done <"$tmp/names"
check "every option of --help is in the manual (missing: $missing)" [ -s "$tmp/names" -a $missing = 0 ]
run 0 help --completions bash
completed() { bash -c 'source "$0"; shift 0; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kagari; echo "${COMPREPLY[*]}"' "$tmp/out" "$@"; }
check "a command is completed" [ "$(completed kagari veri)" = verify ]
check "a choice is completed" [ "$(completed kagari --kv-type q)" = q8_0 ]
check "a command's option is completed" [ "$(completed kagari verify --kv)" = --kv-type ]
check "numbers are not" [ -z "$(completed kagari --top-k 1)" ]
run 0 help --completions zsh; cp "$tmp/out" "$tmp/_kagari"
if command -v zsh >/dev/null; then
    completed_zsh() { # what zsh lists for a line
        zsh -f -c 'zmodload zsh/zpty; zpty z "stty columns 200; zsh -f -i"
            zpty -w z "autoload -Uz compinit; compinit -D -u; source $1; unsetopt beep; PROMPT=; zstyle \":completion:*\" list-separator =="
            zpty -w z "bindkey \"^I\" list-choices; print READY"
            zpty -r -m z l "*READY*READY*"
            zpty -w -n z "kagari $2"$'"'"'\t'"'"'; sleep 0.6; while zpty -r -t z l; do print -r -- "$l"; done; zpty -d z' - "$tmp/_kagari" "$1" 2>&1
    }
    completed_zsh '--kv-type ' >"$tmp/out"; check "zsh lists choices ($(tail -c 200 "$tmp/out"))" grep -q 'f16.*f32.*q8_0' "$tmp/out"
    completed_zsh 'ver' >"$tmp/out"; check "zsh lists commands" grep -q 'verify' "$tmp/out"
    completed_zsh 'verify --kv' >"$tmp/out"; check "zsh lists a command's options" grep -qe '--kv-type' "$tmp/out"
else
    echo 'cli: no zsh here: its completions are not tried'
fi
run 0 help --completions fish; cp "$tmp/out" "$tmp/kagari.fish"
if command -v fish >/dev/null; then
    completed_fish() { HOME=$tmp fish --no-config -c 'source $argv[1]; complete -C $argv[2]' "$tmp/kagari.fish" "$1" | cut -f1 | tr '\n' ' '; }
    check "fish completes a command" [ "$(completed_fish 'kagari veri')" = 'verify ' ]
    check "fish completes a choice" [ "$(completed_fish 'kagari --kv-type q')" = 'q8_0 ' ]
    check "fish completes a command's option" [ "$(completed_fish 'kagari verify --kv')" = '--kv-type ' ]
    check "fish completes no option of another command" [ -z "$(completed_fish 'kagari info --kv')" ]
else
    echo 'cli: no fish here: its completions are not tried'
fi
for shell in zsh fish; do
    run 0 help --completions $shell
    missing=0; for name in $("$kagari" --help | grep -oE -- '^ +(-., )? *--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+' | sed 's/^--//' | sort -u); do grep -qE -- "(--| -l )$name( |=|\[|'|,|})" "$tmp/out" || missing=$((missing + 1)); done
    check "every option is there in $shell (missing: $missing)" [ $missing = 0 ]
done
fails 2 'are both given' help --man --completions bash
fails 2 'describe all commands' help --man info
fails 2 'are both given' tokenize -m "$model" --ids --pieces x
fails 2 'No prompt' -m "$model"
fails 1 'Model file not found: /nowhere/x.gguf' -m /nowhere/x.gguf -p x
for b in coreml metal vulkan; do fails 1 "Backend '$b' is not available" -b "$b" -p x; err_has 'the cpu backend needs no device (-b cpu)'; done
run 0 devices; out_has 'cuda'; out_has 'opencl'; out_has 'without -b'; err_empty
fails 2 '--gpu-layers goes with -b hybrid' -b cpu --gpu-layers 1 -p x
fails 2 "must be auto or a whole number" -b hybrid --gpu-layers some -p x
for n in 2 5; do # the float64 reference plays the device: the first layers are then exact, the cut must not show
    KAGARI_HYBRID=reference run 0 verify -m "$model" -b hybrid --gpu-layers $n; out_has '  ok'
    check "the first $n layers are exact" [ "$(awk '$1 ~ /^[0-9]+$/ && $1 < '$n' && $2 < 1e-7' "$tmp/out" | wc -l)" = $n ]
done
if grep -q '^cuda *none' "$tmp/out"; then fails 1 "Backend 'cuda' is not available: cuda: " -b cuda -p x; fi
fails 1 "$2" info "$2"
printf 'not a model' >"$tmp/bad.gguf"
fails 1 bad.gguf -m "$tmp/bad.gguf" -p x
fails 1 bad.gguf info "$tmp/bad.gguf"
fails 1 bad.gguf tokenize -m "$tmp/bad.gguf" x

# ---- the model without -m
# wherever the program lies, models/ beside its folder is found; elsewhere it must be told
mkdir -p "$tmp/tree/build" "$tmp/tree/models" "$tmp/alone"
ln -s "$model" "$tmp/tree/models/"
cp "$kagari" "$tmp/tree/build/"; cp "$kagari" "$tmp/alone/"
built=$kagari
kagari=$tmp/tree/build/kagari
# a prompt from a file is the same prompt, also for verify, which has one of its own
printf "Once upon a time\n" >"$tmp/prompt.txt"
run 0 -m "$model" -p "Once upon a time" --temperature 0 --max-tokens 5; cp "$tmp/out" "$tmp/want"
run 0 -m "$model" -f "$tmp/prompt.txt" --temperature 0 --max-tokens 5
check "the text that -p gives" cmp -s "$tmp/out" "$tmp/want"
err_empty
run 0 verify -m "$model" -f "$tmp/prompt.txt"
out_has ", 5 tokens"
# progress is for terminals, and only if it is wanted
for ((i = 0; i < 400; i++)); do echo "Once upon a time"; done >"$tmp/long.txt"
run 0 -m "$model" -f "$tmp/long.txt" --ctx 2600 --batch 256 --max-tokens 1
err_empty
for flag in "" --no-progress; do
    last="kagari on a terminal $flag"
    script -qec "$kagari -m $model -f $tmp/long.txt --ctx 2600 --batch 256 --max-tokens 1 $flag" /dev/null </dev/null >"$tmp/out" 2>"$tmp/err"
    if [ -z "$flag" ]; then out_has "prompt: 256 of "; else check "no progress" sh -c "! grep -q prompt: $tmp/out"; fi
done
run 0 -p 'Once upon a time' --max-tokens 1
kagari=$tmp/alone/kagari
"$kagari" -p x --max-tokens 1 >"$tmp/out" 2>"$tmp/err"; status=$? last='kagari far from any model'
check "exit status 2, or 0 where one is installed" [ $status = 2 -o $status = 0 ]
[ $status = 0 ] || err_has 'No model specified'
kagari=$built
export KAGARI_MODEL=/nowhere/y.gguf
fails 1 'Model file not found: /nowhere/y.gguf' -p x --max-tokens 1
unset KAGARI_MODEL

# ---- text
greedy=(-m "$model" --temperature 0 --max-tokens 24)
run 0 "${greedy[@]}" -p 'Once upon a time'; err_empty
cp "$tmp/out" "$tmp/text"
check "there is text" [ "$(wc -c <"$tmp/text")" -gt 30 ]
check "the text of a pipe ends as the model ended it" [ "$(tail -c 1 "$tmp/text" | wc -l)" = 0 ]
printf 'Once upon a time\n' | "$kagari" "${greedy[@]}" >"$tmp/out" 2>"$tmp/err"
last='printf | kagari'
check "a prompt on standard input gives the same text" cmp -s "$tmp/out" "$tmp/text"
run 0 tokenize -m "$model" --ids 'Once upon a time'
ids=$(cat "$tmp/out")
run 0 "${greedy[@]}" --tokens "$ids"
check "the same prompt as tokens gives the same text" cmp -s "$tmp/out" "$tmp/text"
for variant in '-t 1' '-t 3' '--batch 1' '--batch 3'; do
    # shellcheck disable=SC2086
    run 0 "${greedy[@]}" -p 'Once upon a time' $variant
    check "the same text bit for bit" cmp -s "$tmp/out" "$tmp/text"
done
run 0 "${greedy[@]}" -p 'Once upon a time' --print-ids; cp "$tmp/out" "$tmp/ids"
check "24 ids on one line" grep -qE '^[0-9]+(,[0-9]+){23}$' "$tmp/ids"
run 0 "${greedy[@]}" -p 'Once upon a time' --print-ids --activations f32 --kv-type f32; cp "$tmp/out" "$tmp/ids"
run 0 "${greedy[@]}" -p 'Once upon a time' --print-ids -b reference
check "f32 arithmetic chooses the tokens that float64 chooses" cmp -s "$tmp/out" "$tmp/ids"
sampled=(-m "$model" -p 'The old king' --max-tokens 24 --top-k 0 --temperature 1)
run 0 "${sampled[@]}" --seed 5; cp "$tmp/out" "$tmp/text5"
run 0 "${sampled[@]}" --seed 5; check "the same seed gives the same text" cmp -s "$tmp/out" "$tmp/text5"
run 0 "${sampled[@]}" --seed 6; check "another seed gives another text" [ "$(cmp -s "$tmp/out" "$tmp/text5"; echo $?)" = 1 ]
run 0 "${sampled[@]}" --stats; err_has 'seed '; err_has 'tokens/s'
seed=$(sed -n 's/^seed *//p' "$tmp/err"); cp "$tmp/out" "$tmp/text5"
run 0 "${sampled[@]}" --seed "$seed"; check "the seed that --stats tells brings the text back" cmp -s "$tmp/out" "$tmp/text5"
stop=$(cut -c 12-18 "$tmp/text" | head -1)
run 0 "${greedy[@]}" -p 'Once upon a time' --stop "$stop"
check "the text ends before '$stop'" [ "$(cat "$tmp/out")" = "$(cut -c 1-11 "$tmp/text" | head -1)" ]
run 0 -m "$model" -p 'Once upon a time' --max-tokens 0; out_empty
run 0 -m "$model" -p 'Once upon a time' --ctx 16 --ignore-eos --temperature 0; err_has 'the context is full'
run 2 -m "$model" --tokens 1,999999 --max-tokens 1; one_line

# ---- output that goes nowhere
last='stdout on a full disk'
"$kagari" "${greedy[@]}" -p x >/dev/full 2>"$tmp/err"; check "exit status 1" [ $? = 1 ]; err_has 'No space left'; one_line
"$kagari" --help >/dev/full 2>"$tmp/err"; check "exit status 1 for help" [ $? = 1 ]
last='stdout closed'
"$kagari" "${greedy[@]}" -p x >&- 2>"$tmp/err"; check "exit status 1" [ $? = 1 ]; one_line
last='reader goes away'
"$kagari" "${greedy[@]}" -p 'Once upon a time' --ignore-eos 2>"$tmp/err" | head -c 1 >/dev/null
check "silence" [ ! -s "$tmp/err" ]

# ---- interruption
last='Ctrl-C'
"$kagari" -m "$model" -p 'Once upon a time' --ignore-eos --seed 1 >"$tmp/out" 2>"$tmp/err" &
pid=$!
for _ in $(seq 100); do [ -s "$tmp/out" ] && break; sleep 0.05; done
check "text before the interruption" [ -s "$tmp/out" ]
# a background process of a script ignores SIGINT until it asks for it, which kagari does
kill -INT "$pid"; wait "$pid"; check "exit status 130" [ $? = 130 ]; err_empty

# ---- template
fails 1 'has no chat template: give one with --template FILE' template -m "$model" -p hi
fails 1 "has no chat template named 'tool_use'" template -m "$model" --named tool_use -p hi
printf '{{ bos_token }}{%% for m in messages %%}\n<{{ m.role }}>{{ m.content }}\n{%% endfor %%}\n{%% if add_generation_prompt %%}<assistant>{%% endif %%}{{ x }}{{ tools|length if tools }}' >"$tmp/t.jinja"
run 0 template --template "$tmp/t.jinja" -p 'hé "x"' --system-prompt Terse.; check "text" [ "$(cat "$tmp/out")" = '<system>Terse.
<user>hé "x"
<assistant>' ]; err_empty
run 0 template -m "$model" --template "$tmp/t.jinja" -p hi --no-generation-prompt --variables '{"x": 5}'; check "text" [ "$(cat "$tmp/out")" = '<s><user>hi
5' ]
echo '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]' >"$tmp/c.json"
echo '[{}, {}]' >"$tmp/tools.json"
run 0 template --template "$tmp/t.jinja" -f "$tmp/c.json" --tools "$tmp/tools.json"; check "text" [ "$(cat "$tmp/out")" = '<user>a
<assistant>b
<assistant>2' ]
echo ' {"messages": [{"role": "user", "content": "a"}], "x": "X", "bos_token": "^"}' | "$kagari" template --template "$tmp/t.jinja" >"$tmp/out"; last='template < stdin'
check "text" [ "$(cat "$tmp/out")" = '^<user>a
<assistant>X' ]
run 0 template --template "$tmp/t.jinja" --source; check "the template" cmp -s "$tmp/out" "$tmp/t.jinja"
printf '{{ strftime_now("%%Y") }}' >"$tmp/now.jinja"
run 0 template --template "$tmp/now.jinja" -p x --now 1790000000; check "the year" [ "$(cat "$tmp/out")" = 2026 ]
printf 'a\n{{ x.y }}' >"$tmp/bad.jinja"
fails 1 "line 2: 'x' is undefined" template --template "$tmp/bad.jinja" -p hi
printf 'a\n{%% if %%}' >"$tmp/bad.jinja"
fails 1 "bad.jinja: chat template: line 2: unexpected '%}'" template --template "$tmp/bad.jinja" -p hi
fails 2 'not JSON' template --template "$tmp/t.jinja" -p hi --variables '{'
fails 2 'not JSON' template --template "$tmp/t.jinja"
printf '{{ raise_exception("no") }}' >"$tmp/no.jinja"
fails 2 'line 1: the template refuses this conversation: no' template --template "$tmp/no.jinja" -p hi
fails 1 'cannot open' template --template "$tmp/nowhere" -p hi
fails 2 'are both given' template --template "$tmp/t.jinja" -p hi -f "$tmp/c.json"
fails 2 'goes with --prompt' template --template "$tmp/t.jinja" --system-prompt x -f "$tmp/c.json"

# ---- info, tokenize, logits, verify
run 0 info "$model"; out_has 'general.architecture (str) = "llama"'; out_has 'Q4_K'; out_has 'blk.0.attn_q.weight'
run 0 info -m "$model" --json; out_has '"blk.0.attn_q.weight"'
if command -v python3 >/dev/null 2>&1; then
    check "valid JSON with whole arrays" python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert len(d["metadata"]["tokenizer.ggml.tokens"]["value"]) == 8192
assert sum(t["bytes"] for t in d["tensors"]) == sum(t["bytes"] for t in d["types"].values())' "$tmp/out"
fi
run 0 tokenize -m "$model" --pieces --no-bos 'a "b"'; out_has '\"'
run 0 tokenize -m "$model" --ids --no-bos ''; check "no text, no tokens" [ "$(cat "$tmp/out")" = '' ]
printf 'two\nlines\n' | "$kagari" tokenize -m "$model" --pieces >"$tmp/out"; last='tokenize < stdin'
check "line ends are text" [ "$(grep -c '\\n' "$tmp/out")" = 2 ]
run 0 logits -m "$model" --tokens "$ids" --out "$tmp/l32"; check "8192 float32" [ "$(wc -c <"$tmp/l32")" = 32768 ]
run 0 logits -m "$model" --tokens "$ids" --out "$tmp/l64" -b reference; check "8192 float64" [ "$(wc -c <"$tmp/l64")" = 65536 ]
fails 1 '/nowhere/l' logits -m "$model" --tokens 1 --out /nowhere/l
for kv in f16 f32 q8_0; do
    for act in int8 f32; do run 0 verify -m "$model" --kv-type "$kv" --activations "$act" -p 'The fox said to the crow:'; out_has 'ok'; done
done
run 0 verify -m "$model" --tokens "$ids"; out_has 'logits'

# ---- hostile files end in one line, soon
if [ -d "$shared/hostile" ]; then
    while IFS= read -r f; do
        timeout 10 "$kagari" -m "$f" -p x --max-tokens 1 >"$tmp/out" 2>"$tmp/err" </dev/null
        status=$? last="kagari -m $f"
        check "exit status 0, 1 or 2 (got $status)" [ "$status" -le 2 ]
        [ "$status" = 0 ] || one_line
    done < <(find "$shared/hostile" -type f ! -name index.tsv | sort)
else
    echo "cli: skipped: hostile files, $shared/hostile is not here"
fi

printf 'cli: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]

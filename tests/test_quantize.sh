#!/usr/bin/env bash
# quantize, split and merge from outside: every type, what is refused, and files that open and run.
#   tests/test_quantize.sh KAGARI SOURCE_DIR
set -u
kagari=$1
export KAGARI_CONFIG=/dev/null # not that of the user
source=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); printf 'quantize: %s\n' "$*" >&2; }
check() { local what=$1; shift; if "$@"; then ok; else bad "$what"; fi; }
refused() { # code, words of the message, command
    local code=$1 words=$2
    shift 2
    "$@" >"$dir/out" 2>"$dir/err"
    if [ $? -eq "$code" ] && grep -q -- "$words" "$dir/err"; then ok; else bad "$*: $(cat "$dir/err")"; fi
}

# A model of noise with whole numbers of blocks of every size, in F16.
"$kagari" bench --shape tiny --type f16 -o "$dir/in.gguf" >/dev/null || bad "no model"
size() { stat -c %s "$1"; }

# Some types need importances.
story=$source/models/stories-q4_k_m.gguf
for i in 1 2 3 4 5 6; do echo "Once upon a time there was a fox who wanted the moon, and a crow who had seen it in the well."; done >"$dir/text"
check "imatrix" "$kagari" imatrix -m "$story" -f "$dir/text" -o "$dir/imatrix.gguf" --chunk 64
check "imatrix of noise" "$kagari" imatrix -m "$dir/in.gguf" -f "$dir/text" -o "$dir/noise.gguf" --chunk 16 --chunks 1

# Three of the slowest are mixtures of types that come anyway.
for type in $("$kagari" quantize a b no-such-type 2>&1 | sed 's/.*must be one of //; s/,//g'); do
    case $type in IQ2_M | IQ3_XS | IQ3_M) [ "${KAGARI_TEST_LONG:-}" ] || continue ;; esac
    if "$kagari" quantize "$dir/in.gguf" "$dir/out.gguf" "$type" --threads 2 >"$dir/list" 2>"$dir/err"; then
        ok
    elif grep -q "there is no importance matrix" "$dir/err"; then
        check "$type" "$kagari" quantize "$dir/in.gguf" "$dir/out.gguf" "$type" --threads 2 --imatrix "$dir/noise.gguf" >"$dir/list"
    else
        bad "$type: $(cat "$dir/err")"
    fi
    check "$type does not run" "$kagari" -m "$dir/out.gguf" --tokens 1,5,9 -n 2 --print-ids >/dev/null
    "$kagari" info --json "$dir/out.gguf" | grep -q '"general.quantization_version": {"type": "u32", "value": 2}' || bad "$type: no version key"
done
[ "$passed" -ge 40 ] || bad "only $passed checks: the list of types is not read"

# One thread or two: the same file. A mixture has several types, a pure one has one.
"$kagari" quantize "$dir/in.gguf" "$dir/a.gguf" Q4_K_M -t 1 >/dev/null
"$kagari" quantize "$dir/in.gguf" "$dir/b.gguf" q4_k_m -t 3 >/dev/null
check "threads change the file" cmp -s "$dir/a.gguf" "$dir/b.gguf"
check "no Q6_K in Q4_K_M" grep -q 'Q6_K' <("$kagari" info "$dir/a.gguf")
"$kagari" quantize "$dir/in.gguf" "$dir/b.gguf" Q4_K_M --pure --output-type Q8_0 --embedding-type F16 >"$dir/list"
check "--output-type" grep -q 'output.weight .*-> Q8_0' "$dir/list"
check "--pure" grep -qv 'Q6_K' "$dir/list"

# Types by name: the last pattern that fits counts, types of their own go before it, and what can do nothing is refused.
to() { sed -n "s/^ *[0-9]*\/[0-9]* *$1 .*-> \([A-Z0-9_]*\).*/\1/p" "$dir/list"; }
check "--tensor-type" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type 'attn_[qk]=q8_0' --tensor-type 'BLK\.1\.attn_k\.=q5_1' \
    --tensor-type 'output.weight=q5_0' --tensor-type token_embd=f16 --output-type q6_k >"$dir/list"
for pair in blk.0.attn_q.weight:Q8_0 blk.0.attn_k.weight:Q8_0 blk.1.attn_k.weight:Q5_1 blk.1.attn_q.weight:Q8_0 blk.0.attn_output.weight:Q5_0 token_embd.weight:F16 output.weight:Q6_K \
    blk.0.attn_norm.weight:F32; do
    check "--tensor-type: ${pair%:*} is $(to "${pair%:*}")" [ "$(to "${pair%:*}")" = "${pair#*:}" ]
done
check "--tensor-type with --pure" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_S --pure --tensor-type ffn_down=q6_k >"$dir/list"
check "--tensor-type with --pure: $(to blk.0.ffn_down.weight)" [ "$(to blk.0.ffn_down.weight) $(to blk.0.ffn_up.weight)" = "Q6_K Q4_K" ]
rm -f "$dir/c.gguf"
refused 2 "fits the name of no tensor" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type attn_z=q8_0
refused 2 "fits the name of no tensor" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type attn_norm=q8_0
refused 2 "no such type" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type attn_q=q9
refused 2 "no quantizer" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type attn_q=q8_k
refused 2 "must be PATTERN=TYPE" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type attn_q
refused 2 "is not valid" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type 'attn_(q=q8_0'
refused 2 "match limit" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q4_K_M --tensor-type '(.+.+)+[yz]=q8_0'
check "left behind" [ ! -e "$dir/c.gguf" ]

# A program that is killed leaves nothing: no file under the name, and none under another.
mkdir "$dir/killed"
for signal in TERM KILL; do
    timeout -s $signal 0.3 "$kagari" quantize "$story" "$dir/killed/out.gguf" IQ3_S --allow-requantize -t 1 >/dev/null 2>&1
    [ $? -ge 124 ] || rm "$dir/killed/out.gguf" # it was done before
    check "SIG$signal leaves $(ls "$dir/killed")" [ -z "$(ls "$dir/killed")" ]
done

# In place, and what is refused. A file that could not be made leaves nothing behind.
cp "$dir/in.gguf" "$dir/same.gguf"
check "in place" "$kagari" quantize "$dir/same.gguf" "$dir/same.gguf" Q8_0 >/dev/null
check "not smaller" [ "$(size "$dir/same.gguf")" -lt "$(size "$dir/in.gguf")" ]
refused 1 "already" "$kagari" quantize "$dir/a.gguf" "$dir/c.gguf" Q8_0
check "left behind" [ ! -e "$dir/c.gguf" ]
check "requantize" "$kagari" quantize "$dir/a.gguf" "$dir/c.gguf" Q8_0 --allow-requantize >/dev/null
refused 2 "must be one of" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q9
refused 2 "no quantizer" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q8_0 --output-type Q8_K
refused 2 "three arguments" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf"
refused 1 "cannot create" "$kagari" quantize "$dir/in.gguf" "$dir/no/c.gguf" Q8_0
check "partial files" [ -z "$(find "$dir" -name '*partial*')" ]

# Split and merge give the same tensors back.
"$kagari" split "$dir/a.gguf" "$dir/s" --max-tensors 5 >/dev/null
check "shards" [ -e "$dir/s-00001-of-"*.gguf ]
check "merge" "$kagari" merge "$dir"/s-00001-of-*.gguf "$dir/m.gguf"
check "merged differs" cmp -s <("$kagari" info "$dir/a.gguf" | grep -v '^file\|^size' | sort) <("$kagari" info "$dir/m.gguf" | grep -v '^file\|^size' | sort)
check "merged bytes differ" cmp -s <("$kagari" logits -m "$dir/a.gguf" --tokens 1,7 -o "$dir/l1" >/dev/null 2>&1 && cat "$dir/l1") <("$kagari" logits -m "$dir/m.gguf" --tokens 1,7 -o "$dir/l2" >/dev/null 2>&1 && cat "$dir/l2")
refused 2 "is not a shard" "$kagari" merge "$dir/a.gguf" "$dir/m.gguf"

# The first shard opens as the whole model; no other does, nor one with a shard missing, exchanged or of another cut.
first=$(echo "$dir"/s-00001-of-*.gguf) second=$(echo "$dir"/s-00002-of-*.gguf) third=$(echo "$dir"/s-00003-of-*.gguf)
check "a model in shards differs" cmp -s "$dir/l1" <("$kagari" logits -m "$first" --tokens 1,7 -o "$dir/l3" >/dev/null 2>&1 && cat "$dir/l3")
check "split of shards" "$kagari" split "$first" "$dir/t" --max-tensors 3 >/dev/null
check "quantize of shards" "$kagari" quantize "$first" "$dir/q.gguf" Q8_0 --allow-requantize >/dev/null
refused 1 "open the first" "$kagari" info "$second"
cp "$second" "$dir/kept"
cp "$third" "$second"
refused 1 "says that it is shard 3" "$kagari" info "$first"
cp "$(echo "$dir"/t-00002-of-*.gguf)" "$second"
refused 1 "says that it is shard 2 of" "$kagari" info "$first"
rm "$second"
refused 1 "No such file" "$kagari" info "$first"
cp "$dir/kept" "$second"
cp "$first" "$dir/alone.gguf"
refused 1 "name must end with" "$kagari" info "$dir/alone.gguf"
refused 2 "max-size" "$kagari" split "$dir/a.gguf" "$dir/s"
refused 2 "must be bytes" "$kagari" split "$dir/a.gguf" "$dir/s" --max-size 3X

# Importances: the file that imatrix writes is taken by quantize and changes the result.
check "imatrix of the reference" "$kagari" imatrix -m "$story" -b reference -f "$dir/text" -o "$dir/exact.gguf" --chunk 64 --chunks 1
check "imatrix tensors" grep -q 'blk.5.ffn_down.weight.in_sum2' <("$kagari" info "$dir/imatrix.gguf")
"$kagari" quantize "$story" "$dir/p.gguf" Q3_K_S --allow-requantize >/dev/null
check "--imatrix" "$kagari" quantize "$story" "$dir/w.gguf" Q3_K_S --allow-requantize --imatrix "$dir/imatrix.gguf" >"$dir/list"
check "importances not used" grep -q 'by their importance' "$dir/list"
if cmp -s "$dir/p.gguf" "$dir/w.gguf"; then bad "importances change nothing"; else ok; fi
refused 1 "do not have the tensor's shape" "$kagari" quantize "$dir/in.gguf" "$dir/c.gguf" Q8_0 --imatrix "$dir/imatrix.gguf"

# Embeddings have length 1, and both backends give the same.
norm() { tr -d '[]{}",:' | awk '{for (i = 4; i <= NF; i++) s += $i * $i; printf "%.4f", s}'; }
[ "$("$kagari" embed -m "$story" -p "the fox" | norm)" = 1.0000 ] && ok || bad "length of an embedding"
for p in mean cls last; do
    a=$("$kagari" embed -m "$story" -p "the fox" --pooling $p --activations f32 | tr -d '[]{},' | awk '{print $5}')
    b=$("$kagari" embed -m "$story" -p "the fox" --pooling $p -b reference | tr -d '[]{},' | awk '{print $5}')
    awk -v a="$a" -v b="$b" 'BEGIN {exit !((a - b) ^ 2 < 1e-6)}' && ok || bad "embedding, $p: $a and $b"
done

printf 'quantize: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Models by name: kagari list, -m NAME, ollama's store.
#   tests/test_models.sh PATH_OF_KAGARI SOURCE_FOLDER
set -u
kagari=$1
model=$2/models/stories-q4_k_m.gguf
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for name in $(env | grep -oE '^(KAGARI_[A-Z_]*|NO_COLOR|XDG_[A-Z_]*)='); do unset "${name%=}"; done
export KAGARI_CONFIG=/dev/null HOME=$tmp/home KAGARI_MODELS=$tmp/models OLLAMA_MODELS=$tmp/ollama
passed=0 failed=0
check() { # what, command...
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); printf 'FAILED: %s: %s\n' "$last" "$what" >&2; fi
}
run() {
    local want=$1 got=0
    shift
    last="kagari $*"
    "$kagari" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    check "exit status $want, got $got: $(head -c 300 "$tmp/err")" [ "$got" = "$want" ]
}
is() { # PATH NAME: what -m NAME opens
    run 0 tokenize --ids -m "$2" x --log-level debug
    check "is $1, not $(cat "$tmp/err")" grep -qF "model $2 is $1" "$tmp/err"
}
fails() { run "$1" tokenize -m "$3" x; check "'$2' in: $(cat "$tmp/err")" grep -qF -- "$2" "$tmp/err"; }

mkdir -p "$KAGARI_MODELS/hf/own/repo" "$KAGARI_MODELS/hf/own/sharded/Q8_0" "$KAGARI_MODELS/hf/own/others" "$KAGARI_MODELS/ms/org/name" "$KAGARI_MODELS/mine"
m=$KAGARI_MODELS
for q in Q4_0 Q4_K_S Q4_K_M q8_0; do ln -s "$model" "$m/hf/own/repo/st-$q.gguf"; done
ln -s "$model" "$m/hf/own/repo/mmproj-Q4_K_M.gguf"
for i in 1 2 3; do ln -s "$model" "$m/hf/own/sharded/Q8_0/st-Q8_0-0000$i-of-00003.gguf"; done
for q in IQ2_M IQ3_M; do ln -s "$model" "$m/hf/own/others/st.$q.gguf"; done
ln -s "$model" "$m/ms/org/name/n.Q5_K_M.gguf"
ln -s "$model" "$m/mine/plain.gguf"
ln -s "$model" "$m/twice.gguf"; ln -s "$model" "$m/mine/twice.gguf"
ln -s .. "$m/mine/loop"
printf 'not a model' >"$m/mine/bad.gguf"
digest=$(printf '%064d' 7)
mkdir -p "$OLLAMA_MODELS/blobs" "$OLLAMA_MODELS/manifests/registry.ollama.ai/library/tiny" "$OLLAMA_MODELS/manifests/registry.ollama.ai/me/own"
ln -s "$model" "$OLLAMA_MODELS/blobs/sha256-$digest"
manifest() { printf '{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:x"},{"mediaType":"application/vnd.ollama.image.model","digest":"%s"}]}' "$1"; }
manifest "sha256:$digest" >"$OLLAMA_MODELS/manifests/registry.ollama.ai/library/tiny/latest"
manifest "sha256:$digest" >"$OLLAMA_MODELS/manifests/registry.ollama.ai/me/own/1b"
manifest "sha256:../../../../../etc/passwd" >"$OLLAMA_MODELS/manifests/registry.ollama.ai/library/tiny/evil"

is "$m/hf/own/repo/st-Q4_K_M.gguf" own/repo
is "$m/hf/own/repo/st-Q4_0.gguf" own/repo:q4_0
is "$m/hf/own/repo/st-Q4_K_S.gguf" hf:own/repo:Q4_K_S
is "$m/hf/own/repo/st-q8_0.gguf" own/repo/st-q8_0
is "$m/hf/own/repo/st-q8_0.gguf" st-q8_0
is "$m/hf/own/sharded/Q8_0/st-Q8_0-00001-of-00003.gguf" own/sharded
is "$m/ms/org/name/n.Q5_K_M.gguf" org/name
is "$m/ms/org/name/n.Q5_K_M.gguf" ms:org/name:q5_k_m
is "$m/mine/plain.gguf" plain
is "$m/mine/plain.gguf" mine/plain.gguf
is "$OLLAMA_MODELS/blobs/sha256-$digest" ollama:tiny
is "$OLLAMA_MODELS/blobs/sha256-$digest" ollama:me/own:1b
fails 1 "none of the files is Q4_K:" own/repo:Q4_K
fails 1 "say which one is meant: st.IQ2_M.gguf st.IQ3_M.gguf" own/others
fails 2 "several models" twice
fails 1 "Model file not found: ollama:tiny:evil" ollama:tiny:evil
fails 1 "Model file not found: ../models/mine/plain" ../models/mine/plain
fails 1 "kagari list shows" nothing
fails 1 "kagari download gets it" no/such
export KAGARI_MODEL=plain; run 0 tokenize --ids x; unset KAGARI_MODEL
run 0 info --models "$m/mine" plain; check "an argument may be a name" grep -q Q4_K "$tmp/out"

run 0 list
for line in ' Q4_K .* own/repo/st-Q4_0$' ' llama .* mine/plain$' ' ms/org/name/n.Q5_K_M$' ' ollama:tiny:latest$' ' ollama:me/own:1b$' 'mine/bad  (cannot be read: ' ' 42.2 MiB .*own/sharded/Q8_0/st-Q8_0-00001-of-00003$'; do
    check "a line '$line' in $(cat "$tmp/out")" grep -qE -- "${line//(/\\(}" "$tmp/out"
done
check "only the first shard" [ "$(grep -c of-00003 "$tmp/out")" = 1 ]
check "no loop" [ "$(grep -c loop "$tmp/out")" = 0 ]
run 0 list hf; check "only hf" [ "$(grep -cE 'ollama|plain|ms/' "$tmp/out")" = 0 -a "$(grep -c own/ "$tmp/out")" = 7 ]
run 0 list ms; check "only ms" [ "$(wc -l <"$tmp/out")" = 2 ]
run 0 list ollama; check "only ollama" [ "$(grep -c ollama: "$tmp/out")" = 2 -a "$(wc -l <"$tmp/out")" = 3 ]
run 0 list --json; check "JSON" [ "$(grep -c '"name": ' "$tmp/out")" = 14 ]
run 2 list x; check "a wrong source" grep -q 'must be hf, ms, ollama' "$tmp/err"
KAGARI_MODELS=$tmp/none OLLAMA_MODELS=$tmp/none run 0 list; check "none" grep -q "no models in $tmp/none" "$tmp/err"

echo "models: $passed checks passed, $failed failed"
[ $failed = 0 ]

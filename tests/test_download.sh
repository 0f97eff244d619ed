#!/usr/bin/env bash
# kagari download against servers on this machine that answer as those of the models do, or otherwise.
#   tests/test_download.sh PATH_OF_KAGARI SOURCE_FOLDER HTTP_SERVER
set -u
kagari=$1
model=$2/models/stories-q4_k_m.gguf
server=$3
tmp=$(mktemp -d)
trap 'kill $server_a $server_b 2>/dev/null; rm -rf "$tmp"' EXIT
for name in $(env | grep -oiE '^(KAGARI_[A-Z_]*|NO_COLOR|XDG_[A-Z_]*|HF_[A-Z_]*|[a-z]*_proxy)='); do unset "${name%=}"; done
export KAGARI_CONFIG=/dev/null HOME=$tmp/home KAGARI_MODELS=$tmp/models OLLAMA_MODELS=$tmp/none
passed=0 failed=0 last=setup
check() { # what, command...
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); printf 'FAILED: %s: %s\n' "$last" "$what" >&2; fi
}
all_output=$tmp/all
run() {
    local want=$1 got=0
    shift
    last="kagari $*"
    "$kagari" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    cat "$tmp/out" "$tmp/err" >>"$all_output"
    check "exit status $want, got $got: $(head -c 300 "$tmp/err")" [ "$got" = "$want" ]
}
err_has() { check "'$1' in: $(head -c 400 "$tmp/err")" grep -qF -- "$1" "$tmp/err"; }
logged() { check "'$1' in the log: $(tail -3 "$tmp/log_$2")" grep -qE -- "$1" "$tmp/log_$2"; }
quiet() { check "not '$1' in the log" [ "$(grep -cE -- "$1" "$tmp/log_$2")" = 0 ]; }
same() { check "$1 is whole" cmp -s "$1" "$2"; }
no_parts() { check "no parts are left" [ -z "$(find "$KAGARI_MODELS" -name '*.part')" ]; }

mkdir -p "$tmp/a" "$tmp/b"
: >"$tmp/log_a"; : >"$tmp/log_b"
"$server" "$tmp/a" "$tmp/log_a" "$tmp/port_a" & server_a=$!
"$server" "$tmp/b" "$tmp/log_b" "$tmp/port_b" & server_b=$!
for ((i = 0; i < 100; i++)); do [ -s "$tmp/port_a" ] && [ -s "$tmp/port_b" ] && break; sleep 0.05; done
a=http://127.0.0.1:$(cat "$tmp/port_a") b=http://127.0.0.1:$(cat "$tmp/port_b")
export HF_ENDPOINT=$a MODELSCOPE_ENDPOINT=$a OLLAMA_REGISTRY=$a
sum() { sha256sum "$1" | cut -c1-64; }

# repo OWNER/NAME FILE...: a repository as Hugging Face shows it; files lie on the other server, behind a redirect, as there
repo() {
    local id=$1 tree=$tmp/a/api/models/$1/tree/main between='[' f
    shift
    mkdir -p "$(dirname "$tree")"
    : >"$tree"
    for f in "$@"; do
        local at=$tmp/a/$id/resolve/main/$f content=$tmp/content/$(basename "$f")
        mkdir -p "$(dirname "$at")" "$(dirname "$tmp/b/cdn/$id/$f")"
        cp "$content" "$tmp/b/cdn/$id/$f"
        printf 302 >"$at.status"
        printf 'Location: %s/cdn/%s/%s?signature=secret\r\n' "$b" "$id" "$f" >"$at.headers"
        printf '%s{"type":"file","oid":"0000","size":%d,"path":"%s","lfs":{"oid":"%s","size":%d,"pointerSize":134}}' "$between" "$(stat -c %s "$content")" "$f" "$(sum "$content")" "$(stat -c %s "$content")" >>"$tree"
        between=,
    done
    printf ',{"type":"directory","oid":"1","size":0,"path":"dir"}]' >>"$tree"
}
mkdir -p "$tmp/content"
for q in Q4_K_M Q8_0 IQ2_M; do { head -c 3000000 "$model"; echo $q; } >"$tmp/content/st-$q.gguf"; done
for i in 1 2; do { head -c 10000 "$model"; echo $i; } >"$tmp/content/sh-Q4_0-0000$i-of-00002.gguf"; done
cp "$tmp/content/st-Q8_0.gguf" "$tmp/content/mmproj-f16.gguf"
content=$tmp/content hf=$KAGARI_MODELS/hf

# ---- it arrives
repo own/repo mmproj-f16.gguf st-Q8_0.gguf st-Q4_K_M.gguf st-IQ2_M.gguf
export HF_TOKEN=hf_verysecret
run 0 download hf:own/repo --log-level trace
same "$hf/own/repo/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"; no_parts
check "the path is printed" [ "$(cat "$tmp/out")" = "$hf/own/repo/st-Q4_K_M.gguf" ]
logged '^GET /api/models/own/repo/tree/main\?recursive=true - Bearer hf_verysecret$' a
logged '^GET /own/repo/resolve/main/st-Q4_K_M.gguf - Bearer hf_verysecret$' a
logged '^GET /cdn/own/repo/st-Q4_K_M.gguf\?signature=secret - -$' b
quiet 'hf_verysecret' b
check "addresses without their query" [ "$(grep -c signature "$tmp/err")" = 0 ]
run 0 list; check "it is listed" grep -q own/repo/st-Q4_K_M "$tmp/out"
: >"$tmp/log_b"
run 0 download hf:own/repo; err_has 'is there already'; quiet . b
run 0 download hf:own/repo --force; logged . b
run 0 download own/repo:q8_0; same "$hf/own/repo/st-Q8_0.gguf" "$content/st-Q8_0.gguf"
run 0 download own/repo -q IQ2_M -o "$tmp/here"; same "$tmp/here/st-IQ2_M.gguf" "$content/st-IQ2_M.gguf"
run 1 download own/repo:Q3_K; err_has 'none of the files is Q3_K: st-Q8_0.gguf st-Q4_K_M.gguf st-IQ2_M.gguf'
run 0 download hf:own/repo --force --token hf_othersecret; logged 'Bearer hf_othersecret' a
echo more >>"$hf/own/repo/st-Q8_0.gguf"; run 1 download own/repo:q8_0; err_has '--force replaces it'
unset HF_TOKEN
: >"$tmp/log_a"
run 0 download own/repo --force; quiet Bearer a
script -qec "$kagari download own/repo --force" /dev/null </dev/null >"$tmp/out"
check "a bar on a terminal" grep -qE 'st-Q4_K_M.gguf  \[=* *\] +[0-9]+ %' "$tmp/out"
script -qec "$kagari download own/repo --force --no-progress" /dev/null </dev/null >"$tmp/out"
check "none with --no-progress" [ "$(grep -c '%' "$tmp/out")" = 0 ]

# ---- shards, several pages, names in folders
repo own/sharded sh-Q4_0-00002-of-00002.gguf sh-Q4_0-00001-of-00002.gguf
run 0 download own/sharded; err_has 'kagari merge'
for i in 1 2; do same "$hf/own/sharded/sh-Q4_0-0000$i-of-00002.gguf" "$content/sh-Q4_0-0000$i-of-00002.gguf"; done
repo own/half sh-Q4_0-00001-of-00002.gguf
run 1 download own/half; err_has 'does not have file 2 of 2'
repo own/pages Q8_0/st-Q8_0.gguf
mv "$tmp/a/api/models/own/pages/tree/main" "$tmp/a/api/models/own/pages/tree/main?cursor=2"
printf '[]' >"$tmp/a/api/models/own/pages/tree/main?recursive=true"
printf 'Link: <%s/api/models/own/pages/tree/main?cursor=2>; rel="next"\r\n' "$a" >"$tmp/a/api/models/own/pages/tree/main?recursive=true.headers"
run 0 download own/pages; same "$hf/own/pages/Q8_0/st-Q8_0.gguf" "$content/st-Q8_0.gguf"
# a folder of safetensors: small files are checked by git's SHA-1
printf '{}' >"$content/config.json"; printf 'abc' >"$content/model.safetensors"; printf 'x' >"$content/pytorch_model.bin"
repo own/folder config.json model.safetensors pytorch_model.bin
blob=$(printf 'blob 2\0{}' | sha1sum | cut -c1-40)
sed -i "s/\"oid\":\"0000\",\"size\":2,\"path\":\"config.json\",\"lfs\":{[^}]*}/\"oid\":\"$blob\",\"size\":2,\"path\":\"config.json\"/" "$tmp/a/api/models/own/folder/tree/main"
run 0 download own/folder
same "$hf/own/folder/config.json" "$content/config.json"; same "$hf/own/folder/model.safetensors" "$content/model.safetensors"
check "nothing else" [ ! -e "$hf/own/folder/pytorch_model.bin" ]
check "the folder is printed" [ "$(cat "$tmp/out")" = "$hf/own/folder" ]
sed -i "s/$blob/${blob//[0-9]/0}/" "$tmp/a/api/models/own/folder/tree/main"
run 1 download own/folder --force; err_has 'the checksum is'
run 1 download own/folder --format gguf; err_has 'there is no GGUF file'

# ---- interruptions
repo own/cut st-Q4_K_M.gguf
at=$tmp/b/cdn/own/cut/st-Q4_K_M.gguf
printf 1000000 >"$at.cut"; : >"$tmp/log_b"
run 0 download own/cut; same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"; no_parts
check "it goes on where it was cut" [ "$(grep -c 'bytes=1000000-' "$tmp/log_b")" = 1 -a "$(wc -l <"$tmp/log_b")" = 2 ]
printf 1000000 >"$at.cut"; touch "$at.norange"; : >"$tmp/log_b"
run 0 download own/cut --force; same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"
rm -f "$at.norange" "$hf/own/cut/st-Q4_K_M.gguf"
part=$hf/own/cut/st-Q4_K_M.gguf.$(sum "$content/st-Q4_K_M.gguf" | cut -c1-16).part
head -c 2000000 "$content/st-Q4_K_M.gguf" >"$part"; : >"$tmp/log_b" # as if it had been killed
run 0 download own/cut; err_has 'going on after 2000000 of'; logged 'bytes=2000000-' b
same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"; no_parts
rm "$hf/own/cut/st-Q4_K_M.gguf"; cp "$content/st-Q4_K_M.gguf" "$part"; : >"$tmp/log_b" # all of it, but the name
run 0 download own/cut; quiet . b; same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"
rm "$hf/own/cut/st-Q4_K_M.gguf"; head -c 5000000 /dev/zero >"$part" # longer than it may be
run 0 download own/cut; same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"
rm "$hf/own/cut/st-Q4_K_M.gguf"; head -c 2000000 /dev/zero >"$part" # damaged
run 1 download own/cut; err_has 'the checksum is'; no_parts
check "nothing under its name" [ ! -e "$hf/own/cut/st-Q4_K_M.gguf" ]
run 0 download own/cut; same "$hf/own/cut/st-Q4_K_M.gguf" "$content/st-Q4_K_M.gguf"
(exec 9>>"$part"; flock 9; run 1 download own/cut --force; err_has 'another program downloads it'; [ $failed = 0 ]) || failed=$((failed + 1)); rm -f "$part"
ln -s "$tmp/elsewhere" "$part"; run 1 download own/cut --force; check "a link is not followed" [ ! -e "$tmp/elsewhere" ]; rm -f "$part"

# ---- servers that are wrong, or worse
echo x >>"$tmp/b/cdn/own/cut/st-Q4_K_M.gguf"
run 1 download own/cut --force; err_has 'sends more than'
find "$KAGARI_MODELS" -name '*.part' -delete
repo own/wrong st-Q8_0.gguf; printf 'Y' | dd of="$tmp/b/cdn/own/wrong/st-Q8_0.gguf" bs=1 seek=5 conv=notrunc status=none
run 1 download own/wrong; err_has 'the checksum is'; no_parts
check "nothing under its name" [ ! -e "$hf/own/wrong/st-Q8_0.gguf" ]
run 1 download own/nothing; err_has 'there is no such model'
tree=$tmp/a/api/models/own/evil/tree/main; mkdir -p "$(dirname "$tree")"
list() { printf '%s' "$1" >"$tree"; }
for path in ../../../../evil-Q4_K_M.gguf /tmp/evil-Q4_K_M.gguf a/../../evil-Q4_K_M.gguf .evil-Q4_K_M.gguf 'a\\b-Q4_K_M.gguf' a//b.gguf 'a\u001b[31m.gguf'; do
    list "[{\"type\":\"file\",\"size\":3,\"path\":\"$path\",\"oid\":\"1\"}]"
    run 1 download own/evil; err_has 'neither a GGUF file nor'
done
list '{"error":"x"}'; run 1 download own/evil; err_has 'not a list of files'
list '[{"type":'; run 1 download own/evil; err_has 'not JSON'
list '[{"type":"file","path":7,"size":"x"},3,null]'; run 1 download own/evil; err_has 'neither a GGUF'
list '[{"type":"file","path":"e.gguf","size":-5}]'; run 1 download own/evil
head -c 17000000 /dev/zero | tr '\0' ' ' >"$tree"; run 1 download own/evil; err_has 'too long'
printf '[%.0s' $(seq 5000) >"$tree"; run 1 download own/evil; err_has 'not JSON'
list '[{"type":"file","size":1000000000000000,"path":"big-Q4_0.gguf","oid":"1"}]'; run 1 download own/evil; err_has 'the disk has'; find "$KAGARI_MODELS" -name '*.part' -delete
list '[]'; printf 403 >"$tree.status"; run 1 download own/evil; err_has 'HF_TOKEN'
printf 500 >"$tree.status"; run 1 download own/evil; err_has 'status 500'
printf 302 >"$tree.status"; printf 'Location: %s/api/models/own/evil/tree/main\r\n' "$a" >"$tree.headers"; run 1 download own/evil; err_has 'redirects too often'
printf 'Location: file:///etc/passwd\r\n' >"$tree.headers"; run 1 download own/evil
HF_ENDPOINT=http://127.0.0.1:1 run 1 download own/evil; err_has "Couldn't connect"
HF_ENDPOINT=http://192.0.2.1 HF_TOKEN=hf_verysecret run 1 download own/evil; err_has 'a token is not sent over plain http'
HF_ENDPOINT=ftp://127.0.0.1 run 1 download own/evil
HF_TOKEN=$'hf_verysecret\r\nX: y' run 1 download own/repo --force; err_has 'the token is not one'
for name in a/b/c ../x x/.. hf: hf:a 'a b/c' a/b: ollama: xx:a/b; do run 2 download "$name"; err_has 'is not the name of a model'; done
run 2 download; run 2 download own/repo:Q8_0 -q Q4_0

# ---- the other servers; the token of Hugging Face is not for them
: >"$tmp/log_a"; export HF_TOKEN=hf_verysecret
mkdir -p "$tmp/a/v2/library/tiny/manifests" "$tmp/a/v2/library/tiny/blobs" "$tmp/a/api/v1/models/org/name/repo"
digest=$(sum "$content/st-Q8_0.gguf")
cp "$content/st-Q8_0.gguf" "$tmp/a/v2/library/tiny/blobs/sha256:$digest"
printf '{"layers":[{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:1","size":1},{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:%s","size":%d}]}' "$digest" "$(stat -c %s "$content/st-Q8_0.gguf")" >"$tmp/a/v2/library/tiny/manifests/1b"
run 0 download ollama:tiny:1b; same "$KAGARI_MODELS/ollama/library/tiny/1b.gguf" "$content/st-Q8_0.gguf"
run 1 download ollama:tiny; err_has 'there is no such model'
run 1 tokenize -m ollama:tiny:1b x --log-level debug; err_has "model ollama:tiny:1b is $KAGARI_MODELS/ollama/library/tiny/1b.gguf"
printf '{"Code":200,"Data":{"Files":[{"Type":"tree","Path":"x"},{"Type":"blob","Path":"n Q4_0.gguf","Size":%d,"Sha256":"%s"}]}}' "$(stat -c %s "$content/st-Q8_0.gguf")" "$digest" >"$tmp/a/api/v1/models/org/name/repo/files"
cp "$content/st-Q8_0.gguf" "$tmp/a/api/v1/models/org/name/repo?Revision=master&FilePath=n%20Q4_0.gguf"
run 0 download ms:org/name; same "$KAGARI_MODELS/ms/org/name/n Q4_0.gguf" "$content/st-Q8_0.gguf"
quiet Bearer a
printf '{"Code":404,"Message":"no such thing"}' >"$tmp/a/api/v1/models/org/name/repo/files"; run 1 download ms:org/name; err_has 'no such thing'

# ---- Ctrl-C: what has come stays, and the next call goes on
repo own/slow st-Q4_K_M.gguf
at=$tmp/b/cdn/own/slow/st-Q4_K_M.gguf; printf 302 >"$at.status"; printf 'Location: %s/cdn/own/slow/st-Q4_K_M.gguf\r\n' "$b" >"$at.headers"
printf 503 >"$at.status"; rm "$at.headers" # it would be tried again for seconds
"$kagari" download own/slow >"$tmp/out" 2>"$tmp/err" & pid=$!
sleep 0.4; kill -INT $pid; wait $pid; got=$? last='Ctrl-C'
check "exit status 130, got $got" [ $got = 130 ]; err_has 'the same command goes on from there'

check "no output ever held the token" [ "$(grep -c 'verysecret\|othersecret' "$all_output")" = 0 ]
echo "download: $passed checks passed, $failed failed"
[ $failed = 0 ]

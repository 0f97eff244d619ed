#!/bin/bash
# An architecture is one file: a made-up one, dropped beside the others, makes a program that runs its models, and nothing else is touched.
# Compiles that file and the list of architectures; the rest is that of the build.
#   test_layout.sh SOURCE_DIR BUILD_DIR "COMPILER FLAGS"
set -u
src=$1 build=$2 cc=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

mkdir "$work/generated"
cp "$build"/generated/*.inc "$work/generated/"
cat > "$work/maple.c" <<'END'
/* A made-up architecture. */
#include "model/decoder.h"

const struct arch arch_maple = DECODER_ARCH("maple", .rope = ROPE_INTERLEAVED);
END
echo 'ARCH(maple)' >> "$work/generated/arch_list.inc" # what CMake does with a file src/arch/maple.c

flags="-std=c17 -D_GNU_SOURCE -O0 -I$src/src -I$work/generated -I$src/include"
for file in "$work/maple.c" "$src/src/model/arch.c"; do
    $cc $flags -c "$file" -o "$work/$(basename "$file").o" || fail "cannot compile $file"
done
# the libraries that the program is linked with
link=$build/CMakeFiles/kagari.dir/link.txt
[ -f "$link" ] || { echo "skipped: this build has no $link"; exit 0; }
words=$(tr ' ' '\n' < "$link")
objects=$(grep '\.o$' <<< "$words" | sed "s|^|$build/|")
libraries=$(grep -E '^-l|\.so(\.[0-9]+)*$|\.a$' <<< "$words" | grep -v libkagari)
# the archive's own list of architectures is not taken: nothing of it is missing any more
$cc $objects "$work"/*.o "$build/libkagari.a" -o "$work/kagari" $libraries || fail "cannot link"

# the bundled model under the made-up name, which is as long as its own
model=$src/models/stories-q4_k_m.gguf
LC_ALL=C sed -e 's/llama\.\(attention\|block_count\|context_length\|embedding_length\|feed_forward_length\|rope\|vocab_size\)/maple.\1/g' \
    -e 's/\(general\.architecture............\)llama/\1maple/' "$model" > "$work/maple.gguf"
say() { "$1" -m "$2" -p "Once upon a time" --temperature 0 --max-tokens 12 -b cpu; }
want=$(say "$build/kagari" "$model") || fail "the bundled model"
got=$(say "$work/kagari" "$work/maple.gguf") || fail "the made-up architecture does not run"
[ "$got" = "$want" ] || fail "the made-up architecture says '$got', not '$want'"
say "$build/kagari" "$work/maple.gguf" > /dev/null 2> "$work/error" && fail "the plain program runs the made-up architecture"
grep -q '"maple" is not supported' "$work/error" || fail "no word about the architecture: $(cat "$work/error")"
echo "a made-up architecture took one file"

#!/usr/bin/env bash
# Configuration: every key, variable and flag that `kagari help config` lists, and which of them wins; mistakes in files.
#   tests/test_config.sh PATH_OF_KAGARI SOURCE_FOLDER
set -u
kagari=$1
model=$2/models/stories-q4_k_m.gguf
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for name in $(env | grep -oE '^(KAGARI_[A-Z_]*|NO_COLOR)='); do unset "${name%=}"; done
export HOME=$tmp/home XDG_CONFIG_HOME=
mkdir -p "$HOME"
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); printf 'FAILED: %s\n' "$*" >&2; }
check() { # what, command...
    local what=$1
    shift
    if "$@"; then ok; else bad "$what"; fi
}
has() { if grep -qxF -- "$1" "$tmp/out"; then ok; else bad "$last: no line '$1': $(grep -F -- "${1%% =*}" "$tmp/out" "$tmp/err" | head -3)"; fi; }
run() {
    local want=$1 got=0
    shift
    last="kagari $*"
    "$kagari" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    check "$last: exit status $want, got $got: $(head -c 200 "$tmp/err")" [ "$got" = "$want" ]
}
fails() { # TEXT config-file-content: one line on stderr, status 2
    printf "$2" >"$tmp/bad.toml"
    run 2 -c "$tmp/bad.toml" -p x --max-tokens 1
    check "$last ($2): '$1' in: $(cat "$tmp/err")" grep -qF -- "$1" "$tmp/err"
    check "$last: one line" [ "$(wc -l <"$tmp/err")" = 1 -a ! -s "$tmp/out" ]
}

# ---- every setting, from each place
# A value that a flag takes, from what the help calls its argument; not the default.
candidate() {
    case $1 in
    *'|'*) local words=${1//|/ }; set -- $words; [ "$1" = N ] && echo "$2" || echo "${*: -1}" ;;
    F) echo 0.25 ;;
    N) echo 3 ;;
    *) echo "some text" ;;
    esac
}
section_of() { awk -v line="$1" '/^\[/ { s = $0 } $0 == line { print s; exit }' "$tmp/out"; }
run 0 help config
sed -nE 's/^  (-., )?    ?--([a-z0-9-]+) ([^ ]*) .*$/\2 \3/p; s/^  -., --([a-z0-9-]+) ([^ ]*) .*$/\1 \2/p' "$tmp/out" >"$tmp/flags"
cp "$tmp/out" "$tmp/help"
n=0
while read -r flag arg; do
    case $flag in help | version | config) continue ;; esac
    variable=$(grep -E -- "^  (-., |    )--$flag " "$tmp/help" | grep -oE '\[\$[A-Z_]+\]$' | tr -d '[]$')
    if [ -n "$arg" ]; then value=$(candidate "$arg"); run 0 config "--$flag" "$value"; else value=true; run 0 config "--$flag"; fi
    line=$(grep -E "# command line: --$flag\$" "$tmp/out")
    if [ -z "$line" ]; then bad "--$flag does not show in kagari config"; continue; fi
    setting=${line%  \# *}
    section=$(section_of "$line")
    # the same from a file
    printf '%s\n%s\n' "$section" "$setting" >"$tmp/one.toml"
    run 0 config -c "$tmp/one.toml"; has "$setting  # line 2 of the file"
    # the environment before the file, the flag before both
    KAGARI_CONFIG=$tmp/one.toml run 0 config; has "$setting  # line 2 of the file"
    if [ -n "$variable" ]; then
        export "$variable=$value"
        run 0 config -c "$tmp/one.toml"; has "$setting  # environment: $variable"
        if [ -n "$arg" ]; then run 0 config -c "$tmp/one.toml" "--$flag" "$value"; else run 0 config -c "$tmp/one.toml" "--$flag"; fi
        has "$line"
        export "$variable="
        run 0 config -c "$tmp/one.toml"; has "$setting  # line 2 of the file"
        unset "$variable"
    fi
    n=$((n + 1))
done <"$tmp/flags"
check "many settings ($n)" [ $n -ge 20 ]
run 0 config
check "as many keys as were tried" [ "$(grep -cE '^(# )?[a-z_]+ (=|is not set)' "$tmp/out")" = $n ]

# ---- what is printed is a configuration with the same values
printf '[generation]\ntemperature = 0.1\nstop = ["a\\"b", """\nx\n"""]\nseed = "18446744073709551615"\n[ui]\ncolor = false\n' >"$tmp/a.toml"
run 0 config -c "$tmp/a.toml"; cp "$tmp/out" "$tmp/b.toml"
run 0 config -c "$tmp/b.toml"
values() { sed 's/  # .*//; /^# Conf/d' "$1"; }
check "printed values read back" cmp -s <(values "$tmp/out") <(values "$tmp/b.toml")
has 'seed = "18446744073709551615"  # line '"$(grep -n ^seed "$tmp/b.toml" | cut -d: -f1) of the file"

# ---- where the file lies
mkdir -p "$HOME/.config/kagari" "$tmp/xdg/kagari"
printf '[generation]\ntop_k = 5\n' >"$HOME/.config/kagari/config.toml"
run 0 config; has 'top_k = 5  # line 2 of the file'; has "# Configuration file: $HOME/.config/kagari/config.toml"
XDG_CONFIG_HOME=$tmp/xdg run 0 config; has 'top_k = 40  # default'; has "# Configuration file: $tmp/xdg/kagari/config.toml (not there)"
printf '[generation]\ntop_k = 6\n' >"$tmp/xdg/kagari/config.toml"
XDG_CONFIG_HOME=$tmp/xdg run 0 config; has 'top_k = 6  # line 2 of the file'
run 0 config -c /dev/null; has 'top_k = 40  # default'
HOME= run 0 config; has 'top_k = 40  # default'
run 1 config -c /nowhere/config.toml; check "a named file must be there" grep -q '/nowhere/config.toml' "$tmp/err"
printf '[model]\ndefault = "~/m.gguf"\n' >"$tmp/a.toml"
run 0 config -c "$tmp/a.toml"; has "default = \"$HOME/m.gguf\"  # line 2 of the file"

# ---- it acts
printf "[model]\ndefault = '%s'\n[generation]\nmax_tokens = 3\ntemperature = 0\n[ui]\nshow_metrics = true\n[backend]\ndefault = 'metal'\n" "$model" >"$tmp/a.toml"
run 0 -c "$tmp/a.toml" -p 'Once upon a time'
check "text of 3 tokens" grep -q '^text    3 tokens' "$tmp/err"
check "the fallback is said" grep -q "Backend 'metal' is not available: .*; using cpu instead" "$tmp/err"
run 0 -c "$tmp/a.toml" -p 'Once upon a time' --log-level error --max-tokens 2
check "the flag wins" grep -q '^text    2 tokens' "$tmp/err"
check "no warnings" [ "$(grep -c 'not available' "$tmp/err")" = 0 ]
run 1 -c "$tmp/a.toml" --fallback none -p x; check "no fallback" grep -q "Backend 'metal' is not available" "$tmp/err"
run 1 -c "$tmp/a.toml" -b metal -p x
run 0 -c "$tmp/a.toml" --log-level debug -p x; check "debug" grep -q "settings from $tmp/a.toml" "$tmp/err"
color() { script -qec "$kagari info /nowhere $*" /dev/null </dev/null | grep -c $'\033\\[1;31m'; }
check "errors have colour on a terminal" [ "$(color)" = 1 ]
check "not with --no-color" [ "$(color --no-color)" = 0 ]
check "not with NO_COLOR" [ "$(NO_COLOR=1 color)" = 0 ]
run 1 info /nowhere; check "no colour in a file" [ "$(grep -c $'\033' "$tmp/err")" = 0 ]

# ---- mistakes
fails "bad.toml:2: unknown key 'generation.temprature'; the nearest is 'generation.temperature'" '[generation]\ntemprature = 1\n'
fails "bad.toml:1: unknown key 'temperature'" 'temperature = 1\n'
fails "'model.path' is a key of another program's configuration; here there is instead: model.default" '[model]\npath = "x"\n'
fails "another program's configuration" '[model]\nformat = "gguf"\n'
fails "another program's configuration" '[interface]\ncolor = true\n'
fails "another program's configuration" '[logging]\nlevel = "info"\n'
fails "another program's configuration" '[history]\nmax = 3\n'
fails "bad.toml:2: generation.top_k '40': must be a whole number, without quotes" '[generation]\ntop_k = "40"\n'
fails "generation.temperature '3': must be a number from 0 to 2" '[generation]\ntemperature = 3\n'
fails "must be one of f16|f32|q8_0" '[backend]\nkv_type = "f8"\n'
fails "takes one value, not an array" '[generation]\ntop_k = [1]\n'
fails "true or false, without quotes" '[ui]\ncolor = "yes"\n'
fails "bad.toml:3: 'generation.top_k' is there twice, first in line 2" '[generation]\ntop_k = 1\ntop_k = 2\n'
fails "bad.toml:1: " '[generation\n'
export KAGARI_TOP_K=x; run 2 -p x; check "the variable is named" grep -q "KAGARI_TOP_K 'x': must be a whole number" "$tmp/err"; unset KAGARI_TOP_K
printf 'x' >"$tmp/bad.toml"
run 0 --help -c "$tmp/bad.toml"; run 0 help config -c "$tmp/bad.toml"; run 0 --version -c "$tmp/bad.toml"

echo "config: $passed checks passed, $failed failed"
[ $failed = 0 ]

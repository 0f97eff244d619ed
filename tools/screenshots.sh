#!/usr/bin/env bash
# The pictures of the README, in docs/: what the program shows on a terminal, and the charts of a report of verify.
#   tools/screenshots.sh KAGARI [PYTHON_WITH_PYTE]
set -euo pipefail
cd "$(dirname "$0")/.."
kagari=$(realpath "$1")
python=${2:-python3}
mkdir -p docs
export KAGARI_MODEL=models/stories-q4_k_m.gguf
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export HOME=$home KAGARI_CONFIG=/dev/null
rows=40
shot() { # NAME LINE KEYS...: as typed at a shell
    local line="kagari $2" name=$1 keys=() key
    shift 2
    for key; do keys+=(--keys "$key"); done
    PATH="$(dirname "$kagari"):$PATH" "$python" tools/term2svg.py --rows "$rows" "${keys[@]}" "docs/$name.svg" sh -c "printf '\$ %s\n' \"\$0\"; $line; echo" "$line"
}
shot story '-b cpu -p "The fox looked at the cheese and said" --temperature 0 --max-tokens 60'
shot verify 'verify -b cpu'
shot chat '-b cpu --temperature 0 --max-tokens 60' 'The fox looked at the cheese and said\n' '"This is mine," said the fox.\n' '/stats\n' '/q\n'
rows=26
shot tui '-b cpu --tui --temperature 0 --max-tokens 60' 'The fox looked at the cheese and said\r' '"This is mine," said the fox.\r' '/stats\r' 'Once upon a time in 日本 🦊'
# The charts of the page, apart: they are whole pictures.
"$kagari" verify -b cpu --report docs/report.html >/dev/null
awk '/^<svg/ { n++ } n && /^<svg/,/^<\/svg>/ { print >sprintf("docs/report-%d.svg", n) }' docs/report.html
rm -f docs/report.html docs/report-[1246].svg

#!/usr/bin/env bash
# Perplexity and KL divergence of quantized files on a text, as the Markdown table and the picture of the README.
#   tools/plot_quality.sh KAGARI TEXT BASE.gguf OUT.svg MODEL.gguf...
# The base, the best file, is measured too. Needs bash and awk.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
kagari=$1 text=$2 base=$3 out=$4
shift 4
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
value() { sed -n "s/^ *\"$1\": \([^,]*\),\{0,1\}$/\1/p" <<<"$json"; }
for model in "$base" "$@"; do
    json=$("$kagari" perplexity -b cpu -m "$model" -f "$text" --kl-base "$base" --json)
    size=$(wc -c <"$model")
    echo "$(basename "$model" .gguf) $size $(value perplexity) $(value perplexity_error) $(value kl) $(value kl_error) $(value same_top)" >>"$rows"
done
echo '| file | MB | perplexity | KL divergence from the first | same most likely token |'
echo '|---|--:|--:|--:|--:|'
awk '{ printf "| %s | %.1f | %.2f +- %.2f | %.5f +- %.5f | %.1f %% |\n", $1, $2 / 1e6, $3, $4, $5, $6, 100 * $7 }' "$rows"
awk '
function text(x, y, anchor, more, what) {
    gsub(/&/, "\\&amp;", what)
    gsub(/</, "\\&lt;", what)
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more, what
}
function bar(x0, y, w, k, e, scale, note) {
    printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"16\" fill=\"var(--k%d)\"/>\n", x0, y, w < 0.5 ? 0.5 : w, k
    if (e > 0) printf "<path d=\"M%.1f %dH%.1f\" stroke=\"currentColor\"/>\n", x0 + w - e * scale, y + 8, x0 + w + e * scale
    text(x0 + w + e * scale + 6, y + 12, "start", " font-size=\"11\"", note)
}
{ name[NR] = $1; mb[NR] = $2 / 1e6; ppl[NR] = $3; pe[NR] = $4; kl[NR] = $5; ke[NR] = $6
  if ($3 + $4 > most) most = $3 + $4
  if ($5 + $6 > far) far = $5 + $6 }
END {
    left = 170; width = 250; right = 540; step = 30; top = 64; height = top + NR * step + 16
    printf "<svg class=\"kq\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 %d\" width=\"860\" role=\"img\">\n", height
    print "<style>.kq{color:#1f2328;font:12px system-ui,sans-serif;--k0:#c2571a;--k1:#2f6f8f}.kq text{fill:currentColor}.kq .bg{fill:#fff}.kq .axis{stroke:#888}"
    print "@media(prefers-color-scheme:dark){.kq{color:#e6e6e6;--k0:#f08a4b;--k1:#6bb6dc}.kq .bg{fill:#14171c}}</style>"
    print "<rect class=\"bg\" width=\"100%\" height=\"100%\"/>"
    text(16, 22, "start", " font-size=\"15\" font-weight=\"600\"", "What quantization costs")
    text(left, 48, "start", "", "perplexity, with its standard error")
    text(right, 48, "start", "", "KL divergence from " name[1] ", nats")
    printf "<path class=\"axis\" d=\"M%d %dV%dM%d %dV%d\"/>\n", left, top - 6, height - 10, right, top - 6, height - 10
    for (i = 1; i <= NR; i++) {
        y = top + (i - 1) * step
        text(left - 10, y + 8, "end", "", name[i])
        text(left - 10, y + 21, "end", " font-size=\"10\"", sprintf("%.1f MB", mb[i]))
        bar(left, y, width * ppl[i] / most, 0, pe[i], width / most, sprintf("%.2f", ppl[i]))
        bar(right, y, far > 0 ? 200 * kl[i] / far : 0, 1, ke[i], far > 0 ? 200 / far : 0, sprintf("%.4f", kl[i]))
    }
    print "</svg>"
}' "$rows" >"$out"

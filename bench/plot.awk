# Plot of what share of the machine's limits each row of `kagari bench --csv` reaches: two bars a row, SVG on standard output.
#   awk -f bench/plot.awk results.csv >shares.svg
# The input may hold the header once or before every row.
BEGIN { FS = "," }
$1 == "model" {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
NF > 1 {
    label[n] = $column["type"] ($column["context"] > 0 ? " @" $column["context"] : "")
    share[n, 0] = $column["prompt_share"]
    share[n, 1] = $column["generation_share"]
    rate[n, 0] = $column["prompt_tok_s"]
    rate[n, 1] = $column["generation_tok_s"]
    title = $column["model"] ", " $column["threads"] " threads"
    n++
}
function text(x, y, anchor, size, what) {
    gsub(/&/, "\\&amp;", what)
    gsub(/</, "\\&lt;", what)
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x, y, anchor, size, what
}
END {
    left = 90; top = 60; width = 560; bar = 12; step = 34
    height = top + n * step + 40
    color[0] = "#c2571a"; color[1] = "#2f6f8f"; name[0] = "prompt: of the arithmetic peak"; name[1] = "generation: of the read bandwidth"
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" fill=\"#222\">\n", left + width + 110, height
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
    text(left, 20, "start", 14, title)
    for (k = 0; k < 2; k++) {
        printf "<rect x=\"%d\" y=\"30\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", left + k * 240, color[k]
        text(left + k * 240 + 18, 40, "start", 12, name[k])
    }
    for (i = 0; i <= 10; i += 2) {
        x = left + width * i / 10
        printf "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, top - 4, x, height - 30
        text(x, height - 14, "middle", 11, i * 10 " %")
    }
    for (i = 0; i < n; i++) {
        y = top + i * step
        text(left - 8, y + bar + 4, "end", 12, label[i])
        for (k = 0; k < 2; k++) {
            if (share[i, k] == "") continue
            w = width * share[i, k]
            printf "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y + k * bar, w, bar - 1, color[k]
            text(left + w + 5, y + k * bar + 10, "start", 10, sprintf("%.0f %%, %.4g tok/s", 100 * share[i, k], rate[i, k]))
        }
    }
    print "</svg>"
}

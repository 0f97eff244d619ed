# Plot of what share of the machine's limits each row of `kagari bench --csv` reaches: two bars a row with their spread, SVG on standard output.
#   awk -f bench/plot.awk results.csv >shares.svg
# The input may hold the header once or before every row.
BEGIN { FS = "," }
$1 == "model" {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
NF > 1 {
    label[n] = $column["type"] ($column["context"] > 0 ? " @" $column["context"] : "")
    for (k = 0; k < 2; k++) {
        kind = k ? "generation" : "prompt"
        share[n, k] = $column[kind "_share"]
        low[n, k] = $column[kind "_share_min"]
        high[n, k] = $column[kind "_share_max"]
        rate[n, k] = $column[kind "_tok_s"]
    }
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
    name[0] = "prompt: of the arithmetic peak"; name[1] = "generation: of the read bandwidth"
    printf "<svg class=\"kb\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\">\n", left + width + 130, height, left + width + 130
    print "<style>.kb{color:#1f2328;font-family:system-ui,sans-serif;--k0:#c2571a;--k1:#2f6f8f}.kb text{fill:currentColor}.kb .bg{fill:#fff}.kb .grid{stroke:#8884}"
    print "@media(prefers-color-scheme:dark){.kb{color:#e6e6e6;--k0:#f08a4b;--k1:#6bb6dc}.kb .bg{fill:#14171c}}</style>"
    print "<rect class=\"bg\" width=\"100%\" height=\"100%\"/>"
    text(left, 20, "start", 14, title)
    for (k = 0; k < 2; k++) {
        printf "<rect x=\"%d\" y=\"30\" width=\"12\" height=\"12\" fill=\"var(--k%d)\"/>\n", left + k * 240, k
        text(left + k * 240 + 18, 40, "start", 12, name[k])
    }
    for (i = 0; i <= 10; i += 2) {
        x = left + width * i / 10
        printf "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", x, top - 4, x, height - 30
        text(x, height - 14, "middle", 11, i * 10 " %")
    }
    for (i = 0; i < n; i++) {
        y = top + i * step
        text(left - 8, y + bar + 4, "end", 12, label[i])
        for (k = 0; k < 2; k++) {
            if (share[i, k] == "") continue
            w = width * share[i, k]
            e = w
            printf "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"var(--k%d)\"/>\n", left, y + k * bar, w, bar - 1, k
            if (low[i, k] != "" && high[i, k] != "") {
                printf "<path d=\"M%.1f %.1fH%.1f\" stroke=\"currentColor\"/>\n", left + width * low[i, k], y + k * bar + (bar - 1) / 2, left + width * high[i, k]
                if (width * high[i, k] > e) e = width * high[i, k]
            }
            text(left + e + 5, y + k * bar + 10, "start", 10, sprintf("%.0f %%, %.4g tok/s", 100 * share[i, k], rate[i, k]))
        }
    }
    print "</svg>"
}

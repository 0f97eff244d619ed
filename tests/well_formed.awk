# Is a page or a picture well-formed XML, and without scripts or links? Prints the first mistake and exits with 1.
#   awk -f tests/well_formed.awk FILE
{ text = text $0 "\n" }
function bad(what) { printf "%s: %s near: %s\n", FILENAME, what, substr(text, 1, 80); failed = 1; exit 1 }
function check_text(s) {
    gsub(/&(amp|lt|gt|quot|#[0-9]+);/, "", s)
    if (s ~ /[&>]/) bad("a bare & or >: " s)
}
END {
    if (failed) exit 1
    sub(/^<!DOCTYPE html>\n/, "", text)
    depth = 0
    while (text != "") {
        at = index(text, "<")
        if (at == 0) { if (text ~ /[^ \n]/) bad("text behind the end"); break }
        check_text(substr(text, 1, at - 1))
        text = substr(text, at)
        if (!match(text, /^<\/?[a-zA-Z][a-zA-Z0-9]*([ \n]+[a-zA-Z][a-zA-Z0-9:-]*="[^"<]*")*[ \n]*\/?>/)) bad("not a tag")
        tag = substr(text, 1, RLENGTH)
        text = substr(text, RLENGTH + 1)
        name = tag
        gsub(/^<\/?|[ \n\/>].*$/, "", name)
        if (name == "script" || tag ~ /[ \n](href|src|on[a-z]+)=/) bad("a script or a link: " tag)
        if (tag ~ /(NaN|nan|inf)/ && tag !~ /font-/) bad("a number that is none: " tag)
        n_tags++
        if (tag ~ /^<\//) {
            if (depth == 0 || stack[depth] != name) bad("</" name "> ends <" stack[depth] ">")
            depth--
        } else if (tag !~ /\/>$/) {
            if (depth == 0 && n_roots++) bad("a second root")
            stack[++depth] = name
        }
    }
    if (depth) bad("<" stack[depth] "> has no end")
    if (!n_tags) bad("no tags")
}

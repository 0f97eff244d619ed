#!/usr/bin/env python3
"""Golden results of the template tests, from Python's jinja2 with the settings of transformers.

    tools/mktemplates.py FOLDER_OF_TEMPLATES                  writes tests/golden/templates/*
    tools/mktemplates.py FOLDER_OF_TEMPLATES --diff KAGARI    compares with `KAGARI template`, and shows where texts differ

Needs jinja2 (3.1). The folder's templates belong to their authors: of what they produce only lengths and hashes are stored.
expressions.json is made from the list below, which is ours.
"""
import difflib, json, os, subprocess, sys, tempfile
from datetime import datetime, timezone

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden", "templates")
NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=timezone.utc)  # 1790000000 seconds since 1970


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment(kind):
    env = kind(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: NOW.strftime(f)
    return env


STRICT, MUTABLE = environment(ImmutableSandboxedEnvironment), environment(SandboxedEnvironment)


def render(source, variables):
    """The text, or None if jinja2 fails. Where only the ban on changing a list stands in the way, it is lifted."""
    try:
        copy = json.loads(json.dumps(variables))
        try:
            return STRICT.from_string(source).render(**copy)
        except jinja2.exceptions.SecurityError:
            return MUTABLE.from_string(source).render(**json.loads(json.dumps(variables)))
    except Exception as e:
        render.error = "%s: %s" % (type(e).__name__, e)
        return None


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


# ---- conversations

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather \u2014 \u201ctoday\u201d's, in a city.", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "The city, e.g. K\u014dbe"},
            "units": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Units"},
            "days": {"type": "integer", "default": 1, "minimum": 0.5, "description": " Days ahead "},
            "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags"}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "Adds <two> & numbers", "parameters": {
        "type": "object", "properties": {"a": {"type": ["number", "null"], "description": "first"}, "b": {"type": "number", "description": "second"}},
        "required": ["a", "b"], "additionalProperties": False}}},
]


def call(name, arguments, number=0):
    return {"id": "abcdef%03d" % number, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are terse.\n\nAnswer in one line. "}
HELLO = [{"role": "user", "content": "Hello, who are you?"}]
MANY = []
for i in range(12):
    MANY += [{"role": "user", "content": "Question %d: \u4eca\u65e5\u306f? \U0001f525 {{ not code }} {%% if %%}" % i},
             {"role": "assistant", "content": "\n Answer %d.\n" % i}]
MANY.append({"role": "user", "content": "And now?"})
THOUGHT = HELLO + [{"role": "assistant", "content": "<think>\nThe user greets me.\n</think>\n\nI am a model."}, {"role": "user", "content": "Really?"}]
THOUGHT_APART = HELLO + [{"role": "assistant", "reasoning_content": "The user greets me.", "content": "I am a model."}, {"role": "user", "content": "Really?"}]
def asked(content, arguments, last=True):
    m = [{"role": "user", "content": "The weather in K\u014dbe?"},
         {"role": "assistant", "content": content, "tool_calls": [call("get_weather", arguments)]},
         {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef000", "content": "{\"degrees\": 21.5, \"sky\": \"clear\"}"}]
    return m + ([{"role": "assistant", "content": "Clear, 21.5 degrees."}, {"role": "user", "content": "Thanks!"}] if last else [])
OBJECT, TEXT = {"city": "K\u014dbe", "days": 2, "ratio": 1.5, "deep": {"list": [1, None, True]}}, "{\"city\": \"K\u014dbe\", \"days\": 2}"
TWO = asked("", OBJECT)[:1] + [{"role": "assistant", "content": "", "tool_calls": [call("get_weather", OBJECT), call("add", {"a": 1, "b": -2.0}, 1)]},
    {"role": "tool", "tool_call_id": "abcdef000", "content": "clear"}, {"role": "tool", "tool_call_id": "abcdef001", "content": "-1"},
    {"role": "assistant", "content": "Clear, and -1."}, {"role": "user", "content": "Fine."}]
SIMPLE = json.loads(json.dumps(TOOLS))  # without lists of types, which one template cannot render
SIMPLE[0]["function"]["parameters"]["properties"].pop("tags")
SIMPLE[1]["function"]["parameters"]["properties"]["a"]["type"] = "number"
PARTS = [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]}]

CONVERSATIONS = {
    "hello": {"messages": HELLO},
    "system": {"messages": [SYSTEM] + HELLO},
    "answered": {"messages": HELLO + [{"role": "assistant", "content": "A model."}], "add_generation_prompt": False},
    "many": {"messages": MANY},
    "many system": {"messages": [SYSTEM] + MANY},
    "thought": {"messages": THOUGHT},
    "thought apart": {"messages": [SYSTEM] + THOUGHT_APART},
    "no thinking": {"messages": [SYSTEM] + HELLO, "enable_thinking": False, "thinking": False},
    "thinking": {"messages": THOUGHT, "enable_thinking": True, "thinking": True},
    "tools": {"messages": HELLO, "tools": TOOLS},
    "tools system": {"messages": [SYSTEM] + MANY, "tools": TOOLS},
    "call object": {"messages": asked("", OBJECT), "tools": TOOLS},
    "call null": {"messages": [SYSTEM] + asked(None, OBJECT), "tools": TOOLS},
    "call text": {"messages": asked(None, TEXT), "tools": TOOLS},
    "call content": {"messages": asked("Let me look.", OBJECT), "tools": TOOLS},
    "call open": {"messages": [SYSTEM] + asked("", OBJECT, last=False), "tools": TOOLS},
    "two calls": {"messages": TWO, "tools": TOOLS},
    "simple tools": {"messages": [SYSTEM] + HELLO, "tools": SIMPLE},
    "simple call": {"messages": [SYSTEM] + asked("", OBJECT), "tools": SIMPLE},
    "simple call text": {"messages": asked("", TEXT), "tools": SIMPLE},
    "simple two calls": {"messages": TWO, "tools": SIMPLE},
    "nothing but none": {"messages": HELLO, "tools": None, "documents": None},
    "no tools given": {"messages": asked("", OBJECT)},
    "parts": {"messages": PARTS},
    "parts system": {"messages": [{"role": "system", "content": [{"type": "text", "text": "Terse."}]}] + PARTS},
    "documents": {"messages": HELLO, "documents": [{"doc_id": 1, "text": "Kagari is an iron basket."}, {"doc_id": 2, "text": "It carries a fire."}], "controls": {"citations": True, "length": "short"}},
    "documents tools": {"messages": HELLO, "documents": [{"doc_id": 1, "text": "A basket."}], "tools": TOOLS, "controls": {"hallucinations": True}},
    "developer": {"messages": [{"role": "developer", "content": "Be kind."}] + HELLO},
    "wrong order": {"messages": [{"role": "assistant", "content": "Hi"}, {"role": "assistant", "content": "Hi again"}]},
    "empty content": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}, {"role": "user", "content": " "}]},
    "no messages": {"messages": []},
    "builtin tools": {"messages": asked("", {"query": "fire"}), "builtin_tools": ["get_weather", "code_interpreter"], "date_string": "21 Sep 2026"},
}
for c in CONVERSATIONS.values():
    for k, v in {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}.items():
        c.setdefault(k, v)

# ---- expressions: (template, variables), or just the template

V = {"l": [3, 1, 2], "d": {"a": 1, "B": [1, "x"], "c": None}, "s": "Hello, W\u00f6rld", "n": None, "t": True, "f": 1.5, "i": 7,
     "users": [{"name": "Bo", "age": 3, "tags": ["x"]}, {"name": "al", "age": 1}, {"name": "Cy", "age": 2, "tags": []}], "e": "\U0001f525\u65e5", "sp": "  a  b c ", "lines": "one\n\n two\nthree"}
EXPRESSIONS = open(os.path.join(HERE, "template_expressions.txt"), encoding="utf-8").read().split("\n====\n")


def write(name, text):
    os.makedirs(GOLDEN, exist_ok=True)
    with open(os.path.join(GOLDEN, name), "w", encoding="utf-8") as f:
        f.write(text)


def main():
    folder = sys.argv[1]
    templates = {n: open(os.path.join(folder, n), encoding="utf-8").read() for n in sorted(os.listdir(folder)) if n.endswith(".jinja")}
    if len(sys.argv) > 2:
        return diff(templates, sys.argv[3])
    write("conversations.json", json.dumps(CONVERSATIONS, indent=1) + "\n")
    lines = ["# template\tconversation\tbytes and FNV-1a hash of what jinja2 %s makes, or error" % jinja2.__version__]
    for t, source in templates.items():
        for c, variables in CONVERSATIONS.items():
            text = render(source, variables)
            lines.append("%s\t%s\t%s" % (t, c, "error" if text is None else "%d\t%s" % (len(text.encode()), fnv(text))))
    write("outputs.tsv", "\n".join(lines) + "\n")
    out = []
    for source in EXPRESSIONS:
        text = render(source, V)
        out.append({"template": source, "expected": text} if text is not None else {"template": source, "error": render.error})
    write("expressions.json", json.dumps({"variables": V, "cases": out}, indent=1) + "\n")
    cases = json.load(open(os.path.join(folder, "llamacpp-jinja-cases.json"), encoding="utf-8"))
    agree = [i for i, c in enumerate(cases) if render(c["template"], c["vars"]) == c["expected"]]
    print("%d templates, %d conversations, %d expressions (%d of them errors), %d of %d cases agree with jinja2" % (
        len(templates), len(CONVERSATIONS), len(out), sum("error" in o for o in out), len(agree), len(cases)))
    for i in range(len(cases)):
        if i not in agree:
            print("  disagrees: %s" % cases[i]["template"])


def diff(templates, kagari):
    bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        for t, source in templates.items():
            path = os.path.join(tmp, "t.jinja")
            open(path, "w", encoding="utf-8").write(source)
            for c, variables in CONVERSATIONS.items():
                want = render(source, {"tools": None, "documents": None, **variables})  # as transformers calls it
                vars_path = os.path.join(tmp, "v.json")
                json.dump(variables, open(vars_path, "w"))
                r = subprocess.run([kagari, "template", "--template", path, "-f", vars_path, "--now", "1790000000"], capture_output=True, env={"TZ": "UTC"})
                got = r.stdout.decode() if r.returncode == 0 else None
                if got == want:
                    continue
                bad += 1
                print("==== %s, %s: jinja2 %s, kagari %s" % (t, c, "fails: " + render.error if want is None else "ok", r.stderr.decode().strip() or "ok"))
                if want is not None and got is not None:
                    print("\n".join(difflib.unified_diff(want.splitlines(), got.splitlines(), "jinja2", "kagari", lineterm="")))
    print("%d differ" % bad)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())

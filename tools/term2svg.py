"""Runs a program on a terminal of its own, types keys into it, and draws the screen that results as SVG.

usage: term2svg.py [--columns N] [--rows N] [--wait SECONDS] [--keys TEXT]... OUT.svg COMMAND...
Each --keys is typed when the screen has not changed for a second; \\n, \\x04 and the like are understood. The screen is drawn when the program
has ended, or after --wait seconds (60). Needs pyte (pip install pyte).
"""
import argparse, os, pty, select, signal, sys, time
from xml.sax.saxutils import escape
import fcntl, struct, termios
import pyte

NAMES = {"red": 1, "green": 2, "brown": 3, "blue": 4, "magenta": 5, "cyan": 6}
CSS = """<style>.kt{color:#1f2328;font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;--k1:#b42318;--k2:#2f7d32;--k3:#8a6100;--k4:#2457b3;--k5:#7a3e9d;--k6:#0b6e6e}
.kt text{fill:currentColor;white-space:pre}.kt .bg{fill:#f6f8fa;stroke:#8886}@media(prefers-color-scheme:dark){.kt{color:#e6e6e6;--k1:#ff8a80;--k2:#9ccc65;--k3:#e0b040;--k4:#8ab4f8;--k5:#d7a1f0;--k6:#6fd0d0}.kt .bg{fill:#14171c}}</style>"""


class Screen(pyte.Screen):
    """Also scrolls by itself (SU, SD), as ncurses asks terminals to."""

    def scroll(self, n, edge, step):
        x, y = self.cursor.x, self.cursor.y
        for _ in range(n or 1):
            self.cursor.y = edge
            step()
        self.cursor.x, self.cursor.y = x, y

    def scroll_up(self, n=1, **_):
        self.scroll(n, (self.margins or pyte.screens.Margins(0, self.lines - 1)).bottom, self.index)

    def scroll_down(self, n=1, **_):
        self.scroll(n, (self.margins or pyte.screens.Margins(0, self.lines - 1)).top, self.reverse_index)


pyte.Stream.csi = dict(pyte.Stream.csi, S="scroll_up", T="scroll_down")
pyte.Stream.events = pyte.Stream.events | {"scroll_up", "scroll_down"}


def run(args):
    screen = Screen(args.columns, args.rows)
    stream = pyte.ByteStream(screen)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
        os.execvp(args.command[0], args.command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", args.rows, args.columns, 0, 0))
    keys = [k.encode("latin-1", "backslashreplace").decode("unicode_escape").encode() for k in args.keys]
    end, quiet = time.time() + args.wait, time.time()
    while time.time() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data:
                break
            stream.feed(data)
            quiet = time.time()
        elif keys and time.time() - quiet > 1:
            os.write(fd, keys.pop(0))
            quiet = time.time()
        elif not keys and args.keys and time.time() - quiet > 3:
            break
    os.kill(pid, signal.SIGKILL)
    os.close(fd)
    return screen


def draw(screen, out):
    w, h = 8.43, 19
    rows = [y for y in range(screen.lines) if any(screen.buffer[y][x].data.strip() or screen.buffer[y][x].reverse for x in range(screen.columns))]
    n = rows[-1] + 1 if rows else 1
    width, height = screen.columns * w + 32, n * h + 28
    out.write(f'<svg class="kt" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">\n{CSS}\n')
    out.write('<rect class="bg" x="0.5" y="0.5" width="99.9%" height="99.8%" rx="8"/>\n')
    for y in range(n):
        x = 0
        while x < screen.columns:
            c, start, text = screen.buffer[y][x], x, ""
            style = (c.fg, c.bold, c.reverse)
            while x < screen.columns and (screen.buffer[y][x].fg, screen.buffer[y][x].bold, screen.buffer[y][x].reverse) == style:
                text += screen.buffer[y][x].data
                x += 1
            if not text.strip() and not c.reverse:
                continue
            fill = f' style="fill:var(--k{NAMES[c.fg]})"' if c.fg in NAMES else ""
            weight = ' font-weight="700"' if c.bold else ""
            if c.reverse:
                out.write(f'<rect x="{16 + start * w:.1f}" y="{16 + y * h:.1f}" width="{(x - start) * w:.1f}" height="{h}" style="fill:currentColor;opacity:.2"/>\n')
            text = text.rstrip() if not c.reverse else text
            lead = len(text) - len(text.lstrip())
            out.write(f'<text x="{16 + (start + lead) * w:.1f}" y="{30 + y * h:.1f}" textLength="{len(text.strip()) * w:.1f}"{fill}{weight}>{escape(text.strip())}</text>\n' if text.strip() else "")
    out.write("</svg>\n")


parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("--columns", type=int, default=100)
parser.add_argument("--rows", type=int, default=30)
parser.add_argument("--wait", type=float, default=60)
parser.add_argument("--keys", action="append", default=[])
parser.add_argument("out")
parser.add_argument("command", nargs=argparse.REMAINDER)
args = parser.parse_args()
screen = run(args)
with open(args.out, "w", encoding="utf-8") as f:
    draw(screen, f)

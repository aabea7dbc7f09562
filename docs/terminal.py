"""Draw what a command prints as the picture of a terminal: python docs/terminal.py OUT.svg FROM -- COMMAND [ARGUMENT …]

The command is run, and its lines are drawn from the first that begins with FROM. Nothing is added to them but colour and the
breaks of long lines.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

COLUMNS = 100
CHARACTER, LINE, MARGIN, BAR = 8.4, 20, 18, 34  # pixels, at 14 px of a monospaced face
LIMIT = 120  # seconds

# What a line looks like by what it says: the first that is found wins.
LOOKS = {
    r"^\$ ": "said",
    r"^\d+\. ": "head",
    r"^\s+> ": "said",
    r"refused|unreachable|resting": "bad",
    r": answered$|answered by| ready ": "good",
    r"^$": "",
}
STYLE = """
  text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d6dbe1 }
  .head { fill: #ffffff; font-weight: bold } .said { fill: #8fc7ff } .good { fill: #7fd99a } .bad { fill: #ff9a8f }
  .name { fill: #8b949e; font-size: 12px }
""".strip("\n")


def printed(command: list[str], first: str) -> list[str]:
    """The command's lines, no wider than the terminal, from the first that begins with `first`. Raises where it fails."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    lines = run.stdout.rstrip().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(first))
    return [piece for line in lines[start:] for piece in broken(line)]


def broken(line: str) -> list[str]:
    indent = re.match(r"\s*", line)[0]  # type: ignore[index]
    return textwrap.wrap(line, COLUMNS, subsequent_indent=indent, drop_whitespace=False) or [""]


def drawn(title: str, lines: list[str]) -> str:
    """An SVG of the lines; each is as wide as its characters, whatever face the reader's machine has."""
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), BAR + LINE * len(lines) + MARGIN
    rows = [text(line, BAR + LINE * (place + 1) - 4) for place, line in enumerate(lines) if line.strip()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>',
            *(
                f'<circle cx="{20 + 18 * place}" cy="17" r="5.5" fill="{colour}"/>'
                for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            f'<text class="name" x="{width / 2}" y="21" text-anchor="middle">{escape(title)}</text>',
            *rows,
            "</svg>\n",
        ]
    )


def text(line: str, y: int) -> str:
    look = next((name for pattern, name in LOOKS.items() if re.search(pattern, line)), "")
    bare = line.lstrip()
    x, length = MARGIN + CHARACTER * (len(line) - len(bare)), CHARACTER * len(bare)
    name = f' class="{look}"' if look else ""
    return f'<text{name} x="{x:.1f}" y="{y}" textLength="{length:.1f}" xml:space="preserve">{escape(bare)}</text>'


def main() -> None:
    out, first, _, *command = sys.argv[1:]
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    Path(out).write_text(drawn(shown, [f"$ {shown}", "…", *printed(command, first)]), encoding="utf-8")


if __name__ == "__main__":
    main()

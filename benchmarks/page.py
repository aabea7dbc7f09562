"""docs/benchmarks.md, made of sections: each program of this folder renews its own and leaves the others as they are."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

__all__ = ["Claim", "claims", "machine", "renew", "table"]

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

# (claim, measured, "most" or "least", bound)
Claim = tuple[str, float, str, float]


def renew(section: str, text: str) -> None:
    """Put the text between the section's marks, which stand in the page."""
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    page = PAGE.read_text(encoding="utf-8")
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    assert found.search(page), f"{PAGE} has no section {section!r}"
    PAGE.write_text(found.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page), encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is words and the others figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|")


def claims(told: list[Claim], figure: Callable[[float], str] = "{:,.2f}".format) -> str:
    """What is wanted, what was measured, and whether it is kept."""
    lines = ["| | measured | wanted | |", "|---|--:|--:|---|"]
    for claim, measured, side, bound in told:
        kept = measured <= bound if side == "most" else measured >= bound
        lines.append(f"| {claim} | {figure(measured)} | at {side} {bound:g} | {'kept' if kept else 'MISSED'} |")
    return "\n".join(lines)


def machine() -> str:
    """On what it was measured."""
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"

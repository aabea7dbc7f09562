"""What a call costs through the Router and through others, side by side in one run; ratios are the result.

python benchmarks/throughput.py [--write] [--rounds N] [--only CLIENT …] [--python OTHER …]

Each client runs in a process of its own, all in turn, N rounds; the table has medians. OTHER: interpreters that have the peers
which this one lacks. The server has a core of its own where there are two, and so has each client. --write renews its section of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import page
from clients import CLIENTS
from measure import ABSENT, WINDOWS, Figures
from stub import stub

PACKAGES = ["aiohttp", "httpx", "httpx2", "openai", "langchain-openai", "pydantic-ai-slim", "any-llm-sdk", "litellm"]
COLUMNS = {
    "first": "first answer, CPU ms",
    "memory": "memory, MiB",
    "cpu1": "CPU µs a call",
    "rate1": "calls/s, one by one",
    "rate32": "32 at once",
    "rate128": "128 at once",
    "rate512": "512 at once",
    "chunk": "CPU µs a chunk",
    "stream": "KiB an open stream",
}
OURS, CORE, SYNC, STACK = "Router over aiohttp", "Router over httpcore", "Router, sync", "httpx + pydantic, sync"
# (claim, client, column, the client it is compared with or none, how, at most or at least, bound)
CLAIMS = [
    ("calls/s at 32, against httpx", OURS, "rate32", "httpx", "times", "least", 5.0),
    ("calls/s at 128, against httpx", OURS, "rate128", "httpx", "times", "least", 5.0),
    ("calls/s at 32, against litellm.Router", OURS, "rate32", "litellm.Router", "times", "least", 25.0),
    ("calls/s at 128, against litellm.Router", OURS, "rate128", "litellm.Router", "times", "least", 25.0),
    ("CPU a call, against httpx", OURS, "cpu1", "httpx", "times", "most", 0.6),
    ("CPU a call, sync, against httpx", SYNC, "cpu1", STACK, "times", "most", 1.15),
    ("CPU a call over httpcore, against httpx", CORE, "cpu1", "httpx", "times", "most", 1.15),
    ("CPU a call over httpcore at 32, against httpx", CORE, "cpu32", "httpx", "times", "most", 1.15),
    ("CPU µs a chunk", OURS, "chunk", None, "", "most", 25.0),
    ("CPU a chunk over httpcore, against httpx", CORE, "chunk", "httpx", "times", "most", 1.15),
    ("CPU to the first answer, sync, against httpx + pydantic", SYNC, "first", STACK, "times", "most", 1.3),
    ("memory, sync, MiB more than httpx + pydantic", SYNC, "memory", STACK, "more", "most", 8.0),
]

Found = dict[str, list[Figures]]


def run(name: str, urls: tuple[str, str], core: int, pythons: list[str]) -> Figures | None:
    """One client's figures, by the first interpreter that has its library; None where none has."""
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1] / "src")}
    for python in pythons:
        command = [python, "-W", "ignore", str(here.with_name("measure.py")), name, *urls, str(core)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == 0:
            figures: Figures = json.loads(done.stdout.splitlines()[-1])
            return figures
        if done.returncode != ABSENT:
            sys.exit(f"{name} failed:\n{done.stderr}")
    return None


def rounds(number: int, names: list[str], pythons: list[str]) -> Found:
    found: Found = {}
    cores = sorted(os.sched_getaffinity(0))
    servers, clients = (str(cores[0]), cores[1]) if len(cores) > 1 else ("", -1)
    with stub("quick", servers) as url, stub("hold", servers) as holding:
        for turn in range(number):
            for name in names:
                print(f"round {turn + 1}: {name}", file=sys.stderr)
                if (figures := run(name, (url, holding), clients, pythons)) is not None:
                    found.setdefault(name, []).append(figures)
    return found


def table(found: Found) -> str:
    rows = []
    for name, figures in found.items():
        medians = {column: statistics.median(one[column] for one in figures) for column in figures[0]}
        rows.append(
            [
                name,
                *(f"{medians[c]:,.{1 if c == 'chunk' else 0}f}" if c in medians and name_has(name, c) else "" for c in COLUMNS),
            ]
        )
    return page.table(["client", *COLUMNS.values()], rows)


def name_has(name: str, column: str) -> bool:
    """A face for threads asks one by one here."""
    return not (name.endswith("sync") and column in ("rate32", "rate128", "rate512", "stream"))


def measured(found: Found) -> list[page.Claim]:
    """The median over the rounds of what two clients' figures of the same round come to."""
    told: list[page.Claim] = []
    for claim, ours, column, other, how, side, bound in CLAIMS:
        if ours not in found or (other is not None and other not in found):
            continue
        figures = [row[column] for row in found[ours]]
        if other is not None:
            others = [row[column] for row in found[other]]
            figures = [a / b if how == "times" else a - b for a, b in zip(figures, others, strict=True)]
        told.append((claim, statistics.median(figures), side, bound))
    return told


def releases(pythons: list[str]) -> str:
    """What was compared: the release of each package, as each interpreter has it."""
    code = "import sys, importlib.metadata as m\nfor p in sys.argv[1:]:\n  try: print(p, m.version(p))\n  except Exception: pass"
    said = [subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, check=True) for python in pythons]
    return ", ".join(dict.fromkeys(line for one in said for line in one.stdout.splitlines()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CLIENTS))
    parser.add_argument("--python", nargs="*", default=[])
    given = parser.parse_args()
    pythons = [sys.executable, *given.python]
    before = os.getloadavg()[0]
    found = rounds(given.rounds, given.only, pythons)
    how = (
        f"Medians of {given.rounds} rounds, each client in a process and on a core of its own, one small server on another; of\n"
        f"each figure the best of {WINDOWS} moments, since whatever else a machine does only takes away\n"
        f"({page.machine()}; load {before:.1f} when it began). Ratios of the same round are the result, not figures.\n"
        f"{releases(pythons)}."
    )
    text = f"{table(found)}\n\n{how}\n\n{page.claims(measured(found))}"
    print(text)
    if given.write:
        page.renew("throughput", text)


if __name__ == "__main__":
    main()

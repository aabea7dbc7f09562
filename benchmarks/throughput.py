"""What a call costs through the Router and through others, side by side in one run; ratios are the result.

python benchmarks/throughput.py [--write] [--rounds N] [--only CLIENT …] [--python OTHER …]

Each client is a process of its own. They take turns of a moment each, and whose turn it is not is stopped: a machine's speed
changes within a minute, so that only figures of the same time can be held against each other. Each of N rounds starts them anew.
OTHER: interpreters that have the peers which this one lacks. The server has a core of its own where there are two, and the
clients share another. --write renews its section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import page
from clients import CLIENTS
from measure import ABSENT, Figures
from stub import stub

# What is measured: whole or streamed, how many at once, and how many moments of each client in a round. The most connections come
# last: httpx's pool looks at all that it has, however few are used.
TASKS = {
    "1": ("whole", 1, 5),
    "chunk": ("stream", 16, 5),
    "32": ("whole", 32, 5),
    "128": ("whole", 128, 5),
    "512": ("whole", 512, 1),
}
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

# Of each client its figures, by column, in the order of the moments.
Found = dict[str, dict[str, list[float]]]


class Client:
    """measure.py of one client, which runs in its turns only."""

    def __init__(self, name: str, python: str, urls: tuple[str, str], core: int) -> None:
        self.name = name
        here = Path(__file__)
        command = [python, "-W", "ignore", str(here.with_name("measure.py")), name, *urls, str(core)]
        environment = {**os.environ, "PYTHONPATH": str(here.parents[1] / "src")}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def first(self) -> Figures | None:
        """What its first answer took, and an open stream; None where its interpreter lacks its library."""
        return self._said()

    def turn(self, face: str, parallel: int) -> Figures:
        """A moment."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        print(face, parallel, file=self._process.stdin, flush=True)
        figures = self._said()
        assert figures is not None, f"{self.name} has ended"
        return figures

    def _said(self) -> Figures | None:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            self._process.send_signal(signal.SIGSTOP)
            figures: Figures = json.loads(line)
            return figures
        if self._process.wait() != ABSENT:
            sys.exit(f"{self.name} failed")
        return None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def rounds(number: int, names: list[str], pythons: list[str]) -> Found:
    found: Found = {}
    cores = sorted(os.sched_getaffinity(0))
    servers, core = (str(cores[0]), cores[1]) if len(cores) > 1 else ("", -1)
    with stub("quick", servers) as url, stub("hold", servers) as holding:
        for turn in range(number):
            with ExitStack() as stack:
                clients = []
                for name in names:
                    print(f"round {turn + 1}: {name}", file=sys.stderr)
                    if (client := start(name, (url, holding), core, pythons, found)) is not None:
                        stack.callback(client.end)
                        clients.append(client)
                for task, (_, _, moments) in TASKS.items():
                    print(f"round {turn + 1}: {task}", file=sys.stderr)
                    for client in clients * moments:
                        measure(client, task, found)
    return found


def start(name: str, urls: tuple[str, str], core: int, pythons: list[str], found: Found) -> Client | None:
    """By the first interpreter that has the client's library; None where none has."""
    for python in pythons:
        client = Client(name, python, urls, core)
        if (figures := client.first()) is not None:
            note(found, name, figures)
            return client
    return None


def measure(client: Client, task: str, found: Found) -> None:
    face, parallel, _ = TASKS[task]
    if client.name.endswith("sync") and parallel > 1:  # a face for threads asks one by one
        if face == "whole":
            return
        parallel = 1
    cpu, rate = (client.turn(face, parallel)[figure] for figure in ("cpu", "rate"))
    note(found, client.name, {"chunk": cpu} if face == "stream" else {f"cpu{task}": cpu, f"rate{task}": rate})


def note(found: Found, name: str, figures: Figures) -> None:
    for column, figure in figures.items():
        found.setdefault(name, {}).setdefault(column, []).append(figure)


def table(found: Found) -> str:
    rows = []
    for name, figures in found.items():
        medians = {column: statistics.median(several) for column, several in figures.items()}
        shown = [f"{medians[c]:,.{1 if c == 'chunk' else 0}f}" if c in medians else "" for c in COLUMNS]
        rows.append([name, *shown])
    return page.table(["client", *COLUMNS.values()], rows)


def measured(found: Found) -> list[page.Claim]:
    """The median of what two clients' figures of the same moment come to."""
    told: list[page.Claim] = []
    for claim, ours, column, other, how, side, bound in CLAIMS:
        if ours not in found or (other is not None and other not in found):
            continue
        figures = found[ours][column]
        if other is not None:
            others = found[other][column]
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CLIENTS))
    parser.add_argument("--python", nargs="*", default=[])
    given = parser.parse_args()
    pythons = [sys.executable, *given.python]
    before = os.getloadavg()[0]
    found = rounds(given.rounds, given.only, pythons)
    how = (
        f"Medians over {given.rounds} rounds of five moments for each figure, of one at 512; each client in a process of its\n"
        f"own, all on one core, one small server on another ({page.machine()}; load {before:.1f} when it began).\n"
        f"Ratios of the same moment are the result, not figures. {releases(pythons)}."
    )
    text = f"{table(found)}\n\n{how}\n\n{page.claims(measured(found))}"
    print(text)
    if given.write:
        page.renew("throughput", text)


if __name__ == "__main__":
    main()

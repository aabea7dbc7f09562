"""What a call costs through the Router and through others, side by side in one run; ratios are the result.

python benchmarks/throughput.py [--write] [--rounds N] [--python OTHER …]

Each client runs in a process of its own, all in turn, N rounds; the table has medians. OTHER: interpreters that have the peers
which this one lacks. --write renews docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients import CLIENTS
from stub import CHUNKS, stub

SECONDS = 1.0  # for each figure of each client in each round
ABSENT = 3  # exit status of an interpreter without the client's library
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ["aiohttp", "httpx", "httpx2", "openai", "langchain-openai", "pydantic-ai-slim", "litellm"]

Figures = dict[str, float]
COLUMNS = {
    "first": "first answer, CPU ms",
    "memory": "memory, MiB",
    "cpu": "CPU µs a call",
    "rate32": "calls/s, 32 at once",
    "rate128": "calls/s, 128 at once",
    "chunk": "CPU µs a chunk",
}
# (claim, client, column, the client it is divided by or none, bound, at most or at least)
CLAIMS: list[tuple[str, str, str, str | None, float, str]] = [
    ("calls/s at 32, against httpx", "Router over aiohttp", "rate32", "httpx", 5.0, "least"),
    ("calls/s at 128, against httpx", "Router over aiohttp", "rate128", "httpx", 5.0, "least"),
    ("calls/s at 32, against litellm.Router", "Router over aiohttp", "rate32", "litellm.Router", 25.0, "least"),
    ("CPU a call, against httpx", "Router over aiohttp", "cpu", "httpx", 0.6, "most"),
    ("CPU a call, sync, against httpx", "Router, sync", "cpu", "httpx + pydantic, sync", 1.15, "most"),
    ("CPU a call over httpcore, against httpx", "Router over httpcore", "cpu", "httpx", 1.15, "most"),
    ("CPU µs a chunk", "Router over aiohttp", "chunk", None, 25.0, "most"),
    ("CPU µs a chunk, sync", "Router, sync", "chunk", None, 25.0, "most"),
    ("CPU to the first answer, sync, against httpx + pydantic", "Router, sync", "first", "httpx + pydantic, sync", 1.3, "most"),
    ("memory, sync, against httpx + pydantic", "Router, sync", "memory", "httpx + pydantic, sync", 1.25, "most"),
]


# ---- in the client's process ------------------------------------------------------------------------------------


async def measure(name: str, url: str) -> Figures:
    client = CLIENTS[name](url)
    assert await result(client.whole()) == "x" * 400
    figures = {"first": time.process_time() * 1e3, "memory": resident()}
    assert (await result(client.stream())).startswith("token 0 token 1 ")
    gc.collect()
    figures["cpu"], _ = await busy(client.whole, 1)
    if inspect.iscoroutinefunction(client.whole):
        _, figures["rate32"] = await busy(client.whole, 32)
        _, figures["rate128"] = await busy(client.whole, 128)
    figures["chunk"] = (await busy(client.stream, 16 if "rate32" in figures else 1))[0] / CHUNKS
    return figures


async def busy(ask: Callable[[], Any], parallel: int) -> tuple[float, float]:
    """Microseconds of CPU per call and calls per second, connections made beforehand."""
    for _ in range(2):
        await asyncio.gather(*(result(ask()) for _ in range(parallel)))
    calls, began, cpu = 0, time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal calls
        while time.perf_counter() - began < SECONDS:
            await result(ask())
            calls += 1

    await asyncio.gather(*(caller() for _ in range(parallel)))
    return (time.process_time() - cpu) / calls * 1e6, calls / (time.perf_counter() - began)


async def result(given: Any) -> str:
    return await given if inspect.isawaitable(given) else given


def resident() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


# ---- in the runner ----------------------------------------------------------------------------------------------


def run(name: str, url: str, pythons: list[str]) -> Figures | None:
    """One client's figures, by the first interpreter that has its library; None where none has."""
    source = str(Path(__file__).parents[1] / "src")
    for python in pythons:
        command = [python, "-W", "ignore", __file__, "--client", name, "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source})
        if done.returncode == 0:
            figures: Figures = json.loads(done.stdout.splitlines()[-1])
            return figures
        if done.returncode != ABSENT:
            sys.exit(f"{name} failed:\n{done.stderr}")
    return None


def medians(rounds: list[Figures]) -> Figures:
    return {column: statistics.median(one[column] for one in rounds) for column in rounds[0]}


def table(found: dict[str, list[Figures]]) -> list[str]:
    lines = ["| client | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for name, rounds in found.items():
        figures = medians(rounds)
        cells = [f"{figures[column]:,.{1 if column == 'chunk' else 0}f}" if column in figures else "" for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def claims(found: dict[str, list[Figures]]) -> list[str]:
    lines = ["| the Router's | measured | wanted | |", "|---|--:|--:|---|"]
    for claim, ours, column, others, bound, side in CLAIMS:
        if ours not in found or (others is not None and others not in found):
            continue
        figures = [row[column] for row in found[ours]]
        if others is not None:
            figures = [figure / row[column] for figure, row in zip(figures, found[others], strict=True)]
        measured = statistics.median(figures)
        kept = measured <= bound if side == "most" else measured >= bound
        lines.append(f"| {claim} | {measured:.2f} | at {side} {bound:g} | {'kept' if kept else 'MISSED'} |")
    return lines


def releases(pythons: list[str]) -> str:
    """What was compared: the release of each package, as each interpreter has it."""
    code = "import sys, importlib.metadata as m\nfor p in sys.argv[1:]:\n  try: print(p, m.version(p))\n  except Exception: pass"
    said = [subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, check=True) for python in pythons]
    return ", ".join(dict.fromkeys(line for one in said for line in one.stdout.splitlines()))


def page(found: dict[str, list[Figures]], pythons: list[str]) -> str:
    rounds = len(next(iter(found.values())))
    how = (
        f"Medians of {rounds} rounds, each client in a process of its own against one small server on the same machine\n"
        f"({os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}). The machine was not idle: ratios "
        f"taken in the same round are the result, absolute figures are not.\n{releases(pythons)}."
    )
    return "\n".join([HEAD, *table(found), "", how, "", "## What is wanted of it", "", WANTED, *claims(found), "", TAIL])


HEAD = """# What a call costs

The Router stands in front of every call, so it must cost next to nothing. This page is written by `make bench-peers`.
"""

WANTED = """*Against* another: how many times as much, the median of each round's ratio.
"""

TAIL = """Where the package `aiohttp` is installed (`pip install 'hydra-infer[aiohttp]'`, 3.13.4 or newer), the async face of the
Router uses it; nothing else changes, and every fault of the test suite is run over both. Without it, and from threads, calls go
over httpcore.

- *first answer*: all the CPU that the process had used when it had its first answer, Python's own start included.
- *memory*: the most that the process had held by then.
- *a chunk*: one token of a streamed answer, read, checked and handed over; 16 streams at once, one where the client is sync.
- A whole answer comes through the Router by its desk, as `hydra-infer serve` asks. `Router.client()` puts a whole httpx client
  in front of that and costs about half as much again as httpx alone; it is meant for code that wants an httpx client.
- The others do less than the Router or more: httpx and aiohttp know one server, the openai package checks every field,
  LangChain, pydantic-ai and litellm have a fallback each.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", nargs="*", default=[])
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        try:
            print(json.dumps(asyncio.run(measure(given.client, given.url))), flush=True)
        except ModuleNotFoundError:
            os._exit(ABSENT)
        os._exit(0)  # peers that leave connections open would only tell of it
    pythons = [sys.executable, *given.python]
    found: dict[str, list[Figures]] = {}
    with stub() as url:
        for number in range(given.rounds):
            for name in CLIENTS:
                print(f"round {number + 1}: {name}", file=sys.stderr)
                if (figures := run(name, url, pythons)) is not None:
                    found.setdefault(name, []).append(figures)
    print("\n".join([*table(found), "", *claims(found)]))
    if given.write:
        PAGE.write_text(page(found, pythons))


if __name__ == "__main__":
    main()

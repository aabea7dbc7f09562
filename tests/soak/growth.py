"""What is left in memory of a hundred thousand calls, by each face; a process of its own for each.

python growth.py CLIENT URL CALLS     (a client of benchmarks/clients.py)
"""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from process import Holdings, holdings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from clients import CLIENTS
from stub import stub

FACES = ["Router over aiohttp", "Router over httpcore", "Router, sync"]
CALLS = 100_000
ROUNDS = 10  # the first is the warm-up; in each, event loops are new
PARALLEL = 16
ALLOWED_GROWTH = 1.05


def in_a_loop(ask: Any, calls: int) -> None:
    async def some() -> None:
        for _ in range(calls // PARALLEL):
            await ask()

    async def main() -> None:
        await asyncio.gather(*(some() for _ in range(PARALLEL)))

    asyncio.run(main())


def in_threads(ask: Any, calls: int) -> None:
    def some(_: int) -> None:
        for _ in range(calls // PARALLEL):
            ask()

    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(some, range(PARALLEL)))


def measure(name: str, url: str, calls: int) -> tuple[Holdings, Holdings]:
    """What the process holds after the first round, and after all."""
    ask = CLIENTS[name](url).whole
    call_some = in_a_loop if inspect.iscoroutinefunction(ask) else in_threads
    call_some(ask, calls // ROUNDS)
    warm = holdings()
    for _ in range(ROUNDS - 1):
        call_some(ask, calls // ROUNDS)
    return warm, holdings()


def run(calls: int = CALLS) -> tuple[list[str], bool]:
    """The report, and whether all is well."""
    report, well = [], True
    with stub() as url:
        for name in FACES:
            command = [sys.executable, "-W", "ignore", __file__, name, url, str(calls)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            *said, verdict = done.stdout.splitlines()
            report += said
            well = well and verdict == "well"
    return report, well


def main(name: str, url: str, calls: str) -> None:
    warm, end = measure(name, url, int(calls))
    growth = end.memory / warm.memory
    print(f"{name}, {int(calls):,} calls: memory grew {growth:.3f} times after the first {int(calls) // ROUNDS:,}")
    print(f"    then: {warm}")
    print(f"    end:  {end}")
    same = end.objects <= warm.objects * ALLOWED_GROWTH and end.threads <= warm.threads and end.files <= warm.files + 2
    print("well" if growth <= ALLOWED_GROWTH and same else "NOT WELL")


if __name__ == "__main__":
    main(*sys.argv[1:])

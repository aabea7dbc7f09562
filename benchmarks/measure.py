"""One client in a process of its own: python measure.py CLIENT URL HOLDING_URL CORE (or -1)

It prints what its first answer took, and then measures a moment whenever it is told to: a line "whole 32" on stdin (whole or
stream, and how many at once) is answered with a line of JSON. Exit status 3: this interpreter lacks the client's library.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients import CLIENTS
from stub import CHUNKS, open_many_files

SECONDS = 0.4  # a moment
OPEN = 400  # streams held open at once, for what one of them holds
ABSENT = 3

Figures = dict[str, float]


async def main(name: str, url: str, holding: str) -> None:
    client = CLIENTS[name](url)
    assert await result(client.whole()) == "x" * 400
    figures = {"first": time.process_time() * 1e3, "memory": most_resident()}
    assert (await result(client.stream())).startswith("token 0 token 1 ")
    if inspect.iscoroutinefunction(client.whole):  # before much has been asked: what was freed once would not be seen
        figures["stream"] = await held(CLIENTS[name](holding).stream)
    gc.collect()
    tell(figures)
    for line in sys.stdin:  # this stops the event loop, too: out of its turn a client does nothing
        face, parallel = line.split()
        tell(await moment(getattr(client, face), int(parallel), CHUNKS if face == "stream" else 1))


def tell(figures: Figures) -> None:
    print(json.dumps(figures), flush=True)


async def moment(ask: Callable[[], Any], parallel: int, pieces: int) -> Figures:
    """Microseconds of CPU a piece and pieces per second, connections made beforehand."""
    await asyncio.gather(*(result(ask()) for _ in range(parallel)))
    calls, began, cpu = 0, time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal calls
        while calls < parallel or time.perf_counter() - began < SECONDS:
            await result(ask())
            calls += 1

    await asyncio.gather(*(caller() for _ in range(parallel)))
    pieces *= calls
    return {"cpu": (time.process_time() - cpu) / pieces * 1e6, "rate": pieces / (time.perf_counter() - began)}


async def held(stream: Callable[[], Any]) -> float:
    """KiB that one open stream holds, after its first token: a good many, over what the process held before."""
    warm = asyncio.create_task(stream())
    await asyncio.sleep(0.3)
    gc.collect()
    before = resident()
    tasks = [asyncio.create_task(stream()) for _ in range(OPEN)]
    last = -1.0
    while (now := resident()) != last:  # until all are there
        last = now
        await asyncio.sleep(0.5)
    assert not any(task.done() for task in tasks), "a stream that should be held open has ended"
    for task in (warm, *tasks):
        task.cancel()
    await asyncio.wait((warm, *tasks))
    return (last - before) * 1024 / OPEN


async def result(given: Any) -> str:
    return await given if inspect.isawaitable(given) else given


def most_resident() -> float:
    """MiB, the most so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def resident() -> float:
    """MiB, now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    _, name, url, holding, core = sys.argv
    open_many_files()
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    try:
        asyncio.run(main(name, url, holding))
    except ModuleNotFoundError:
        os._exit(ABSENT)
    os._exit(0)  # peers that leave connections open would only tell of it

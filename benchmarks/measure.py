"""One client's figures, in a process of its own: python measure.py CLIENT URL HOLDING_URL CORE (or -1)

It prints them as JSON. Exit status 3: this interpreter lacks the client's library.
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

WINDOWS, SECONDS = 3, 0.4  # for each figure: the best of so many; what else a machine does only ever takes away
PARALLEL = (1, 32, 128, 512)
OPEN = 400  # streams held open at once, for what one of them holds
ABSENT = 3

Figures = dict[str, float]


async def measure(name: str, url: str, holding: str) -> Figures:
    client = CLIENTS[name](url)
    assert await result(client.whole()) == "x" * 400
    figures = {"first": time.process_time() * 1e3, "memory": most_resident()}
    assert (await result(client.stream())).startswith("token 0 token 1 ")
    in_loops = inspect.iscoroutinefunction(client.whole)
    if in_loops:  # before much has been asked: memory that was freed once would be used again, and not be seen
        figures["stream"] = await held(CLIENTS[name](holding).stream)
    gc.collect()
    for parallel in PARALLEL if in_loops else (1,):
        figures[f"cpu{parallel}"], figures[f"rate{parallel}"] = await best(client.whole, parallel)
    figures["chunk"] = (await best(client.stream, 16 if in_loops else 1))[0] / CHUNKS
    return figures


async def best(ask: Callable[[], Any], parallel: int) -> tuple[float, float]:
    """Microseconds of CPU per call and calls per second, connections made beforehand, each of the window that shows it best."""
    for _ in range(2):
        await asyncio.gather(*(result(ask()) for _ in range(parallel)))
    windows = [await window(ask, parallel) for _ in range(WINDOWS)]
    return min(cpu for cpu, _ in windows), max(rate for _, rate in windows)


async def window(ask: Callable[[], Any], parallel: int) -> tuple[float, float]:
    """The two figures of a moment."""
    calls, began, cpu = 0, time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal calls
        while calls < parallel or time.perf_counter() - began < SECONDS:
            await result(ask())
            calls += 1

    await asyncio.gather(*(caller() for _ in range(parallel)))
    return (time.process_time() - cpu) / calls * 1e6, calls / (time.perf_counter() - began)


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
        print(json.dumps(asyncio.run(measure(name, url, holding))), flush=True)
    except ModuleNotFoundError:
        os._exit(ABSENT)
    os._exit(0)  # peers that leave connections open would only tell of it

"""A thousand streams at once, for minutes, while servers fail in every way and are killed: each stream is held to its numbers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet import Fleet
from process import holdings, resident
from server import TOKENS, token

import hydra_infer as hydra

STREAMS = 1000
FAULTS = [0.0, 0.05, 0.15, 0.3]
KILL_EVERY = 3.0
WARM_UP = 0.25  # of the time: until then pools and buffers fill
ALLOWED_GROWTH = 1.05


@dataclass
class Tally:
    """What became of the calls, and what was wrong with any of them: `wrong` must stay empty."""

    ended: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    tokens: int = 0
    failovers: int = 0
    now: int = 0
    most: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def lines(self, killed: int, growth: float) -> Iterator[str]:
        yield f"{self.asked:,} streams asked for, {self.most:,} at once; {self.tokens:,} tokens; servers killed {killed} times"
        yield ", ".join(f"{count:,} {how}" for how, count in self.ended.most_common()) + f"; {self.failovers:,} failed over first"
        yield f"lost, doubled or mixed up: {len(self.wrong)}; memory at the end {growth:.3f} times what it was after the warm-up"


async def follow(router: hydra.Router, name: str, tally: Tally) -> None:
    """Read one stream; its tokens must be its own, each once, in order, and its end must be true."""
    tally.asked += 1
    text, number = "", 0
    tally.now += 1
    tally.most = max(tally.most, tally.now)
    try:
        async with await router.aio.stream("m", name) as stream:
            async for chunk in stream:
                if chunk.text:
                    if chunk.text != token(name, number):
                        tally.wrong.append(f"{name}: {chunk.text!r} came where {token(name, number)!r} was due")
                    text, number = text + chunk.text, number + 1
        if number != TOKENS:
            tally.wrong.append(f"{name}: ended well after {number} tokens")
        tally.failovers += len(stream.reply.attempts) > 1
        tally.ended["whole"] += 1
    except hydra.StreamBroken as error:
        if error.text != text:
            tally.wrong.append(f"{name}: the error has {len(error.text)} characters, {len(text)} came")
        tally.ended["broken off, and told so"] += 1
    except hydra.AllBackendsFailed:
        if text:
            tally.wrong.append(f"{name}: failed as if nothing had come, after {number} tokens")
        tally.ended["answered by nobody, and told so"] += 1
    finally:
        tally.now -= 1
        tally.tokens += number


async def watch_memory(tally: Tally, began: float) -> None:
    while True:
        tally.memory.append((time.monotonic() - began, resident()))
        await asyncio.sleep(1.0)


async def soak(router: hydra.Router, seconds: float, streams: int = STREAMS) -> Tally:
    tally, began = Tally(), time.monotonic()
    watching = asyncio.create_task(watch_memory(tally, began))

    async def caller(who: int) -> None:
        await asyncio.sleep(who * 0.005)  # they come one after the other, as callers do
        turn = 0
        while time.monotonic() - began < seconds:
            await follow(router, f"{who}-{turn}", tally)
            turn += 1

    await asyncio.gather(*(caller(who) for who in range(streams)))
    watching.cancel()
    return tally


def growth_of(memory: list[tuple[float, float]], seconds: float) -> float:
    """Memory at the end, times that after the warm-up: medians over a tenth of the time, all streams going in both."""

    def around(begin: float) -> float:
        return statistics.median(held for at, held in memory if begin <= at < begin + 0.1 * seconds)

    return around(0.9 * seconds) / around(WARM_UP * seconds)


def run(seconds: float) -> tuple[list[str], bool]:
    """The report, and whether all is well."""
    with Fleet(FAULTS, KILL_EVERY) as fleet:
        router = hydra.Router(
            [hydra.Backend.openai(url, models=["m"], name=str(number)) for number, url in enumerate(fleet.urls)],
            strategy="least-busy",
            connect_timeout=10.0,  # on a busy machine it is this process that is late
            first_token_timeout=5.0,
            idle_timeout=3.0,
            cooldown=2.0,
        )
        asyncio.run(soak(router, 1.0, streams=4))  # what is imported and cached at first use
        before = holdings()
        tally = asyncio.run(soak(router, seconds))
        after, killed = holdings(), fleet.killed.total()
    growth = growth_of(tally.memory, seconds)
    left = [place.in_flight for place in router._board.pool.places]
    router.close()
    lost = tally.asked - tally.ended.total()
    nothing_left = not any(left) and after.files <= before.files + 8 and after.objects <= before.objects * ALLOWED_GROWTH
    well = not tally.wrong and lost == 0 and growth <= ALLOWED_GROWTH and nothing_left
    report = [*tally.lines(killed, growth), f"calls without an end: {lost}; slots still taken: {sum(left)}"]
    return [*report, f"before: {before}", f"after:  {after}", *tally.wrong[:20]], well

"""One timer for many attempts: who is looked at, in which order, and how many timers that takes."""

from __future__ import annotations

import asyncio
import time

import pytest

from hydra_infer.transport.alarm import Alarm


class Attempt:
    """Ends when it is looked at in time; `moves` it goes on before that."""

    def __init__(self, name: str, seconds: float, alarm: Alarm, ended: asyncio.Queue[str], moves: int = 0) -> None:
        self.name, self.due, self._alarm, self._ended, self._moves = name, time.monotonic() + seconds, alarm, ended, moves
        alarm.add(self)

    def left(self) -> float:
        return self.due - time.monotonic()

    def look(self) -> None:
        if self.left() > 0:
            return
        if self._moves:
            self._moves -= 1
            self.due += 0.02
            return
        self._alarm.discard(self)
        self._ended.put_nowait(self.name)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every timer that is set from now on."""
    seconds: list[float] = []
    call_later = asyncio.BaseEventLoop.call_later

    def counted(self: asyncio.BaseEventLoop, delay: float, *rest: object, **options: object) -> asyncio.TimerHandle:
        seconds.append(delay)
        return call_later(self, delay, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", counted)
    return seconds


def test_each_ends_when_it_is_due_also_one_that_came_later_and_is_due_before() -> None:
    async def main() -> list[str]:
        alarm, ended = Alarm(), asyncio.Queue[str]()
        Attempt("last", 0.06, alarm, ended, moves=1)
        Attempt("second", 0.04, alarm, ended)
        Attempt("first", 0.02, alarm, ended)
        alarm.discard(Attempt("gone", 0.03, alarm, ended))
        return [await asyncio.wait_for(ended.get(), 30) for _ in range(3)]

    assert asyncio.run(main()) == ["first", "second", "last"]


def test_a_thousand_attempts_that_end_in_time_take_one_timer(timers: list[float]) -> None:
    async def main() -> None:
        alarm, ended = Alarm(), asyncio.Queue[str]()
        for _ in range(1000):
            attempt = Attempt("x", 600, alarm, ended)
            attempt.due += 60
            alarm.expect(attempt)
            alarm.discard(attempt)

    asyncio.run(main())
    assert len(timers) == 1


def test_a_due_that_is_drawn_nearer_is_kept_and_the_old_timer_rings_for_nobody(timers: list[float]) -> None:
    async def main() -> str:
        alarm, ended = Alarm(), asyncio.Queue[str]()
        attempt = Attempt("x", 0.05, alarm, ended)
        attempt.due -= 0.05
        alarm.expect(attempt)
        name = await asyncio.wait_for(ended.get(), 30)
        await asyncio.sleep(0.1)
        return name

    assert asyncio.run(main()) == "x"
    assert len([seconds for seconds in timers if seconds < 0.1]) == 2  # the longer ones are the test's own

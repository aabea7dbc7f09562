"""Job: one request in flight, written by a driver's thread and read from sync code or from any event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from ..errors import StreamBroken
from ..reply import Assembler, Timings, usage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..errors import HydraError
    from ..reply import Chunk

__all__ = ["Events", "Job", "State"]

State = Literal["running", "finished", "failed", "cancelled"]


class Job:
    """A request, the pieces of its answer as they come, and what they add up to (`answer`).

    The driver calls `put` for each OpenAI-shaped event and ends with `finish` or `fail`, from any thread; whatever it
    does after the end is ignored. One reader calls `take` or `take_async`, or iterates (sync or async) over the events.
    `on_cancel` is called once if the reader leaves before the end, `on_end` once in every case, both without any lock.
    `clock` gives seconds; pieces are timed when they arrive, not when they are read.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        *,
        on_cancel: Callable[[Job], None] | None = None,
        on_end: Callable[[Job], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.request = dict(request)
        self.answer = Assembler()
        self.error: HydraError | None = None
        self._state: State = "running"
        self._on_cancel, self._on_end, self._clock = on_cancel, on_end, clock
        # A Condition's default lock may be taken again by its holder: a reader's __del__ runs wherever Python likes.
        self._news = threading.Condition()
        self._chunks: deque[Chunk] = deque()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._started = clock()
        self._first: float | None = None
        self._ended: float | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def ended(self) -> bool:
        """Whether nothing more will come (pieces not yet read may still be there)."""
        return self._state != "running"

    @property
    def timings(self) -> Timings:
        """Seconds from the request to the first token and to the end, and tokens per second after the first token."""
        ttft = None if self._first is None else self._first - self._started
        total = None if self._ended is None else self._ended - self._started
        tokens = usage_of(self.answer.body()).completion_tokens
        decode_tps = None
        if tokens and tokens > 1 and self._first is not None and self._ended is not None and self._ended > self._first:
            decode_tps = (tokens - 1) / (self._ended - self._first)
        return Timings(ttft=ttft, total=total, decode_tps=decode_tps)

    # ---- the driver's side

    def put(self, event: dict[str, Any]) -> None:
        """Hand over one event."""
        with self._news:
            if self.ended:
                return
            chunk = self.answer.add(event)
            if self._first is None and (chunk.text or chunk.reasoning or chunk.tool_calls):
                self._first = self._clock()
            self._chunks.append(chunk)
            waiter = self._rouse()
        self._wake(waiter)

    def finish(self) -> None:
        """The answer is complete."""
        self._end("finished")

    def fail(self, error: HydraError) -> None:
        """The answer ends here with `error`; a StreamBroken is given the text that had come."""
        self._end("failed", error)

    # ---- the reader's side

    def take(self, timeout: float | None = None) -> Chunk | None:
        """The next piece, waiting for it; None at the end or after `cancel`. Raises the job's error when it failed.

        After `timeout` seconds without a piece raises TimeoutError; the job goes on.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._chunks or self.ended, timeout):
                raise TimeoutError(f"no piece within {timeout} s")
            return self._next()

    async def take_async(self) -> Chunk | None:
        """The same on an event loop, which is not blocked."""
        while True:
            with self._news:
                if self._chunks or self.ended:
                    return self._next()
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiter = (loop, future)
            await future

    def cancel(self) -> None:
        """Leave: the driver stops working on it, unread pieces are dropped. Does nothing after the end."""
        if self._end("cancelled") and self._on_cancel is not None:
            self._on_cancel(self)

    close = cancel

    def __iter__(self) -> Events:
        return Events(self)

    def __aiter__(self) -> Events:
        return Events(self)

    def _next(self) -> Chunk | None:
        if self._chunks:
            return self._chunks.popleft()
        if self.error is not None:
            raise self.error
        return None

    def _end(self, state: State, error: HydraError | None = None) -> bool:
        with self._news:
            if self.ended:
                return False
            self._ended = self._clock()
            if isinstance(error, StreamBroken) and not error.text:
                error.text = self.answer.text
            self.error = error
            self._state = state
            if state == "cancelled":
                self._chunks.clear()
            waiter = self._rouse()
        self._wake(waiter)
        if self._on_end is not None:
            self._on_end(self)
        return True

    def _rouse(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None:
        self._news.notify_all()
        waiter, self._waiter = self._waiter, None
        return waiter

    def _wake(self, waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None) -> None:
        if waiter is None:
            return
        loop, future = waiter
        try:
            loop.call_soon_threadsafe(_settle, future)
        except RuntimeError:
            # The reader's loop has been closed under it: nobody is left to read.
            self.cancel()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Events:
    """Iterates over a job's events, sync or async; dropping it before the end cancels the job."""

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        chunk = self._job.take()
        if chunk is None:
            raise StopIteration
        return chunk.raw

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> dict[str, Any]:
        chunk = await self._job.take_async()
        if chunk is None:
            raise StopAsyncIteration
        return chunk.raw

    def close(self) -> None:
        """Leave; the job is cancelled unless it has ended."""
        self._job.cancel()

    def __del__(self) -> None:
        self._job.cancel()

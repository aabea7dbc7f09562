"""An answer on its way: events as they come, and the flow that is told how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ..reply import usage_of
from ..routing.call import Attempt, Ended, Outcome
from ..routing.flow import Flow
from ..wire.exchange import Event, Exchange
from ..wire.trouble import Failure
from .looks import hushed
from .upstream import AsyncResponse, LineFailed, Response
from .watch import Watch

__all__ = ["Answer", "AsyncAnswer", "Told"]


class Told:
    """What both kinds of answer know: who answers, who was asked before, how long the first token took."""

    def __init__(self, exchange: Exchange, watch: Watch, events: list[Event], attempt: Attempt, *, ended: bool) -> None:
        self.backend, self.model, self._row = attempt.backend.name, attempt.model, attempt.backend
        self.outcomes: tuple[Outcome, ...] = ()
        self.failure: Failure | None = None
        self.flow: Flow | None = None
        self._exchange, self._watch = exchange, watch
        self._ready = deque(events)
        self._over = False
        self._ended = ended  # the body has been read to its end
        self._counts: Mapping[str, Any] = {}  # the last event that told some
        self._count(events)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the dialect has to say of this answer; all of it is known when the answer is over."""
        return self._exchange.warnings

    @property
    def upstream(self) -> dict[str, Any] | None:
        """What a proxy told of the server behind it."""
        return self._exchange.upstream

    @property
    def ttft(self) -> float | None:
        """Seconds from asking this backend to its first token."""
        return None if self._watch.first_token is None else self._watch.first_token - self._watch.began

    def ready(self) -> Event | None:
        """The next event, if it is here already: one read brings many where a server is quick."""
        return self._ready.popleft() if self._ready else None

    def _take(self, events: list[Event]) -> None:
        self._ready.extend(events)
        tokens = self._count(events)
        if self._exchange.finished:
            self._watch.drain()
        elif tokens:
            self._watch.token()

    def _count(self, events: list[Event]) -> bool:
        """Note the token counts that came; tells whether tokens did."""
        tokens = False
        for event in events:
            tokens = tokens or event.tokens
            if event.data.get("usage"):
                self._counts = event.data
        return tokens

    def _finish(self, failure: Failure | None, *, left: bool = False) -> None:
        """Tell the flow, once; it releases the reservation."""
        self._over = True
        self.failure = failure = None if failure is None else hushed(failure, self._row)
        flow, self.flow = self.flow, None
        if flow is not None:
            cost = (self.upstream or {}).get("cost")
            try:
                flow.send(Ended(failure, left, self.ttft, self._watch.since(), usage_of(self._counts), cost))
            except StopIteration:
                return
            flow.close()


class Answer(Told):
    """An iterator of events for threads. When it stops, `failure` tells whether the answer was whole. Close it to leave early."""

    def __init__(
        self,
        exchange: Exchange,
        watch: Watch,
        events: list[Event],
        attempt: Attempt,
        response: Response,
        *,
        ended: bool,
    ) -> None:
        super().__init__(exchange, watch, events, attempt, ended=ended)
        self._response = response

    def __iter__(self) -> Answer:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            if self._over:
                raise StopIteration
            self._pull()
        return self._ready.popleft()

    def close(self) -> None:
        """Stop the server's work and release its slot; harmless when the answer is over."""
        if not self._over:
            self._response.close()
            self._finish(None, left=True)

    def __del__(self) -> None:
        self.close()

    def _pull(self) -> None:
        exchange = self._exchange
        if self._ended:
            self._end(exchange.failure)
            return
        try:
            data = self._response.read()
            self._take(exchange.feed(data) if data else exchange.end())
        except LineFailed as error:
            self._end(None if exchange.finished else error.failure)
            return
        except BaseException:
            self.close()
            raise
        if exchange.failure or not data:
            self._end(exchange.failure)

    def _end(self, failure: Failure | None) -> None:
        self._response.close()
        self._finish(failure)


class AsyncAnswer(Told):
    """The same for event loops."""

    def __init__(
        self,
        exchange: Exchange,
        watch: Watch,
        events: list[Event],
        attempt: Attempt,
        response: AsyncResponse,
        *,
        ended: bool,
    ) -> None:
        super().__init__(exchange, watch, events, attempt, ended=ended)
        self._response = response
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncAnswer:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._pull()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop the server's work and release its slot; harmless when the answer is over."""
        if not self._over:
            self._finish(None, left=True)
            await self._response.aclose()

    def __del__(self) -> None:
        # Nobody can await here: the loop is asked to, and if it is gone, so is its connection.
        if not self._over:
            self._finish(None, left=True)
            self._watch.stop()
            if not self._loop.is_closed():
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_close_later, self._loop, self._response.aclose)

    async def _pull(self) -> None:
        exchange = self._exchange
        if self._ended:
            await self._end(exchange.failure)
            return
        try:
            data = await self._response.read()
            self._take(exchange.feed(data) if data else exchange.end())
        except LineFailed as error:
            await self._end(None if exchange.finished else error.failure)
            return
        except BaseException:
            await self.aclose()
            raise
        if exchange.failure or not data:
            await self._end(exchange.failure)

    async def _end(self, failure: Failure | None) -> None:
        self._finish(failure)
        await self._response.aclose()


def _close_later(loop: asyncio.AbstractEventLoop, close: Callable[[], Coroutine[None, None, None]]) -> None:
    task = loop.create_task(close())
    _closing.add(task)  # an event loop keeps only weak references to its tasks
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()

"""A routed answer as chunks to iterate over and a Reply at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self

from ..errors import DeadlineExceeded, HydraError, StreamBroken
from ..reply import Assembler, Chunk, Reply, Timings, usage_of
from ..wire.exchange import Event
from ..wire.trouble import Failure
from .answer import Answer, AsyncAnswer, Told

__all__ = ["AsyncStream", "OpeningStream", "Stream"]

Clock = Callable[[], float]


class _Reading:
    """What both streams do with events: put the reply together and tell a whole answer from a broken one."""

    def __init__(self, told: Told, began: float, warnings: tuple[str, ...], asked: str, clock: Clock) -> None:
        self._told, self._began, self._clock = told, began, clock
        self._assembler = Assembler()
        self._first: float | None = None
        self._last = began
        self._reply: Reply | None = None
        substitute = (f"answered by {told.model!r} instead of {asked!r}",) if told.model != asked else ()
        self._warnings = (*warnings, *substitute)

    @property
    def backend(self) -> str:
        """Who answers."""
        return self._told.backend

    @property
    def text(self) -> str:
        """The text so far."""
        return self._assembler.text

    @property
    def reply(self) -> Reply:
        """The whole answer, once the stream has been read to its end; before that, what has arrived so far."""
        return self._reply or self._assemble()

    def _read(self, event: Event) -> Chunk | None:
        """The chunk in an event; None for one that carries nothing for a reader (role, token counts)."""
        if event.tokens:
            self._last = self._clock()
            self._first = self._first or self._last
        if event.whole:
            self._assembler.whole(event.data)
            return Chunk(text=self._assembler.text, reasoning=self._assembler.reasoning, raw=event.data)
        chunk = self._assembler.add(event.data)
        return chunk if event.tokens else None

    def _end(self) -> None:
        """The events are over: keep the reply, or raise what broke it."""
        self._reply = self._assemble()
        if (failure := self._told.failure) is not None:
            raise self._error(failure)  # kept in no variable: an error and a frame that hold each other wait for the collector

    def _error(self, failure: Failure) -> HydraError:
        story = f"{self._told.backend} broke off after {len(self.text)} characters: {failure.message}"
        if failure.limit == "deadline":
            return DeadlineExceeded(
                story,
                hint="error.text has what arrived; allow more time with deadline=…",
                text=self.text,
                attempts=self._told.outcomes,
            )
        return StreamBroken(story, hint="error.text has what arrived", backend=self._told.backend, text=self.text)

    def _assemble(self) -> Reply:
        return self._assembler.reply(
            model=self._told.model,
            timings=self._timings(),
            backend=self._told.backend,
            attempts=self._told.outcomes,
            warnings=(*self._warnings, *self._told.warnings),
            upstream=self._told.upstream,
        )

    def _timings(self) -> Timings:
        usage = usage_of(self._assembler.body())
        tokens, spent = usage.completion_tokens, self._last - (self._first or self._last)
        return Timings(
            ttft=None if self._first is None else round(self._first - self._began, 6),
            total=round(self._last - self._began, 6),
            decode_tps=round((tokens - 1) / spent, 2) if tokens and tokens > 1 and spent > 0 else None,
        )


class Stream(_Reading):
    """Iterate it for Chunks; `text` so far, `reply` at the end. Leaving early (close, `with`, del) cancels the server's work.

    Raises StreamBroken (with `.text` and `.backend`) when the server breaks off, DeadlineExceeded when time is up.
    """

    def __init__(
        self, answer: Answer, began: float, warnings: tuple[str, ...], asked: str, clock: Clock = time.monotonic
    ) -> None:
        super().__init__(answer, began, warnings, asked, clock)
        self._answer = answer

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        for event in self._answer:
            if (chunk := self._read(event)) is not None:
                return chunk
        if self._reply is None:
            self._end()
        raise StopIteration

    def close(self) -> None:
        """Stop here."""
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncStream(_Reading):
    """The same for event loops: `async for`, `async with`, `aclose()`."""

    def __init__(
        self, answer: AsyncAnswer, began: float, warnings: tuple[str, ...], asked: str, clock: Clock = time.monotonic
    ) -> None:
        super().__init__(answer, began, warnings, asked, clock)
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        while (event := self._answer.ready() or await anext(self._answer, None)) is not None:
            if (chunk := self._read(event)) is not None:
                return chunk
        if self._reply is None:
            self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop here."""
        await self._answer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


class OpeningStream:
    """An AsyncStream that opens when it is used: `async with`, `async for`, or `await` it for the AsyncStream itself."""

    def __init__(self, opening: Callable[[], Awaitable[AsyncStream]]) -> None:
        self._opening = opening
        self._stream: AsyncStream | None = None

    def __await__(self) -> Generator[Any, None, AsyncStream]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStream:
        return await self._open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        return await anext(await self._open())

    async def _open(self) -> AsyncStream:
        self._stream = self._stream or await self._opening()
        return self._stream

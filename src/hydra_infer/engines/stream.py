"""Stream and AsyncStream: an answer read piece by piece, with what has come so far and the Reply at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ..errors import HydraError
from ..plain import grow

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..reply import Chunk, Reply
    from .job import Job

__all__ = ["AsyncStream", "Stream"]


class _Reading:
    """What both streams share. Dropping one before its end cancels the job, as leaving its `with` block does."""

    __slots__ = ("_job", "_reply_of", "_said")

    def __init__(self, job: Job, reply_of: Callable[[Job], Reply]) -> None:
        self._job, self._reply_of = job, reply_of
        self._said = {"text": ""}

    @property
    def text(self) -> str:
        """What has been read so far."""
        return self._said["text"]

    @property
    def reply(self) -> Reply:
        """The whole answer; of a stream that was left early, as much as there was. Raises HydraError before the end."""
        if not self._job.ended:
            raise HydraError("the answer is still coming", hint="read the stream to its end, or close it, before .reply")
        if self._job.error is not None:
            raise self._job.error
        return self._reply_of(self._job)

    def _read(self, chunk: Chunk) -> Chunk:
        grow(self._said, "text", chunk.text)
        return chunk

    def __del__(self) -> None:
        self._job.cancel()


class Stream(_Reading):
    """Iterable of Chunk; `text` is what has been read so far. A broken answer raises StreamBroken with the text."""

    __slots__ = ()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        chunk = self._job.take()
        if chunk is None:
            raise StopIteration
        return self._read(chunk)

    def close(self) -> None:
        """Leave; the engine stops generating unless it has ended."""
        self._job.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncStream(_Reading):
    """The same with `async for` and `async with`; the event loop is never blocked."""

    __slots__ = ()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await self._job.take_async()
        if chunk is None:
            raise StopAsyncIteration
        return self._read(chunk)

    async def close(self) -> None:
        """Leave; the engine stops generating unless it has ended."""
        self._job.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._job.cancel()

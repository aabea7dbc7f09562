"""AsyncEngine: the face of an engine with await. It blocks no event loop, and starts no thread but to close."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from ..errors import HydraError
from .job import Job
from .progress import reporting
from .stream import AsyncStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from ..reply import Embeddings, Reply
    from .core import Core
    from .driver import EngineInfo, Memory
    from .load_report import LoadReport
    from .progress import Progress
    from .request import Messages

__all__ = ["AsyncEngine"]


class AsyncEngine:
    """Made by `engine.aio`; every method means what Engine's does. Cancelling an awaiting task cancels its request."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def info(self) -> EngineInfo:
        return self._core.info

    @property
    def load_report(self) -> LoadReport | None:
        return self._core.load_report

    async def chat(self, messages: Messages, **options: Any) -> Reply:
        return await self._whole(self._core.chat(messages, options))

    def stream(self, messages: Messages, **options: Any) -> AsyncStream:
        return AsyncStream(self._core.chat(messages, options), self._core.reply)

    async def generate(self, prompt: str, max_tokens: int | None = None, **options: Any) -> Reply:
        return await self._whole(self._core.complete(prompt, max_tokens, options))

    async def batch(self, prompts: Iterable[Messages], *, progress: Progress = None, **options: Any) -> list[Reply | HydraError]:
        jobs = self._core.batch(prompts, options)
        answers: list[Reply | HydraError] = []
        try:
            with reporting(progress) as report:
                for job in jobs:
                    answers.append(await self._settled(job))
                    report(len(answers) / len(jobs), f"{len(answers)} of {len(jobs)}")
        finally:
            for job in jobs:
                if isinstance(job, Job):
                    job.cancel()
        return answers

    async def embed(self, texts: str | Sequence[str]) -> Embeddings:
        return await asyncio.wrap_future(self._core.embed(texts))

    async def tokenize(self, text: str) -> list[int]:
        return await asyncio.wrap_future(self._core.tokenize(text))

    async def detokenize(self, ids: Sequence[int]) -> str:
        return await asyncio.wrap_future(self._core.detokenize(ids))

    async def stats(self) -> dict[str, Any]:
        return self._core.stats()

    async def memory(self) -> Memory:
        return self._core.memory()

    async def reload(self) -> None:
        await asyncio.wrap_future(self._core.reload())

    async def close(self) -> None:
        # It waits for a process or a thread to end, which the loop must not.
        await asyncio.to_thread(self._core.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _whole(self, job: Job) -> Reply:
        try:
            while await job.take_async() is not None:
                pass
        finally:
            job.cancel()
        return self._core.reply(job)

    async def _settled(self, job: Job | HydraError) -> Reply | HydraError:
        if not isinstance(job, Job):
            return job
        try:
            return await self._whole(job)
        except HydraError as error:
            return error

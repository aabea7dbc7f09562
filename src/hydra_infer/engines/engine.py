"""Engine: a loaded model to talk to, whatever runs it; `engine.aio` is the same engine with await."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from ..errors import HydraError
from .core import Core
from .job import Job
from .progress import reporting
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from ..reply import Embeddings, Reply
    from .aio import AsyncEngine
    from .driver import Driver, EngineInfo, Memory
    from .load_report import LoadReport
    from .progress import Progress
    from .request import Messages

__all__ = ["Engine"]


class Engine:
    """A model that answers. Made by `hydra_infer.load`; close it, or use it as a context manager.

    Safe from many threads and event loops at once. `clock` gives the seconds that replies are timed with.
    """

    def __init__(
        self, driver: Driver, *, load_report: LoadReport | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._core = Core(driver, load_report, clock=clock)

    @property
    def info(self) -> EngineInfo:
        """What is loaded: engine, model, context, slots, format."""
        return self._core.info

    @property
    def load_report(self) -> LoadReport | None:
        """What loading took on each device, beside what was predicted; None where nothing was loaded ("echo")."""
        return self._core.load_report

    @property
    def aio(self) -> AsyncEngine:
        """The same engine with await."""
        from .aio import AsyncEngine

        return AsyncEngine(self._core)

    def chat(self, messages: Messages, **options: Any) -> Reply:
        """The answer to a text or a list of messages, by the model's chat template.

        Options are OpenAI's request fields and the engine's own samplers. Raises ConfigError for an option that does
        not exist, ContextTooLong, StreamBroken (with the text so far) and LoadError when the engine is closed or dead.
        """
        return self._whole(self._core.chat(messages, options))

    def stream(self, messages: Messages, **options: Any) -> Stream:
        """The same answer piece by piece; leaving early stops the engine's work on it."""
        return Stream(self._core.chat(messages, options), self._core.reply)

    def generate(self, prompt: str, max_tokens: int | None = None, **options: Any) -> Reply:
        """How the model goes on from `prompt`, taken verbatim: no chat template."""
        return self._whole(self._core.complete(prompt, max_tokens, options))

    def batch(self, prompts: Iterable[Messages], *, progress: Progress = None, **options: Any) -> list[Reply | HydraError]:
        """`chat` for each prompt, as many at once as there are slots. The order is kept; an error stands in its place."""
        jobs = self._core.batch(prompts, options)
        answers: list[Reply | HydraError] = []
        try:
            with reporting(progress) as report:
                for job in jobs:
                    answers.append(self._settled(job))
                    report(len(answers) / len(jobs), f"{len(answers)} of {len(jobs)}")
        finally:
            for job in jobs:
                if isinstance(job, Job):
                    job.cancel()
        return answers

    def submit(self, request: Mapping[str, Any]) -> Job:
        """An OpenAI-shaped request ("messages": chat; "prompt": completion) as a Job to read the events from.

        The request's other fields are not judged. The last event has the usage. Raises ConfigError or LoadError.
        """
        return self._core.submit(request)

    def embed(self, texts: str | Sequence[str]) -> Embeddings:
        """One vector for each text. Raises ContextTooLong for a text that is too long."""
        return self._core.embed(texts).result()

    def tokenize(self, text: str) -> list[int]:
        """The model's token ids for `text`, without a beginning-of-sequence token."""
        return self._core.tokenize(text).result()

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self._core.detokenize(ids).result()

    def stats(self) -> dict[str, Any]:
        """Counts since loading, and the driver's own facts, as plain data.

        in_flight, finished, failed and cancelled are requests; prompt_tokens and completion_tokens are those that the
        engine reported.
        """
        return self._core.stats()

    def memory(self) -> Memory:
        """Bytes in use now, in system memory and on each card."""
        return self._core.memory()

    def reload(self) -> None:
        """Load the model again after a fault took it down; nothing happens where it is loaded. Raises what loading raises."""
        self._core.reload().result()

    def close(self) -> None:
        """Free everything; what is in flight fails with LoadError. A second call does nothing."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        state = "closed" if self._core.closed else f"context {info.context}, slots {info.slots}"
        return f"<Engine {info.model} by {info.name}: {state}>"

    def _whole(self, job: Job) -> Reply:
        try:
            while job.take() is not None:
                pass
        finally:
            job.cancel()  # only an interrupted reader leaves anything to cancel
        return self._core.reply(job)

    def _settled(self, job: Job | HydraError) -> Reply | HydraError:
        if not isinstance(job, Job):
            return job
        try:
            return self._whole(job)
        except HydraError as error:
            return error

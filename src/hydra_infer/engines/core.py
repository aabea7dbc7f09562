"""Core: what the two faces of an engine share: its driver, the jobs that go to it, and their counts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, HydraError, LoadError
from ..reply import usage_of
from .job import Job
from .request import chat_request, check_kind, completion_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from ..reply import Embeddings, Reply
    from .driver import Driver, EngineInfo, Memory
    from .load_report import LoadReport
    from .request import Messages

__all__ = ["Core"]

COUNTS = ("in_flight", "finished", "failed", "cancelled", "prompt_tokens", "completion_tokens")


class Core:
    """Starts things and never waits for them: jobs are read, and futures awaited, by the faces."""

    def __init__(
        self, driver: Driver, load_report: LoadReport | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._driver, self.load_report, self._clock = driver, load_report, clock
        # Reentrant: a dropped stream may end its job, and count it, wherever Python collects it.
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self.closed = False

    @property
    def info(self) -> EngineInfo:
        return self._driver.info

    def chat(self, messages: Messages, options: Mapping[str, Any]) -> Job:
        return self.submit(chat_request(messages, options, self._driver.options))

    def complete(self, prompt: str, max_tokens: int | None, options: Mapping[str, Any]) -> Job:
        limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        return self.submit(completion_request(prompt, {**limit, **options}, self._driver.options))

    def batch(self, prompts: Iterable[Messages], options: Mapping[str, Any]) -> list[Job | HydraError]:
        """A job for each prompt, or the error that it met on the way in."""
        self._check_open()
        chat_request("", options, self._driver.options)  # a wrong option is one error, not one in each place
        jobs: list[Job | HydraError] = []
        for prompt in prompts:
            try:
                jobs.append(self.chat(prompt, options))
            except HydraError as error:
                jobs.append(error)
        return jobs

    def submit(self, request: Mapping[str, Any]) -> Job:
        check_kind(request)
        self._check_open()
        job = Job(request, on_cancel=self._driver.cancel, on_end=self._count, clock=self._clock)
        with self._lock:
            self._counts["in_flight"] += 1
        try:
            self._driver.submit(job)
        except HydraError as error:
            job.fail(error)
            raise
        return job

    def reply(self, job: Job) -> Reply:
        """What a job came to."""
        return job.answer.reply(model=self.info.model, timings=job.timings, backend=self.info.name)

    def embed(self, texts: str | Sequence[str]) -> Future[Embeddings]:
        self._check_open()
        asked = [texts] if isinstance(texts, str) else list(texts)
        if not asked or not all(isinstance(text, str) and text for text in asked):
            raise ConfigError(f"{texts!r:.80} is no text to embed", hint="give a text or a list of texts, none of them empty")
        return self._driver.embed(asked)

    def tokenize(self, text: str) -> Future[list[int]]:
        self._check_open()
        return self._driver.tokenize(text)

    def detokenize(self, ids: Sequence[int]) -> Future[str]:
        self._check_open()
        return self._driver.detokenize(list(ids))

    def stats(self) -> dict[str, Any]:
        with self._lock:
            counts = {name: self._counts[name] for name in COUNTS}
        return {**counts, **self._driver.stats()}

    def memory(self) -> Memory:
        self._check_open()
        return self._driver.memory()

    def reload(self) -> Future[None]:
        self._check_open()
        return self._driver.reload()

    def close(self) -> None:
        with self._lock:
            already, self.closed = self.closed, True
        if not already:
            self._driver.close()

    def _check_open(self) -> None:
        if self.closed:
            raise LoadError(f"the engine of {self.info.model} is closed", hint="load the model again")

    def _count(self, job: Job) -> None:
        usage = usage_of(job.answer.body())
        with self._lock:
            self._counts["in_flight"] -= 1
            self._counts[job.state] += 1
            self._counts["prompt_tokens"] += usage.prompt_tokens or 0
            self._counts["completion_tokens"] += usage.completion_tokens or 0

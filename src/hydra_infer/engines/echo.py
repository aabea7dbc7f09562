"""Echo: the engine without a model. It says back what it was told, or what a script says; for tests and first steps."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ContextTooLong, HydraError
from ..reply import Embeddings, Usage
from ..units import parse_tokens
from .driver import EngineInfo, Memory
from .engine import Engine
from .request import OPENAI
from .speech import Answer, Spoken, Vocabulary, last_words, prompt_words, speak, vector, words
from .thread import EngineThread

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .job import Job

__all__ = ["EchoDriver", "EchoStepper", "echo"]


def echo(
    *,
    script: Iterable[Answer] | None = None,
    delay: float = 0.0,
    ttft: float = 0.0,
    context: int = 8192,
    slots: int = 1,
    model: str = "echo",
    dimensions: int = 64,
) -> Engine:
    """An Engine that needs no model, no card and no package.

    It answers a chat with the last user message, a completion with its prompt, word by word. With `script` it gives the
    script's answers in order and fails a request for which none is left; an answer is a text, an assistant's message
    (with tool_calls, say), a HydraError, or a tuple of texts that come as they are and perhaps, last, an error.

    `ttft` seconds pass before the first word, `delay` before each other. A token is a word with the space before it.
    max_tokens and stop are honoured, the other OpenAI options are accepted without effect. Embeddings have
    `dimensions` numbers that depend on the text alone and mean nothing.
    """
    if delay < 0 or ttft < 0:
        raise ConfigError(f"delay={delay}, ttft={ttft}: a time cannot be negative", hint="give seconds")
    if slots < 1 or dimensions < 1:
        raise ConfigError(f"slots={slots}, dimensions={dimensions}: each must be at least 1")
    info = EngineInfo("echo", model, parse_tokens(context), slots, format="none", cache="none")
    answers = None if script is None else iter(tuple(script))
    return Engine(EchoDriver(EchoStepper(info, answers, delay=delay, ttft=ttft), dimensions=dimensions))


class EchoDriver:
    """Stands behind Engine as an engine with a card would: everything happens on one EngineThread."""

    options = OPENAI

    def __init__(self, stepper: EchoStepper, *, dimensions: int = 64) -> None:
        self.info = stepper.info
        self.thread = EngineThread(lambda: stepper, name="hydra-echo")
        self._stepper, self._dimensions = stepper, dimensions
        self._vocabulary = Vocabulary()

    def submit(self, job: Job) -> None:
        self.thread.submit(job)

    def cancel(self, job: Job) -> None:
        self.thread.cancel(job)

    def embed(self, texts: list[str]) -> Future[Embeddings]:
        def embed() -> Embeddings:
            count = sum(len(words(text)) for text in texts)
            vectors = [vector(text, self._dimensions) for text in texts]
            return Embeddings(vectors, self.info.model, Usage(count, None, count), backend=self.info.name)

        return self.thread.call(embed)

    def tokenize(self, text: str) -> Future[list[int]]:
        return self.thread.call(lambda: self._vocabulary.ids(text))

    def detokenize(self, ids: list[int]) -> Future[str]:
        return self.thread.call(lambda: self._vocabulary.text(ids))

    def stats(self) -> dict[str, Any]:
        return {"steps": self._stepper.steps}

    def memory(self) -> Memory:
        return Memory()

    def reload(self) -> Future[None]:
        return self.thread.call(lambda: None)

    def close(self) -> None:
        self.thread.close()


@dataclass(slots=True)
class _Turn:
    """One request: what is still to be said, and when (None: it has not had a slot yet)."""

    job: Job
    left: deque[Spoken]
    due: float | None = None


class EchoStepper:
    """In each step says one piece for each of the first `slots` jobs whose piece is due. `clock` gives seconds."""

    def __init__(
        self,
        info: EngineInfo,
        answers: Iterator[Answer] | None = None,
        *,
        delay: float = 0.0,
        ttft: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.info = info
        self.steps = 0
        self._answers = answers
        self._delay, self._ttft, self._clock = delay, ttft, clock
        self._turns: list[_Turn] = []
        self._numbers = itertools.count(1)

    def enqueue(self, job: Job) -> None:
        asked = prompt_words(job.request)
        if len(asked) > self.info.context:
            raise ContextTooLong(
                f"the prompt has {len(asked)} tokens, the context is {self.info.context}",
                hint="shorten the prompt, or load with a larger context",
                tokens=len(asked),
                context=self.info.context,
            )
        spoken = speak(
            job.request,
            self._answer(job.request),
            model=self.info.model,
            number=next(self._numbers),
            prompt_tokens=len(asked),
            room=self.info.context - len(asked),
        )
        self._turns.append(_Turn(job, deque(spoken)))

    def iterate(self) -> float:
        self.steps += 1
        now = self._clock()
        for turn in self._turns[: self.info.slots]:
            if turn.due is None:
                turn.due = now + self._ttft
            if turn.due <= now:
                self._say(turn)
                turn.due = now + self._delay
        self._turns = [turn for turn in self._turns if turn.left and not turn.job.ended]
        waits = [now if turn.due is None else turn.due for turn in self._turns[: self.info.slots]]
        return max(0.0, min(waits, default=now) - now)

    def cancel(self, job: Job) -> None:
        self._turns = [turn for turn in self._turns if turn.job is not job]

    def close(self) -> None:
        self._turns.clear()

    def _say(self, turn: _Turn) -> None:
        spoken = turn.left.popleft()
        if isinstance(spoken, HydraError):
            turn.job.fail(spoken)
            return
        for event in spoken:
            turn.job.put(event)
        if not turn.left:
            turn.job.finish()

    def _answer(self, request: Mapping[str, Any]) -> Answer:
        if self._answers is None:
            return last_words(request)
        try:
            return next(self._answers)
        except StopIteration:
            raise HydraError("the script has no answer left for this request", hint="give script= one more") from None

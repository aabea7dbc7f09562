"""One of the two that are compared: a Router over one backend, asked as a step says. The only place that waits for servers."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from ...engines.engine import Engine
from ...errors import AllBackendsFailed, ConfigError, ContextTooLong, HydraError, Refused, Unreachable
from ...hardware.energy import EnergyMeter
from ...reply import Reply
from ...router import Router
from ...routing.backend import Backend
from ...transport.detect import detect
from .likeness import first_token, spoken_tokens
from .prompts import OPENINGS, TALKS, prompt
from .steps import Setup, Step
from .tasks import TASKS
from .timing import Heard, figures, heard

__all__ = ["Contender", "Side"]

Contender = Backend | Engine | str

# A server that answers so will answer so again: the measurement is a no. Anything else stops the run, which can be continued.
_SAYS_NO = (400, 404, 405, 413, 422, 500, 501)
_TOP = 5  # what a completion may be asked for at most, by OpenAI's reference
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Side:
    """Made of what compare() is given. `name` is the backend's, `model` the one asked for, where it has several. Close it.

    Raises ConfigError where it is not clear which model is meant, Unreachable where nobody answers.
    """

    def __init__(
        self,
        given: Contender,
        model: str | None,
        *,
        meter: EnergyMeter,
        api_keys: Mapping[str, str] | None = None,
        timeout: float = 600.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        row = _backend(given, api_keys)
        self.name = row.name
        self._clock = clock
        self._meter = meter if row.kind == "engine" or urlsplit(row.url).hostname in _LOOPBACK else None
        # Nothing is asked twice, and nothing is given up for waiting in line: both would be hidden in the figures.
        self._router = Router([row], retries=0, timeout=timeout, first_token_timeout=timeout, queue_timeout=timeout)
        try:
            self.model = model or _only_model(self._router, row.name)
        except HydraError:
            self._router.close()
            raise

    def close(self) -> None:
        """Close the connections; an Engine stays as it is."""
        self._router.close()

    def measure(self, step: Step, setup: Setup) -> dict[str, Any]:
        """The step's result as plain data; {"error": …} where the server says no. Raises what stops the run."""
        ask = {"speed": self._speed, "agreement": self._agreement, "next": self._next, "task": self._task}[step.group]
        try:
            return ask(step, setup)
        except HydraError as error:
            if not _says_no(error):
                raise
            return {"error": str(error)}

    def _speed(self, step: Step, setup: Setup) -> dict[str, Any]:
        together = threading.Barrier(step.parallel)

        def one(stream: int) -> Heard:
            text = prompt(
                step.name,
                step.side,
                seed=setup.seed,
                parallel=step.parallel,
                repetition=step.repetition,
                stream=stream,
                long_tokens=setup.long_tokens,
            )
            together.wait()
            return self._listen(text, setup.max_tokens)

        before = self._joules()
        with ThreadPoolExecutor(step.parallel, "hydra-bench") as threads:
            streams = list(threads.map(one, range(step.parallel)))
        after = self._joules()
        return figures(streams, None if before is None or after is None else after - before)

    def _listen(self, text: str, max_tokens: int) -> Heard:
        began = self._clock()
        with self._router.stream(self.model, text, max_tokens=max_tokens, temperature=0) as stream:
            arrivals = [self._clock() for chunk in stream if chunk.text or chunk.reasoning or chunk.tool_calls]
        before = stream.reply.attempts[:-1]
        if before:  # it was loading, say: what was measured is the waiting
            raise Refused(f"asked {len(before) + 1} times: {before[-1]}", backend=self.name)
        return heard(began, arrivals, stream.reply)

    def _agreement(self, step: Step, setup: Setup) -> dict[str, Any]:
        fields: dict[str, Any] = {"max_tokens": setup.max_tokens, "temperature": 0}
        talk = TALKS[int(step.name)]
        try:
            reply = self._router.chat(self.model, talk, logprobs=True, **fields)
        except Refused:
            reply = self._router.chat(self.model, talk, **fields)  # one that knows no logprobs still has an answer
        return {"text": reply.text, "tokens": spoken_tokens(_logprobs(reply))}

    def _next(self, step: Step, _setup: Setup) -> dict[str, Any]:
        opening = OPENINGS[int(step.name)]
        reply = self._router.complete(self.model, opening, max_tokens=1, temperature=0, logprobs=_TOP)
        return {"top": first_token(_logprobs(reply))}

    def _task(self, step: Step, setup: Setup) -> dict[str, Any]:
        task = TASKS[int(step.name)]
        reply = self._router.chat(self.model, task.question, max_tokens=setup.answer_tokens, temperature=0, **task.fields)
        return {"passed": task.passed(reply), "said": reply.tool_calls or reply.text}

    def _joules(self) -> float | None:
        return None if self._meter is None else self._meter.joules()


def _backend(given: Contender, api_keys: Mapping[str, str] | None) -> Backend:
    if isinstance(given, Engine):
        return Backend.engine(given)
    if isinstance(given, Backend):
        return given
    if isinstance(given, str):
        # Of an address alone nobody has said how many requests it takes, and many at once is what is measured here.
        return dataclasses.replace(detect([given], api_keys)[0], max_parallel=None)
    raise ConfigError(f"{given!r:.80} is nothing to compare", hint="a Backend, an Engine, or a server's address")


def _only_model(router: Router, name: str) -> str:
    models = list(router.models())
    if not models:
        raise Unreachable(f"{name} does not answer, or has no model", hint="start it, or say which model=…", backend=name)
    if len(models) > 1:
        raise ConfigError(f"{name} has several models: {', '.join(models)}", hint="say which: model=… for both, or model=(…, …)")
    return models[0]


def _says_no(error: HydraError) -> bool:
    if isinstance(error, Refused | ContextTooLong):
        return True
    return isinstance(error, AllBackendsFailed) and bool(error.attempts) and error.attempts[-1].status in _SAYS_NO


def _logprobs(reply: Reply) -> Any:
    choices = reply.raw.get("choices") or [{}]
    return choices[0].get("logprobs")

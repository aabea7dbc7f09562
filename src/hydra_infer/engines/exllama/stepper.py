"""Stepper: jobs in, an ExLlama engine's steps, events out; and what happens when a step fails."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ContextTooLong, HydraError, LoadError
from .answer import Answer
from .params import Params
from .seam import Ask
from .trouble import named

if TYPE_CHECKING:
    from ..job import Job
    from .prompt import Prompt, Prompts
    from .seam import Runner

__all__ = ["Stepper"]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A request in the engine: its job here, its job there, and the answer that is being written."""

    job: Job
    raw: Any
    answer: Answer


class Stepper:
    """Drives a Runner; lives on the engine thread.

    A job's own error fails that job. An exception out of `iterate` fails the jobs in the engine and the generator is built
    anew; if it happens again before any answer was completed, or if the model is spread tensor-parallel, everything is
    taken down (workers too) and the engine waits for `reload`.
    """

    def __init__(self, open_runner: Callable[[], Runner], prompts: Prompts) -> None:
        self._open, self._prompts = open_runner, prompts
        self._runner: Runner | None = open_runner()
        self.info, self.sampling = self._runner.info, self._runner.sampling
        self._turns: dict[int, _Turn] = {}  # by id() of the engine's job, which it reports with every result
        self._numbers = itertools.count(1)
        self._shaken = False
        self._fault: HydraError | None = None
        self._counts = Counter({"steps": 0, "rebuilds": 0, "draft_tokens": 0, "draft_accepted": 0})
        self._facts = self._runner.facts()

    # ---- what an EngineThread asks

    def enqueue(self, job: Job) -> None:
        runner = self._ready()
        params = Params.of(job.request)
        prompt = self._prompts.of(job.request, runner)
        room = runner.room(len(prompt.ids))
        if room < 1:
            raise ContextTooLong(
                f"the prompt has {len(prompt.ids)} tokens, the context is {self.info.context}",
                hint="shorten the prompt, or load with a larger context",
                tokens=len(prompt.ids),
                context=self.info.context,
            )
        raw = runner.job(_ask(params, prompt, room, runner))
        runner.enqueue(raw)
        answer = Answer(number=next(self._numbers), model=self.info.model, reader=prompt.reader, pieces=runner.pieces)
        self._turns[id(raw)] = _Turn(job, raw, answer)

    def iterate(self) -> float:
        runner = self._ready()
        self._counts["steps"] += 1
        try:
            results = runner.iterate()
        except Exception as error:  # noqa: BLE001  whatever an engine raises, its jobs must end
            self._broken(named(error, self.info.name, "decode"))
            return 0.0
        for result in results:
            turn = self._turns.get(id(result["job"]))
            if turn is not None:
                self._pass_on(turn, result)
        return 0.0

    def cancel(self, job: Job) -> None:
        for turn in list(self._turns.values()):
            if turn.job is job:
                del self._turns[id(turn.raw)]
                self._ready().cancel(turn.raw)

    def close(self) -> None:
        self._turns.clear()
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    # ---- what the driver asks, on the same thread

    def reload(self) -> None:
        """Load again after a fault took the model down; nothing happens where it is loaded."""
        if self._runner is None:
            self._runner = self._open()
            self._fault, self._shaken = None, False

    def runner(self) -> Runner:
        """The loaded model, for questions between steps. Raises LoadError after a fault."""
        return self._ready()

    def stats(self) -> dict[str, Any]:
        """Counts since loading, and the engine's own numbers as they were when the last answer ended. From any thread."""
        return {**self._counts, "loaded": self._runner is not None, **self._facts}

    # ---- one result, one fault

    def _pass_on(self, turn: _Turn, result: Mapping[str, Any]) -> None:
        if result["stage"] == "error":
            self._failed(turn, named(result["error"], self.info.name, "prefill"))
            return
        if result["stage"] != "streaming":
            return
        for event in turn.answer.events(result):
            turn.job.put(event)
        if result["eos"]:
            del self._turns[id(turn.raw)]
            self._shaken = False
            self._count(result)
            turn.job.finish()

    def _count(self, result: Mapping[str, Any]) -> None:
        accepted, rejected = result.get("accepted_draft_tokens", 0), result.get("rejected_draft_tokens", 0)
        self._counts.update(draft_tokens=accepted + rejected, draft_accepted=accepted)
        self._facts = self._ready().facts()

    def _failed(self, turn: _Turn, error: HydraError) -> None:
        """The engine has dropped this job by itself; the others go on, but for ranks that may be out of step."""
        del self._turns[id(turn.raw)]
        turn.job.fail(error)
        if self._ready().parallel:
            self._take_down(error)

    def _broken(self, error: HydraError) -> None:
        if self._shaken or self._ready().parallel:
            self._take_down(error)
            return
        self._shaken = True
        turns, self._turns = list(self._turns.values()), {}
        self._fail(turns, error)
        try:
            self._ready().rebuild()
        except Exception as again:  # noqa: BLE001  then there is nothing left to save
            self._take_down(named(again, self.info.name, "decode"))
        else:
            self._counts["rebuilds"] += 1

    def _take_down(self, error: HydraError) -> None:
        self._fault = LoadError(f"{self.info.name} was taken down after a fault: {error}", hint="engine.reload() loads it again")
        self._fault.__cause__ = error
        turns = list(self._turns.values())
        try:
            self.close()  # first: whoever hears of the fault may count on the workers being gone
        finally:
            self._fail(turns, error)

    def _fail(self, turns: list[_Turn], error: HydraError) -> None:
        for turn in turns:
            turn.job.fail(error)

    def _ready(self) -> Runner:
        if self._runner is None:
            raise self._fault or LoadError("the engine is closed", hint="load the model again")
        return self._runner


def _ask(params: Params, prompt: Prompt, room: int, runner: Runner) -> Ask:
    return Ask(
        ids=prompt.ids,
        max_tokens=room if params.max_tokens is None else min(room, params.max_tokens),
        min_tokens=params.min_tokens,
        sampling=params.sampling,
        seed=params.seed,
        stop=(*runner.stop_ids(), *prompt.ends, *params.stop),
        banned=params.banned,
        top_logprobs=params.top_logprobs,
        constraint=params.constraint or prompt.constraint,
        images=prompt.images,
        special=prompt.special,
    )

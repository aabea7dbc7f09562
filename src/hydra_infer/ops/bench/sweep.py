"""Sweep: one model with drafts of several lengths, measured one after the other, and what that says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...engines.engine import Engine
from ...engines.progress import Progress, reporting
from ...errors import ConfigError, Refused
from ...hardware.energy import EnergyMeter
from .journal import Journal
from .settings import Settings, a_seed, natural, of_prompts
from .side import Contender, Side
from .speculation import Advice, Measured, advice
from .steps import Setup, Step

__all__ = ["sweep"]


@dataclass(frozen=True, slots=True)
class Lengths(Settings):
    """What is measured: drafts of `tokens`, 0 first, with so many streams at once. Raises ConfigError for what cannot be."""

    MARK: ClassVar[str] = "hydra_infer sweep"

    tokens: tuple[int, ...]
    parallel: tuple[int, ...]
    kinds: tuple[str, ...]
    repetitions: int
    max_tokens: int
    model: str | None
    seed: int

    def __post_init__(self) -> None:
        of_prompts(self.kinds)
        natural("repetitions", self.repetitions)
        natural("max_tokens", self.max_tokens)
        for number in self.parallel or (0,):
            natural("parallel", number)
        a_seed(self.seed)

    def steps(self) -> Iterator[Step]:
        """The measurements of one length, in order; the first time, -1, warms up and is forgotten."""
        for streams in self.parallel:
            for repetition in range(-1, self.repetitions):
                for kind in self.kinds:
                    yield Step("speed", kind, "a", streams, repetition)

    def measured(self, results: Mapping[str, Mapping[str, Any]]) -> Measured:
        """Speed and acceptance of every repetition, by length and streams."""
        found: dict[tuple[int, int], list[tuple[float | None, float | None]]] = {}
        for tokens in self.tokens:
            for step in self.steps():
                if step.repetition >= 0:
                    one = results[_key(tokens, step)]
                    speed = one["decode_tps" if step.parallel == 1 else "throughput_tps"]
                    found.setdefault((tokens, step.parallel), []).append((speed, one["acceptance"]))
        return found


def sweep(
    start: Callable[[int], Contender],
    *,
    lengths: Sequence[int] = (1, 2, 4, 6),
    parallel: Sequence[int] = (1, 2, 4),
    kinds: Sequence[str] = ("chat", "code"),
    repetitions: int = 10,
    max_tokens: int = 128,
    model: str | None = None,
    minimum: float = 0.03,
    seed: int | None = None,
    file: str | os.PathLike[str] | None = None,
    timeout: float = 600.0,
    progress: Progress = None,
) -> Advice:
    """Whether drafting pays, with which length, and with how many streams at once it stops.

    `start` gives what answers with drafts of so many tokens, 0 for none: an Engine, which is closed before the next length, or a
    Backend or an address whose server has been set so. Every length answers the same questions of all `kinds`, `parallel` at
    once, `repetitions` times; the rest as in compare(). Acceptance and cost are fitted where the server tells the acceptance.

        bench.sweep(lambda n: hydra.load(folder, draft="mtp" if n else None, draft_tokens=n or None, slots=4))

    Lengths cannot be measured in turn as compare() does, for one card holds one of them: see that nothing else uses it. With
    `file` every result is kept at once, and the same call continues a sweep that was stopped; a length that is there whole is
    not started again. Raises Refused for a question that a server refuses, ConfigError for what cannot be, HydraError for
    answers too short to be timed, and what asking raises.
    """
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"lengths={list(lengths)} are not numbers of tokens above 0", hint="0, no draft, is always measured")
    journal = Journal(file, Lengths)
    setup = Lengths(
        tokens=(0, *sorted(set(lengths))),
        parallel=tuple(sorted(set(parallel))),
        kinds=tuple(kinds),
        repetitions=repetitions,
        max_tokens=max_tokens,
        model=model,
        seed=journal.seed(seed),
    )
    journal.begin(setup)
    with EnergyMeter() as meter, reporting(progress) as say:
        for place, tokens in enumerate(setup.tokens):
            todo = [step for step in setup.steps() if _key(tokens, step) not in journal.results]
            if all(step.repetition < 0 for step in todo):
                continue
            say(place / len(setup.tokens), f"drafts of {tokens}: starting")
            given = start(tokens)
            with contextlib.ExitStack() as stack:
                if isinstance(given, Engine):
                    stack.enter_context(given)
                side = stack.enter_context(contextlib.closing(Side(given, model, meter=meter, timeout=timeout)))
                for done, step in enumerate(todo):
                    say((place + done / len(todo)) / len(setup.tokens), f"drafts of {tokens}: {step.parallel} at once")
                    result = _asked(side, step, setup, tokens)
                    if step.repetition >= 0:
                        journal.add(_key(tokens, step), result)
        say(1.0, "done")
    return advice(setup.measured(journal.results), minimum)


def _key(tokens: int, step: Step) -> str:
    return f"{tokens}/{step.key}"


def _asked(side: Side, step: Step, setup: Lengths, tokens: int) -> dict[str, Any]:
    """The step's figures. Raises Refused for a question that the server refuses."""
    both = {"a": side.name, "b": side.name, "model_a": side.model, "model_b": side.model}
    result = side.measure(
        step,
        Setup(
            **both,
            kinds=setup.kinds,
            parallel=setup.parallel,
            repetitions=setup.repetitions,
            max_tokens=setup.max_tokens,
            long_tokens=4096,
            answer_tokens=1,
            quality=False,
            # Another seed for each length: a server that goes on running must not know the prompts of the last one.
            seed=setup.seed + tokens,
        ),
    )
    if "error" in result:
        raise Refused(f"{side.name} refused a question: {result['error']}", backend=side.name)
    return result

"""Sweep: one model with drafts of several lengths, measured one after the other, and what that says."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...engines.engine import Engine
from ...engines.progress import Progress, reporting
from ...errors import ConfigError, Refused
from ...hardware.energy import EnergyMeter
from .side import Contender, Side
from .speculation import Advice, advice
from .steps import Setup, Step

__all__ = ["sweep"]


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
    timeout: float = 600.0,
    progress: Progress = None,
) -> Advice:
    """Whether drafting pays, with which length, and with how many streams at once it stops.

    `start` gives what answers with drafts of so many tokens, 0 for none: an Engine, which is closed before the next length, or a
    Backend or an address whose server has been set so. Every length answers the same questions of all `kinds`, `parallel` at
    once, `repetitions` times; the rest as in compare(). Acceptance and cost are fitted where the server tells the acceptance.

        bench.sweep(lambda n: hydra.load(folder, draft="mtp" if n else None, draft_tokens=n or None, slots=4))

    Lengths cannot be measured in turn as compare() does, for one card holds one of them: see that nothing else uses it. Raises
    Refused for a question that a server refuses, ConfigError for what cannot be, and what asking raises.
    """
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"lengths={list(lengths)} are not numbers of tokens above 0", hint="0, no draft, is always measured")
    drawn = random.randrange(2**32) if seed is None else seed
    measured: dict[tuple[int, int], list[tuple[float, float | None]]] = {}
    todo = [0, *sorted(set(lengths))]
    with EnergyMeter() as meter, reporting(progress) as say:
        for place, tokens in enumerate(todo):
            say(place / len(todo), f"drafts of {tokens}")
            given = start(tokens)
            with contextlib.ExitStack() as stack:
                if isinstance(given, Engine):
                    stack.enter_context(given)
                side = stack.enter_context(contextlib.closing(Side(given, model, meter=meter, timeout=timeout)))
                # Another seed for each length: a server that goes on running must not know the prompts of the last one.
                setup = _setup(side, kinds, parallel, repetitions, max_tokens, drawn + tokens)
                for streams in setup.parallel:
                    measured[tokens, streams] = _measured(side, setup, streams)
        say(1.0, "done")
    return advice(measured, minimum)


def _setup(side: Side, kinds: Sequence[str], parallel: Sequence[int], repetitions: int, max_tokens: int, seed: int) -> Setup:
    unused: dict[str, Any] = {"long_tokens": 4096, "answer_tokens": 1, "quality": False}
    return Setup(
        a=side.name,
        b=side.name,
        model_a=side.model,
        model_b=side.model,
        kinds=tuple(kinds),
        parallel=tuple(sorted(set(parallel))),
        repetitions=repetitions,
        max_tokens=max_tokens,
        seed=seed,
        **unused,
    )


def _measured(side: Side, setup: Setup, streams: int) -> list[tuple[float, float | None]]:
    """Speed and acceptance of every repetition; the first time, which is forgotten, warms up."""
    found = []
    for repetition in range(-1, setup.repetitions):
        for kind in setup.kinds:
            result = side.measure(Step("speed", kind, "a", streams, repetition), setup)
            if "error" in result:
                raise Refused(f"{side.name} refused a question: {result['error']}", backend=side.name)
            if repetition >= 0:
                found.append((result["decode_tps"] if streams == 1 else result["throughput_tps"], result["acceptance"]))
    return found

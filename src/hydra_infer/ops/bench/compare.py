"""Compare: both sides are opened, every step is measured and kept, and a Report is made of the results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...engines.progress import Progress, reporting
from ...engines.progress import Report as Say
from ...errors import ConfigError
from ...hardware.energy import EnergyMeter
from ...units import parse_tokens
from .journal import Journal
from .prompts import KINDS
from .report import Report
from .side import Contender, Side
from .steps import SIDES, Setup, Step, steps

__all__ = ["compare", "measure"]

Ask = Callable[[Step], Mapping[str, Any]]


def compare(
    a: Contender,
    b: Contender,
    *,
    model: str | tuple[str, str] | None = None,
    kinds: str | Sequence[str] = KINDS,
    parallel: int | Sequence[int] = (1, 4, 16),
    repetitions: int = 10,
    max_tokens: int = 128,
    long_tokens: int | str = 4096,
    answer_tokens: int = 512,
    quality: bool = True,
    minimum: float = 0.03,
    seed: int | None = None,
    file: str | os.PathLike[str] | None = None,
    api_keys: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    progress: Progress = None,
) -> Report:
    """Measure two of Backend, Engine and address ("gpu-box:5000") side by side.

    `model`: the one to ask for, or a's and b's, where a server has several. `kinds` of prompts ("chat", "code", "long" of about
    `long_tokens`) are asked one at a time, the first kind also `parallel` at once; each `repetitions` times on each side, for
    `max_tokens` of answer, greedily. Both sides of a pair follow each other, in an order that `seed` draws (None: drawn anew),
    and every prompt is new to the servers. `quality`: also how alike they answer and how many of the built-in tasks each
    solves, with room for `answer_tokens` (a model that thinks first needs more).

    `minimum` is the effect from which a difference counts: 0.03 is 3 %. With `file` every result is kept at once as a line of
    JSON, and the same call continues a run that was stopped. `api_keys` maps addresses to keys; `timeout` is seconds for one
    answer. `progress` as in hydra_infer.load().

    A measurement that a server refuses (a prompt too long, no tools) is noted in `report.warnings`; whatever else fails is
    raised (AllBackendsFailed, StreamBroken, Unreachable) and stops the run. Raises ConfigError for what cannot be.
    """
    if not 0 <= minimum < 1:
        raise ConfigError(f"minimum={minimum!r} is not a share", hint="0.03 is 3 %")
    wanted = model if isinstance(model, tuple) else (model, model)
    journal = Journal(file, Setup)
    with contextlib.ExitStack() as stack:
        meter = stack.enter_context(EnergyMeter())
        sides: dict[str, Side] = {}
        for letter, given, name in zip(SIDES, (a, b), wanted, strict=True):
            sides[letter] = stack.enter_context(
                contextlib.closing(Side(given, name, meter=meter, api_keys=api_keys, timeout=timeout))
            )
        setup = Setup(
            a=sides["a"].name,
            b=sides["b"].name,
            model_a=sides["a"].model,
            model_b=sides["b"].model,
            kinds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
            parallel=(parallel,) if isinstance(parallel, int) else tuple(parallel),
            repetitions=repetitions,
            max_tokens=max_tokens,
            long_tokens=parse_tokens(long_tokens, "long_tokens"),
            answer_tokens=answer_tokens,
            quality=quality,
            seed=journal.seed(seed),
        )
        journal.begin(setup)
        say = stack.enter_context(reporting(progress))
        measure(setup, journal, lambda step: sides[step.side].measure(step, setup), say)
    return Report.of(setup, journal.results, minimum)


def measure(setup: Setup, journal: Journal[Setup], ask: Ask, say: Say) -> None:
    """Ask for every step that the journal lacks, and keep what comes.

    First each kind of measurement still to come is made once on each side and forgotten: a server that has just been started,
    or an extension that is compiled for a new batch size, is slow once.
    """
    todo = [step for step in steps(setup) if step.key not in journal.results]
    warm = dict.fromkeys(Step(step.group, step.name, step.side, step.parallel, -1) for step in todo if step.group == "speed")
    total = len(warm) + len(todo)
    for done, step in enumerate([*warm, *todo]):
        say(done / total, f"{step.side}: {step.group} {step.name}")
        result = ask(step)
        if step.repetition >= 0:
            journal.add(step.key, result)
    say(1.0, "done")

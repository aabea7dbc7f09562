"""Runs without servers: a Setup, and measurements of two made-up sides by known speeds and noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hydra_infer.ops.bench.report import Report
from hydra_infer.ops.bench.steps import Setup, Step, steps

SETUP = Setup(
    a="old",
    b="new",
    model_a="m",
    model_b="m",
    kinds=("chat", "code", "long"),
    parallel=(1, 4, 16),
    repetitions=10,
    max_tokens=8,
    long_tokens=100,
    answer_tokens=8,
    quality=False,
    seed=1,
)


def sides(factor: float = 1.0, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> Callable[[Step], dict[str, Any]]:
    """Measures a step: b's tokens come `factor` times as fast; each figure is off by `noise`, and by `drift` more each time."""
    dice, wear = random.Random(seed), 1.0

    def ask(step: Step) -> dict[str, Any]:
        nonlocal wear
        wear *= 1 + drift
        speed = 50.0 * (factor if step.side == "b" else 1.0)

        def off() -> float:
            return wear * dice.lognormvariate(0, noise)

        return {
            "ttft": 0.5 * off(),
            "prefill_tps": 800 / off(),
            "decode_tps": speed / off(),
            "itl_p95": off() / speed,
            "throughput_tps": step.parallel**0.5 * speed / off(),
            "joules_per_token": None,
            "acceptance": None,
            "tokens": 8,
            "counted": True,
        }

    return ask


def report(setup: Setup = SETUP, minimum: float = 0.03, **how: Any) -> Report:
    """A whole run."""
    ask = sides(**how)
    return Report.of(setup, {step.key: ask(step) for step in steps(setup)}, minimum)


def shorter(**changes: Any) -> Setup:
    """SETUP with some of it changed."""
    return replace(SETUP, **changes)

"""What is to be measured, and in which order: both sides of a pair one after the other, the pairs shuffled. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ConfigError
from .prompts import OPENINGS, TALKS
from .settings import Settings, a_seed, natural, of_prompts
from .tasks import TASKS

__all__ = ["SIDES", "Setup", "Step", "steps"]

SIDES = ("a", "b")


@dataclass(frozen=True, slots=True)
class Setup(Settings):
    """A run: who is compared, and what decides which measurements there are. Two runs of one Setup have the same steps.

    Raises ConfigError for what cannot be.
    """

    MARK: ClassVar[str] = "hydra_infer bench"

    a: str
    b: str
    model_a: str
    model_b: str
    kinds: tuple[str, ...]
    parallel: tuple[int, ...]
    repetitions: int
    max_tokens: int
    long_tokens: int
    answer_tokens: int
    quality: bool
    seed: int

    def __post_init__(self) -> None:
        of_prompts(self.kinds)
        for name in ("repetitions", "max_tokens", "long_tokens", "answer_tokens"):
            natural(name, getattr(self, name))
        for number in self.parallel:
            natural("parallel", number)
        for name in ("a", "b", "model_a", "model_b"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}, not a name")
        a_seed(self.seed)

    @property
    def cells(self) -> tuple[tuple[str, int], ...]:
        """(kind, streams at once): every kind alone, then the first kind with many at once."""
        many = sorted({number for number in self.parallel if number > 1})
        return (*((kind, 1) for kind in self.kinds), *((self.kinds[0], number) for number in many))


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement. `group` is "speed", "agreement", "next" or "task"; `name` the kind of prompt, or a number."""

    group: str
    name: str
    side: str
    parallel: int = 1
    repetition: int = 0

    @property
    def key(self) -> str:
        """What tells it from every other step of its run."""
        return f"{self.group}/{self.name}/{self.parallel}/{self.repetition}/{self.side}"


def steps(setup: Setup) -> list[Step]:
    """All measurements in order.

    Whatever drifts (a card that gets warm, a neighbour's load) meets both sides of a pair alike, since they stand next to each
    other, and favours neither, since a coin decides which comes first.
    """
    return [*_speed(setup, random.Random(setup.seed)), *(_quality() if setup.quality else ())]


def _speed(setup: Setup, dice: random.Random) -> Iterator[Step]:
    for repetition in range(setup.repetitions):
        for kind, parallel in dice.sample(setup.cells, len(setup.cells)):
            for side in dice.sample(SIDES, 2):
                yield Step("speed", kind, side, parallel, repetition)


def _quality() -> Iterator[Step]:
    for group, items in (("agreement", TALKS), ("next", OPENINGS), ("task", TASKS)):
        for number in range(len(items)):
            for side in SIDES:
                yield Step(group, str(number), side)

"""What is to be measured, and in which order: both sides of a pair one after the other, the pairs shuffled. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...errors import ConfigError
from .prompts import KINDS, OPENINGS, TALKS
from .tasks import TASKS

__all__ = ["SIDES", "Setup", "Step", "steps"]

SIDES = ("a", "b")
# Beyond these a run would last for weeks: a slip of the hand, or somebody else's file.
_MOST = {"repetitions": 1000, "parallel": 1024, "max_tokens": 10**6, "long_tokens": 10**7, "answer_tokens": 10**6}


@dataclass(frozen=True, slots=True)
class Setup:
    """A run: who is compared, and what decides which measurements there are. Two runs of one Setup have the same steps.

    Raises ConfigError for what cannot be.
    """

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
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"kinds: {kind!r} is no kind of prompt", hint=f"known are {', '.join(KINDS)}")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError("kinds is empty, or has one twice", hint=f"known are {', '.join(KINDS)}")
        for name, most in _MOST.items():
            for number in self.parallel if name == "parallel" else (getattr(self, name),):
                _natural(name, number, most)
        for name in ("a", "b", "model_a", "model_b"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}, not a name")
        if not isinstance(self.seed, int):
            raise ConfigError(f"seed={self.seed!r:.80} is not a whole number")

    @property
    def cells(self) -> tuple[tuple[str, int], ...]:
        """(kind, streams at once): every kind alone, then the first kind with many at once."""
        many = sorted({number for number in self.parallel if number > 1})
        return (*((kind, 1) for kind in self.kinds), *((self.kinds[0], number) for number in many))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Setup:
        """What to_dict() gave. Raises ConfigError for anything else."""
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise ConfigError(f"these are not a bench's settings: {', '.join(sorted(set(data) ^ names))} too few or too many")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**values)


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


def _natural(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name}={value!r:.80} is not a whole number from 1 to {most}")

"""In which order the candidates for a model are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ..errors import ConfigError
from .backend import Backend

__all__ = ["Strategy", "find_strategy", "ordered", "shuffle"]

# The model's name and its candidates in list order; gives the same candidates in the order to ask them.
Strategy = Callable[[str, Sequence[Backend]], Sequence[Backend]]


def ordered(model: str, backends: Sequence[Backend]) -> Sequence[Backend]:  # noqa: ARG001 - the shape of every strategy
    """List order: the first that can answer does."""
    return backends


def shuffle(random: Random) -> Strategy:
    """A random order in which each position is drawn by weight; weight 0 comes last, for emergencies."""

    def shuffled(model: str, backends: Sequence[Backend]) -> Sequence[Backend]:  # noqa: ARG001
        # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to w.
        return sorted(
            backends,
            key=lambda row: random.random() ** (1 / row.weight) if row.weight else -random.random(),
            reverse=True,
        )

    return shuffled


def find_strategy(strategy: str | Strategy, random: Random | None = None) -> Strategy:
    """The strategy of that name, or the callable itself. Raises ConfigError for a name that is not known."""
    if callable(strategy):
        return strategy
    known: dict[str, Strategy] = {"ordered": ordered, "shuffle": shuffle(random or Random())}
    try:
        return known[strategy]
    except (KeyError, TypeError):
        raise ConfigError(
            f"strategy={strategy!r} is not known", hint=f"one of {', '.join(known)}, or a function of (model, backends)"
        ) from None

"""In which order a model's candidates are asked: as the strategy says, those too small for the prompt last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..wire.fields import estimated_tokens
from .place import Candidate
from .roster import Roster, late_last
from .strategies import Ask, Strategy

__all__ = ["in_order", "too_small"]


def in_order(roster: Roster, ask: Ask, strategy: Strategy) -> Iterator[Candidate]:
    """The candidates in the order to ask them, those that were tried left out; to be read while holding the pool's turn."""
    order = late_last(roster.prepared(strategy)(ask), too_small(ask.fields))
    return filter(ask.is_left, order)


def too_small(fields: Mapping[str, Any]) -> Callable[[Candidate], bool]:
    """Whether a candidate's known context is shorter than the estimated prompt.

    An estimate refuses nobody: they are asked last, and say themselves whether it was true.
    """
    tokens: int | None = None

    def is_too_small(candidate: Candidate) -> bool:
        nonlocal tokens
        context = candidate.place.context(candidate.local)
        if context is None:
            return False
        if tokens is None:
            tokens = estimated_tokens(fields)
        return context < tokens

    return is_too_small

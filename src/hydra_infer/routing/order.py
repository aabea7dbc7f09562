"""In which order a model's candidates are asked: as the strategy says, those too small for the prompt last."""

from __future__ import annotations

from collections.abc import Iterator

from ..wire.fields import estimated_tokens
from .place import Candidate
from .roster import Roster
from .strategies import Ask, Strategy

__all__ = ["in_order"]


def in_order(roster: Roster, ask: Ask, strategy: Strategy) -> Iterator[Candidate]:
    """The candidates in the order to ask them, those that were tried left out; to be read while holding the pool's turn.

    Those whose known context is shorter than the estimated prompt come last. An estimate refuses nobody: they say themselves
    whether it was true.
    """
    tokens: int | None = None
    put_off = []
    for candidate in roster.prepared(strategy)(ask):
        if not ask.is_left(candidate):
            continue
        if (context := candidate.place.context(candidate.local)) is not None:
            tokens = estimated_tokens(ask.fields) if tokens is None else tokens
            if context < tokens:
                put_off.append(candidate)
                continue
        yield candidate
    yield from put_off

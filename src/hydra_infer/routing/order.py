"""In which order a model's candidates are asked: as the strategy says, those too small for the prompt last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..wire.fields import estimated_tokens
from .backend import LocalModel
from .pool import Place, Pool
from .strategies import Ask, Strategy

__all__ = ["Candidate", "in_order", "too_small"]

Candidate = tuple[Place, LocalModel]


def in_order(
    candidates: Sequence[Candidate], model: str, fields: Mapping[str, Any], pool: Pool, strategy: Strategy
) -> list[Candidate]:
    """The candidates in the order to ask them."""
    found = {place.backend.name: (place, local) for place, local in candidates}
    cold = frozenset(name for name, candidate in found.items() if pool.is_cold(*candidate))
    order = [found[place.backend.name] for place in strategy(Ask(fields, model, [place for place, _ in candidates], cold))]
    small = too_small(order, fields, pool)
    return sorted(order, key=lambda candidate: candidate[0].backend.name in small)


def too_small(candidates: Sequence[Candidate], fields: Mapping[str, Any], pool: Pool) -> dict[str, tuple[int, int]]:
    """Backends whose known context is shorter than the estimated prompt, with both numbers.

    An estimate refuses nobody: they are asked last, and say themselves whether it was true.
    """
    contexts = {place.backend.name: pool.context(place, local) for place, local in candidates}
    if not any(contexts.values()):
        return {}
    tokens = estimated_tokens(fields)
    return {name: (tokens, context) for name, context in contexts.items() if context and context < tokens}

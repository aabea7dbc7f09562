"""Who would be asked, in which order, and why: the flow's choice without asking anybody."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import table
from ..wire.fields import estimated_tokens
from .order import in_order
from .place import Candidate
from .pool import Pool
from .strategies import Ask, Strategy

__all__ = ["Explanation", "Option", "explain"]


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate. `asked` is False for one that would be passed over as things stand."""

    backend: str
    model: str
    local_name: str
    asked: bool
    why: str

    @property
    def name(self) -> str:
        """The model, and what the backend calls it where that is another name."""
        return self.model if self.model == self.local_name else f"{self.model} as {self.local_name}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The candidates in the order they would be asked; passed-over ones stand where they would come."""

    model: str
    options: tuple[Option, ...]
    strategy: str

    @property
    def order(self) -> list[str]:
        """The names of the backends that would be asked, first to last."""
        return [option.backend for option in self.options if option.asked]

    def __str__(self) -> str:
        places = itertools.count(1)
        rows = [(f"{next(places)}." if option.asked else "-", option.backend, option.name, option.why) for option in self.options]
        return f"{self.model} (strategy {self.strategy})\n{textwrap.indent(table.text(rows, right=(0,)), '  ')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"options": [asdict(option) for option in self.options]}


def explain(
    models: Sequence[str], fields: Mapping[str, Any], tags: frozenset[str], pool: Pool, strategy: Strategy, strategy_name: str
) -> Explanation:
    """Explain a call for models[0] with the others as its fallbacks; `fields` are the request's."""
    options: list[Option] = []
    for depth, model in enumerate(models):
        serving = pool.serving(model, tags)
        with pool.turn:
            order = list(in_order(serving, Ask(fields, model, lambda _: True), strategy))
        for candidate in order:
            place, local = candidate
            asked, why = _judge(candidate, pool, lone=len(serving) == 1 and len(models) == 1)
            before = any(option.asked for option in options)
            reason = why or (f"fallback for {models[0]}" if depth else "if those before fail" if before else "first choice")
            if asked:
                reason += _warmth(candidate)
            if (context := candidate.context) is not None and context < (tokens := estimated_tokens(fields)):
                reason += f"; about {tokens} tokens are more than its context of {context}"
            options.append(Option(place.backend.name, model, local.name, asked, reason))
    return Explanation(models[0], tuple(options), strategy_name)


def _warmth(candidate: Candidate) -> str:
    if candidate.is_cold:
        return "; not loaded there now"
    return "; loaded there" if candidate.place.is_loaded(candidate.local) else ""


def _judge(candidate: Candidate, pool: Pool, *, lone: bool) -> tuple[bool, str]:
    if lone:
        return True, "the only one"
    place = candidate.place
    state = pool.state(place)
    if not pool.rested(*candidate):
        if state.state == "probing":
            return False, "a first request after its rest is finding out"
        word = "misconfigured" if state.state == "misconfigured" else "resting"
        return False, f"{word} {pool.tiredness(*candidate):.0f} s more: {state.why}"
    return True, f"full ({place.in_flight} of {place.backend.max_parallel}); waits or spills" if place.full else ""

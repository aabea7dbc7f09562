"""Who would be asked, in which order, and why: the flow's choice without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .backend import LocalModel
from .order import in_order, too_small
from .pool import Place, Pool
from .strategies import Strategy

__all__ = ["Explanation", "Option", "explain"]


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate. `asked` is False for one that would be passed over as things stand."""

    backend: str
    model: str
    local_name: str
    asked: bool
    why: str


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
        lines = [f"{self.model} (strategy {self.strategy})"]
        position = 0
        for option in self.options:
            position += option.asked
            name = option.model if option.model == option.local_name else f"{option.model} as {option.local_name}"
            lines.append(f"  {f'{position}.' if option.asked else ' -':3} {option.backend:24} {name:28} {option.why}")
        return "\n".join(lines)

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
        small = too_small(serving, fields, pool)
        for place, local in in_order(serving, model, fields, pool, strategy):
            name = place.backend.name
            asked, why = _judge(place, local, pool, lone=len(serving) == 1 and len(models) == 1)
            before = any(option.asked for option in options)
            reason = why or (f"fallback for {models[0]}" if depth else "if those before fail" if before else "first choice")
            if asked:
                reason += _warmth(place, local, pool)
            if name in small:
                reason += "; about {} tokens are more than its context of {}".format(*small[name])
            options.append(Option(name, model, local.name, asked, reason))
    return Explanation(models[0], tuple(options), strategy_name)


def _warmth(place: Place, local: LocalModel, pool: Pool) -> str:
    if pool.is_cold(place, local):
        return "; not loaded there now"
    return "; loaded there" if pool.is_loaded(place, local) else ""


def _judge(place: Place, local: LocalModel, pool: Pool, *, lone: bool) -> tuple[bool, str]:
    if lone:
        return True, "the only one"
    state = pool.state(place)
    if not pool.rested(place, local):
        if state.state == "probing":
            return False, "a first request after its rest is finding out"
        word = "misconfigured" if state.state == "misconfigured" else "resting"
        return False, f"{word} {pool.tiredness(place, local):.0f} s more: {state.why}"
    return True, f"full ({place.in_flight} of {place.backend.max_parallel}); waits or spills" if place.full else ""

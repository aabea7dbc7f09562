"""What measured drafts say: how often a token is accepted, what one costs, which length is best, when it stops paying. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ... import table
from ...errors import HydraError
from ...planner.draft import speedup
from .interval import CONFIDENCE, estimate, fewest_pairs, span

__all__ = ["Advice", "Length", "Load", "Measured", "advice", "cost", "per_token", "share"]

# By (tokens drafted, streams at once): tokens per second and acceptance of each repetition, in the order of the prompts; None
# where it cannot be known.
Measured = Mapping[tuple[int, int], Sequence[tuple[float | None, float | None]]]


@dataclass(frozen=True, slots=True)
class Length:
    """Drafts of `tokens` with `parallel` streams at once: times the speed without a draft, its interval, and what was told.

    `low` and `high` are None where the repetitions are too few. `acceptance` is the share of drafted tokens that was accepted,
    None where the server does not tell; `cost` what one drafted token then must have cost, in steps of the main model.
    """

    tokens: int
    parallel: int
    tps: float
    speedup: float
    low: float | None
    high: float | None
    acceptance: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Load:
    """What is best with so many streams at once: the measured length that is fastest, and whether it really pays.

    `cost` is the median over the lengths, `fitted` the length from 1 to 16 that it and the acceptance say is best; None where
    the server tells no acceptance.
    """

    parallel: int
    best: int
    pays: bool
    cost: float | None
    fitted: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Advice:
    """A sweep's result. `per_token`: how likely a drafted token is accepted, given those before it; None where nobody tells.

    `stops_at`: the fewest streams at once, of those measured, from which on drafting does not pay; None if it still does with
    the most.
    """

    lengths: tuple[Length, ...]
    loads: tuple[Load, ...]
    per_token: float | None

    @property
    def stops_at(self) -> int | None:
        paying = [load.parallel for load in self.loads if load.pays]
        return next((load.parallel for load in self.loads if load.parallel > max(paying, default=0)), None)

    @property
    def why(self) -> str:
        """The advice in a sentence."""
        if all(row.low is None for row in self.lengths):
            return f"too few measurements to tell whether drafting pays: {fewest_pairs(CONFIDENCE)} of each are needed"
        if not any(load.pays for load in self.loads):
            return "drafting does not pay: no length is really faster than none"
        said = "; ".join(f"{load.best} tokens with {load.parallel} at once" for load in self.loads if load.pays)
        end = "" if self.stops_at is None else f"; from {self.stops_at} at once it does not pay"
        return f"drafting pays: {said}{end}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = {"lengths": [asdict(row) for row in self.lengths], "loads": [asdict(load) for load in self.loads]}
        return {**rows, "per_token": self.per_token, "stops_at": self.stops_at, "why": self.why}

    def __repr__(self) -> str:
        return f"<Advice: {self.why}>"

    def __str__(self) -> str:
        return f"{table.text([_HEAD, *map(_cells, self.lengths)], right=range(len(_HEAD)))}\n\n{self.why}"


def advice(measured: Measured, minimum: float) -> Advice:
    """The advice of a sweep, which has length 0 for every number of streams. `minimum` as in bench.compare.

    Raises HydraError where no pair of answers could be timed.
    """
    rows = tuple(_length(measured, *key) for key in sorted(measured, key=lambda key: (key[1], key[0])) if key[0])
    chances = [per_token(row.tokens, row.acceptance) for row in rows if row.acceptance is not None]
    chance = statistics.median(chances) if chances else None
    loads = tuple(_load([row for row in rows if row.parallel == parallel], chance, minimum) for parallel in _parallels(rows))
    return Advice(rows, loads, chance)


def share(tokens: int, chance: float) -> float:
    """The accepted share of `tokens` when each one is with `chance`, given those before it (Leviathan et al. 2023)."""
    return sum(chance**place for place in range(1, tokens + 1)) / tokens


def per_token(tokens: int, accepted: float) -> float:
    """The chance for which share() is `accepted`: share() grows with it, so that halving finds it."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share(tokens, middle) < accepted else (low, middle)
    return (low + high) / 2


def cost(tokens: int, accepted: float, times: float) -> float:
    """What a drafted token costs, in steps, when drafts make `times` the speed: planner.draft.speedup solved for it."""
    return ((1 + tokens * accepted) / times - 1) / tokens


def _length(measured: Measured, tokens: int, parallel: int) -> Length:
    mine = measured[tokens, parallel]
    pairs = [(one, none) for (one, _), (none, _) in zip(mine, measured[0, parallel], strict=True) if one and none]
    if not pairs:
        raise HydraError(
            f"drafts of {tokens}, {parallel} at once: no answer took long enough to tell a speed", hint="more max_tokens"
        )
    found = estimate([math.log(one / none) for one, none in pairs], CONFIDENCE)
    told = [accepted for _, accepted in mine if accepted is not None]
    accepted, times = (statistics.median(told) if told else None), math.exp(found.centre)
    return Length(
        tokens=tokens,
        parallel=parallel,
        tps=statistics.median(one for one, _ in pairs),
        speedup=times,
        low=None if found.low is None else math.exp(found.low),
        high=None if found.high is None else math.exp(found.high),
        acceptance=accepted,
        cost=None if accepted is None else cost(tokens, accepted, times),
    )


def _load(rows: Sequence[Length], chance: float | None, minimum: float) -> Load:
    best = max(rows, key=lambda row: row.speedup)
    prices = [row.cost for row in rows if row.cost is not None]
    price = statistics.median(prices) if prices else None
    fitted = None
    if price is not None and chance is not None:
        fitted = max(range(1, 17), key=lambda tokens: speedup(tokens, share(tokens, chance), price))
    return Load(best.parallel, best.tokens, best.low is not None and best.low > 1 + minimum, price, fitted)


def _parallels(rows: Sequence[Length]) -> list[int]:
    return sorted({row.parallel for row in rows})


_HEAD = ("at once", "drafted", "tokens/s", "times", "interval", "accepted", "cost")


def _cells(row: Length) -> tuple[str, ...]:
    accepted = "" if row.acceptance is None else f"{row.acceptance:.0%}"
    price = "" if row.cost is None else f"{row.cost:.2f}"
    figures = (f"{row.tps:.1f}", f"{row.speedup:.3f}", span(row.low, row.high))
    return (str(row.parallel), str(row.tokens), *figures, accepted, price)

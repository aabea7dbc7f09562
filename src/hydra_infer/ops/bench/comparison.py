"""From the results of a run to figures side by side, each with its ratio, its interval, and whether it is real. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .interval import CONFIDENCE, estimate
from .steps import SIDES, Setup, Step

__all__ = ["FAMILY", "MEASURES", "Comparison", "compared"]

# The verdict looks at five things: decode_tps, ttft, prefill_tps, throughput_tps and the tasks. Each may be wrong a fifth as
# often (Bonferroni), so that the verdict as a whole keeps the confidence.
FAMILY = 5

Results = Mapping[str, Mapping[str, Any]]
Cell = tuple[str, int]

_LONG = ("long", 1)
_ALONE = ("decode_tps", "ttft", "itl_p95", "throughput_tps", "joules_per_token", "acceptance")
_MANY = ("throughput_tps", "ttft", "itl_p95", "joules_per_token")
MEASURES = (*_ALONE, "prefill_tps")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure at one place. `a` and `b` are medians, `ratio` is b over a by pairs, `low` and `high` its interval.

    The interval is None where `pairs` are too few for one. `judged`: the verdict looks at it, at the stricter confidence.
    `real`: the whole interval lies further from 1 than the minimum effect.
    """

    measure: str
    where: str
    pairs: int
    a: float
    b: float
    ratio: float
    low: float | None
    high: float | None
    judged: bool
    real: bool

    @property
    def better(self) -> str | None:
        """Which side is better; None where that is not real."""
        if not self.real:
            return None
        more = self.measure.endswith("_tps") or self.measure == "acceptance"
        return "b" if (self.ratio > 1) == more else "a"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compared(setup: Setup, results: Results, minimum: float) -> tuple[Comparison, ...]:
    """What the verdict looks at, then every cell by itself; what neither side can tell is left out."""
    found = []
    for measure, where, cells, judged in (*_headlines(setup), *_details(setup)):
        if pairs := _pairs(setup, results, measure, cells):
            found.append(_comparison(measure, where, pairs, minimum, judged=judged))
    return tuple(found)


def _headlines(setup: Setup) -> Iterator[tuple[str, str, Sequence[Cell], bool]]:
    alone = [cell for cell in setup.cells if cell[1] == 1]
    yield "decode_tps", "all, one at a time", alone, True
    yield "ttft", "all, one at a time", alone, True
    if _LONG in alone:
        yield "prefill_tps", "long", [_LONG], True
    if setup.cells[-1][1] > 1:
        yield "throughput_tps", _place(setup.cells[-1]), setup.cells[-1:], True


def _details(setup: Setup) -> Iterator[tuple[str, str, Sequence[Cell], bool]]:
    for cell in setup.cells:
        for measure in _ALONE if cell[1] == 1 else _MANY:
            yield measure, _place(cell), [cell], False


def _place(cell: Cell) -> str:
    kind, parallel = cell
    return kind if parallel == 1 else f"{kind}, {parallel} at once"


def _comparison(measure: str, where: str, pairs: Sequence[tuple[float, float]], minimum: float, *, judged: bool) -> Comparison:
    confidence = 1 - (1 - CONFIDENCE) / (FAMILY if judged else 1)
    found = estimate([math.log(b / a) for a, b in pairs], confidence)
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    real = low is not None and high is not None and (low > 1 + minimum or high < 1 / (1 + minimum))
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Comparison(measure, where, len(pairs), a, b, math.exp(found.centre), low, high, judged, real)


def _pairs(setup: Setup, results: Results, measure: str, cells: Sequence[Cell]) -> list[tuple[float, float]]:
    """The measure of a and b wherever both have one above 0."""
    pairs = []
    for kind, parallel in cells:
        for repetition in range(setup.repetitions):
            keys = (Step("speed", kind, side, parallel, repetition).key for side in SIDES)
            a, b = (results.get(key, {}).get(measure) for key in keys)
            if a and b:
                pairs.append((a, b))
    return pairs

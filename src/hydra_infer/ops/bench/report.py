"""What a run came to: verdict, table, plain data, picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ... import table
from ...errors import ConfigError
from ...plain import number_of
from .comparison import FAMILY, MEASURES, Comparison, compared
from .interval import CONFIDENCE, fewest_pairs, span
from .quality import Quality, quality_of
from .steps import Setup

__all__ = ["Report"]

_PARTS = 5  # of a Step's key
NO_DIFFERENCE = "no difference"
TOO_FEW = "too few measurements to tell"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """Two sides, measured in one run. Print it for the table; a notebook shows the picture.

    `comparisons` are the figures side by side, `quality` how alike the answers are (None where it was not asked for),
    `results` every single measurement. `minimum` is the effect from which a difference counts, 0.03 for 3 %.
    """

    setup: Setup
    minimum: float
    comparisons: tuple[Comparison, ...]
    quality: Quality | None
    results: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, setup: Setup, results: Mapping[str, Mapping[str, Any]], minimum: float) -> Report:
        """The Report of a run's results."""
        return cls(setup, minimum, compared(setup, results, minimum), quality_of(results), dict(results))

    @property
    def verdict(self) -> str:
        """What is different, or "no difference", or that there were too few measurements for either.

        Speeds are different when the whole interval lies beyond the minimum effect, tasks when so uneven a split of those that
        one side alone solved is unlikely. The chance that the verdict finds a difference between equals is at most 1 in 100.
        """
        found = list(self._differences())
        if found:
            return "; ".join(found)
        return NO_DIFFERENCE if any(row.low is not None for row in self.comparisons if row.judged) else TOO_FEW

    @property
    def decode_ratio(self) -> float | None:
        """Decode speed of b over a's, one request at a time, over all kinds of prompts; None where it could not be measured."""
        return self._ratio("decode_tps")

    @property
    def ttft_ratio(self) -> float | None:
        """Time to the first token of b over a's, likewise: above 1, b is slower."""
        return self._ratio("ttft")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """`comparisons` as flat dicts, for data frames."""
        return [row.to_dict() for row in self.comparisons]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before believing it."""
        return tuple(self._warnings())

    def to_dict(self) -> dict[str, Any]:
        """Plain data; from_dict() makes the same Report of it."""
        return {
            "setup": self.setup.to_dict(),
            "minimum": self.minimum,
            "verdict": self.verdict,
            "decode_ratio": self.decode_ratio,
            "ttft_ratio": self.ttft_ratio,
            "comparisons": self.rows,
            "quality": None if self.quality is None else self.quality.to_dict(),
            "warnings": list(self.warnings),
            "results": {key: dict(result) for key, result in self.results.items()},
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """What to_dict() gave; everything but setup, minimum and results is computed again. Raises ConfigError."""
        try:
            setup, results, minimum = Setup.from_dict(data["setup"]), data["results"], data["minimum"]
            _check(results, minimum)
            return cls.of(setup, results, minimum)
        except ConfigError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"this is not a bench's report: {error!r:.200}") from error

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What to_json() gave. Raises ConfigError."""
        try:
            return cls.from_dict(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"this is not a bench's report: {error}") from error

    def to_html(self) -> str:
        """The picture as HTML with an SVG in it; no scripts."""
        from .picture import html

        return html(self)

    def __repr__(self) -> str:
        return f"<Report of {self.setup.a} and {self.setup.b}: {self.verdict}>"

    def __str__(self) -> str:
        setup = self.setup
        sides = [f"a  {setup.a}  {setup.model_a}", f"b  {setup.b}  {setup.model_b}", ""]
        rows = table.text([_HEAD, *map(_cells, self.comparisons)], right=range(2, 7))
        notes = [f"note: {warning}" for warning in self.warnings]
        return "\n".join([*sides, rows, "", *self.quality_lines(), *notes, f"verdict: {self.verdict}"])

    def quality_lines(self) -> list[str]:
        """How alike and how good the answers are, in sentences."""
        found = self.quality
        if found is None:
            return []
        lines = [f"tasks, {score.group}: a solved {score.a} of {score.asked}, b {score.b}" for score in found.scores]
        if found.agreement is not None:
            lines.append(
                f"greedy answers: the same for {found.agreement:.0%} of their {found.unit}s, to the end in {found.identical} of "
                f"{found.talks}"
            )
        if found.kl is not None:
            lines.append(
                f"next token: KL divergence {found.kl:.3g} nats, the same first choice in {found.same_choice} of {found.openings}"
            )
        return lines

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self.to_html()}

    def _differences(self) -> Iterator[str]:
        for row in self.comparisons:
            if row.judged and row.real:
                yield f"b has {row.ratio:.2f} times a's {row.measure} ({row.low:.2f} to {row.high:.2f})"
        tasks = self.quality
        if tasks is not None and tasks.p <= (1 - CONFIDENCE) / FAMILY:
            yield f"of the tasks that one side alone solved a has {tasks.a_only}, b {tasks.b_only}"

    def _ratio(self, measure: str) -> float | None:
        return next((row.ratio for row in self.comparisons if row.judged and row.measure == measure), None)

    def _warnings(self) -> Iterator[str]:
        needed = fewest_pairs(1 - (1 - CONFIDENCE) / FAMILY)
        for row in self.comparisons:
            if row.judged and row.low is None:
                yield f"{row.measure}, {row.where}: {row.pairs} pairs are too few for an interval, {needed} are needed"
        refused: dict[tuple[str, str], list[str]] = {}
        for key, result in self.results.items():
            if "error" in result:
                group, name, *_, side = key.split("/")
                refused.setdefault((side, f"{group} {name}" if group == "speed" else group), []).append(result["error"])
        for (side, what), errors in refused.items():
            yield f"{side} refused {what} ({len(errors)} times): {errors[0]}"
        for side in sorted({key[-1] for key, result in self.results.items() if result.get("counted") is False}):
            yield f"{side} does not say how many tokens it answered with: pieces were counted instead"


_HEAD = ("measure", "where", "pairs", "a", "b", "b/a", "interval", "")


def _cells(row: Comparison) -> tuple[str, ...]:
    better = f"{row.better} is better" if row.real else ""
    shown = (f"{value:.4g}" for value in (row.a, row.b))
    return (row.measure, row.where, str(row.pairs), *shown, f"{row.ratio:.3f}", span(row.low, row.high), better)


def _check(results: Mapping[str, Mapping[str, Any]], minimum: Any) -> None:
    """Raises ValueError for what no run gives: figures are above 0 and finite, and their logarithms are taken."""
    if number_of(minimum) is None or not 0 < minimum < 10:
        raise ValueError(f"the minimum is {minimum!r:.80}")
    for key, result in results.items():
        if key.count("/") != _PARTS - 1:
            raise ValueError(f"{key[:80]!r} is no measurement")
        for name in MEASURES:
            value = result.get(name)
            if value is not None and (number_of(value) is None or not 0 <= value < 1e12):
                raise ValueError(f"{name} of {key[:80]} is {value!r:.80}")
        if not isinstance(result.get("error", ""), str):
            raise ValueError(f"the error of {key[:80]} is no text")  # noqa: TRY004 - a fault of data, not of a type

"""The table of many plans: one flat row each, for people, data frames and notebooks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import table
from ..units import Size
from .pareto import Pareto
from .report import Plan
from .speed import speed
from .verdict import verdict

__all__ = ["COLUMNS", "Survey", "row_of", "row_of_error"]

# Keys of sizes end in _bytes; decode_tps is the likely figure; max_context is with everything else as in the row; left is
# what stays free on the fullest card. A row that could not be planned has an error and None elsewhere.
COLUMNS = (
    "model",
    "format",
    "bpw",
    "context",
    "cache",
    "fits",
    "split",
    "needed_bytes",
    "left_bytes",
    "host_bytes",
    "max_context",
    "decode_tps",
    "why",
    "error",
)


def row_of(plan: Plan, max_context: int) -> dict[str, Any]:
    """One plan as a row; `max_context` is given, for it is the same at every context."""
    rate = speed(plan.request, plan.outcome).decode_tps
    used = [use for use in plan.devices if use.used]
    return {
        "model": plan.request.spec.name,
        "format": plan.request.spec.format,
        "bpw": plan.request.spec.bpw,
        "context": plan.request.context,
        "cache": plan.request.rate.name,
        "fits": plan.fits,
        "split": plan.split,
        "needed_bytes": sum(int(use.needed) for use in used),
        "left_bytes": min((int(use.left) for use in used), default=None),
        "host_bytes": int(plan.host),
        "max_context": max_context,
        "decode_tps": None if rate is None or not plan.fits else round(rate[1], 1),
        "why": verdict(plan),
        "error": None,
    }


def row_of_error(model: str, error: Exception, **known: Any) -> dict[str, Any]:
    """What could not be planned, with what is known of it."""
    return dict.fromkeys(COLUMNS) | {"model": model, "error": str(error)} | known


@dataclass(frozen=True, slots=True, repr=False)
class Survey:
    """Many plans. `rows` are flat dicts with the keys of COLUMNS, in the order of models, bits, caches and contexts."""

    rows: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the rows."""
        return {"rows": list(self.rows)}

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(list(self.rows), indent=indent)

    def pareto(self, x: str = "max_context", y: str = "bpw") -> Pareto:
        """What is traded: the rows that fit and that no other beats in both columns; a notebook shows the picture.

        Columns are those of planner.pareto.MEASURES. Raises ConfigError for another.
        """
        return Pareto.of(self.rows, x, y)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Survey of {len(self.rows)} plans, {sum(bool(row['fits']) for row in self.rows)} fit>"

    def __str__(self) -> str:
        lines = _table(self.rows)
        return table.text(lines, right=_figures(lines))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        lines = _table(self.rows)
        no = [place for place, row in enumerate(self.rows, 1) if not row["fits"]]
        return {"text/plain": str(self), "text/html": table.html(lines, right=_figures(lines), no=no)}


_HEAD = ("model", "bpw", "context", "cache", "fits", "split", "needed", "left", "max context", "tokens/s", "")


def _table(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Head and cells; the columns of bits per weight only where a row has any."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    shown = [index for index, name in enumerate(_HEAD) if name != "bpw" or any(row["bpw"] is not None for row in rows)]
    return [tuple(line[index] for index in shown) for line in lines]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    fits = {None: "error", True: "yes", False: "no"}[row["fits"]]
    size = {name: "" if row[name] is None else str(Size(row[name])) for name in ("needed_bytes", "left_bytes")}
    plain = {name: "" if row[name] is None else str(row[name]) for name in COLUMNS}
    return (
        plain["model"],
        plain["bpw"],
        plain["context"],
        plain["cache"],
        fits,
        plain["split"],
        size["needed_bytes"],
        size["left_bytes"],
        plain["max_context"],
        plain["decode_tps"],
        row["error"] or "",
    )


def _figures(lines: Sequence[Sequence[str]]) -> range:
    """All columns but the first and the last: the name, and the error."""
    return range(1, len(lines[0]) - 1)

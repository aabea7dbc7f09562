"""The plan of a whole fleet: one row a model, one group of models that stay together a line."""

from __future__ import annotations

import html as markup
import json
from dataclasses import dataclass
from typing import Any

from .. import table
from ..hardware.gpu import Gpu
from ..planner.report import Plan
from ..planner.verdict import verdict
from ..units import Size

__all__ = ["FleetPlan", "HostPlan", "Row"]

Named = tuple[str, str]  # server, model


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one server. `plan` is None where none was made: the file says what it `takes`, or `error` says why.

    `evicts` are the models of the same server that go when this one is loaded, `not_beside` those of other servers on the same
    machine that it does not fit beside. `fits`: alone, on its server's cards.
    """

    host: str
    server: str
    model: str
    local_name: str
    context: int | None
    cache: str | None = None
    plan: Plan | None = None
    takes: Size | None = None
    fits: bool | None = None
    error: str | None = None
    evicts: tuple[str, ...] = ()
    not_beside: tuple[Named, ...] = ()

    @property
    def needed(self) -> Size | None:
        """What it takes on cards, or in system RAM where there is no card."""
        if self.plan is None:
            return self.takes
        return Size(sum(use.needed for use in self.plan.devices if use.used)) if self.plan.devices else self.plan.host

    def to_dict(self) -> dict[str, Any]:
        """Flat, plain data; keys of sizes end in _bytes."""
        return {
            "host": self.host,
            "server": self.server,
            "model": self.model,
            "local_name": self.local_name,
            "context": self.context,
            "cache": self.cache,
            "fits": self.fits,
            "needed_bytes": None if self.needed is None else int(self.needed),
            "evicts": list(self.evicts),
            "not_beside": ["/".join(one) for one in self.not_beside],
            "why": None if self.plan is None else verdict(self.plan),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One machine. `together`: groups of (server, model) that fit at the same time; every model that fits is in one."""

    name: str
    cards: tuple[Gpu, ...]
    ram: Size | None
    together: tuple[tuple[Named, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "host": self.name,
            "cards": [card.to_dict() for card in self.cards],
            "ram_bytes": None if self.ram is None else int(self.ram),
            "together": [["/".join(one) for one in group] for group in self.together],
        }

    def __str__(self) -> str:
        cards = ", ".join(f"{card.name} ({card.free} free)" for card in self.cards) or "no card"
        ram = "" if self.ram is None else f", {self.ram} of system RAM"
        lines = [f"{self.name}: {cards}{ram}"]
        for group in self.together:
            said = " + ".join(model for _, model in group)
            lines.append(f"  stay together: {said}" if len(group) > 1 else f"  alone: {said}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, repr=False)
class FleetPlan:
    """Every model of a fleet on its own cards, as if nothing else ran there. `unlisted` servers are asked for their models."""

    path: str
    hosts: tuple[HostPlan, ...]
    rows: tuple[Row, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every model that could be planned fits on its server's cards."""
        return all(row.fits is not False for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; each planned row carries its whole plan."""
        return {
            "fits": self.fits,
            "hosts": [host.to_dict() for host in self.hosts],
            "models": [row.to_dict() | {"plan": None if row.plan is None else row.plan.to_dict()} for row in self.rows],
            "unlisted": list(self.unlisted),
        }

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent)

    def __repr__(self) -> str:
        return f"<FleetPlan of {len(self.rows)} models, {sum(bool(row.fits) for row in self.rows)} fit>"

    def __str__(self) -> str:
        return "\n".join([table.text([_HEAD, *map(_cells, self.rows)], right=_FIGURES), *self._notes()])

    def _notes(self) -> list[str]:
        unlisted = [f"{name}: asked for its models when it is used, and not planned" for name in self.unlisted]
        return [*unlisted, "", *map(str, self.hosts)]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        no = [place for place, row in enumerate(self.rows, 1) if row.fits is False]
        rows = table.html([_HEAD, *map(_cells, self.rows)], right=_FIGURES, no=no)
        return {"text/plain": str(self), "text/html": f"{rows}<pre>{markup.escape(chr(10).join(self._notes()))}</pre>"}


_HEAD = ("model", "server", "context", "cache", "fits", "needed", "loading it evicts", "")
_FIGURES = (2, 3, 5)


def _cells(row: Row) -> tuple[str, ...]:
    fits = {None: "not planned", True: "yes", False: "no"}[row.fits]
    said = [row.error or ""]
    if row.plan is not None and not row.fits:
        said.append(verdict(row.plan))
    if row.not_beside:
        said.append(f"not beside {', '.join('/'.join(one) for one in row.not_beside)}")
    context, needed = ("" if value is None else str(value) for value in (row.context, row.needed))
    return row.model, row.server, context, row.cache or "", fits, needed, ", ".join(row.evicts), "; ".join(filter(None, said))

"""Advance: how far a load is that has a drafter first and then the model, as one fraction of the bytes of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...planner.report import Plan
    from ..progress import Report

__all__ = ["Told", "draft_share", "part"]

Told = Callable[[int, int], None]  # (modules loaded, modules in all), as the engines' loaders call it


def draft_share(plan: Plan) -> float:
    """How much of the bytes to load are the drafter's."""
    draft = sum(use.draft for use in plan.devices)
    return draft / max(1, draft + sum(use.weights for use in plan.devices))


def part(report: Report, start: float, end: float, message: str) -> Told:
    """What to tell modules to, so that all of them take `report` from the one fraction to the other."""
    return lambda done, count: report(start + (end - start) * done / count, message)

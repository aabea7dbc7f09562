"""Bench: any two of backend, engine and address, measured side by side in one run; and whether a draft pays."""

from __future__ import annotations

from .compare import compare
from .report import Report
from .speculation import Advice
from .sweep import sweep

__all__ = ["Advice", "Report", "compare", "sweep"]

"""LoadReport: what a load was predicted to take on each device, and what it took."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..units import Size

__all__ = ["DeviceLoad", "LoadReport"]


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """One device: bytes that the plan says lie there once the model is loaded, and bytes that came to lie there.

    `predicted` is weights, cache, state, draft and the likely overhead; what only a running request needs is left out.
    None: not predicted, or not told by the system.
    """

    name: str
    predicted: Size | None
    actual: Size | None

    @property
    def error(self) -> float | None:
        """How far the prediction is off, as a share of what it took: 0.02 is 2 % too high."""
        if self.predicted is None or not self.actual:
            return None
        return (self.predicted - self.actual) / self.actual


@dataclass(frozen=True, slots=True)
class LoadReport:
    """`devices` in the plan's order, system memory last; `seconds` is the whole load; `warnings` are texts."""

    devices: tuple[DeviceLoad, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; sizes in bytes."""
        rows = [
            {"name": one.name, "predicted_bytes": _number(one.predicted), "actual_bytes": _number(one.actual), "error": one.error}
            for one in self.devices
        ]
        return {**asdict(self), "devices": rows, "warnings": list(self.warnings)}

    def __str__(self) -> str:
        lines = [f"loaded in {self.seconds:.1f} s", *(_line(one) for one in self.devices)]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def _number(size: Size | None) -> int | None:
    return None if size is None else int(size)


def _line(one: DeviceLoad) -> str:
    off = "" if one.error is None else f" ({one.error:+.1%})"
    return f"{one.name}: predicted {one.predicted or 'nothing'}, took {one.actual if one.actual is not None else 'unknown'}{off}"

"""One graphics card: what it has, what is free on it, who uses it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, UnknownGpu
from ..units import GIB, Size, gib
from .catalogue import Card, find

__all__ = ["Gpu", "GpuProcess"]

# What a driver and a desktop keep of an idle card that nobody measured: 0.3 to 0.7 GiB were seen between the total and
# what one process could use (an RTX 4090 of 24564 MiB has about 23592 MiB free when idle, exllamav3 issue 50).
ASSUMED_IN_USE = Size(round(0.6 * GIB))

# No card has more than 288 GB today. A larger number was meant as MiB.
MOST_MEMORY = Size(2048 * GIB)


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory on a card; `used` is None where the driver does not say (Windows, containers)."""

    pid: int
    name: str
    used: Size | None = None


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Gpu:
    """A card, by name from the catalogue or described by hand.

    `memory` and `free` are Size (bytes), `bandwidth` is GB/s (None when unknown), `capability` is CUDA's ("8.9").
    `assumed` says that `free` was not measured: memory less 0.6 GiB. `overhead` is what an engine's own process takes
    on this card before any weights, where somebody measured it; None lets the planner use its own range.
    """

    name: str
    memory: Size
    free: Size
    bandwidth: float | None
    capability: str | None
    processes: tuple[GpuProcess, ...]
    index: int | None
    uuid: str | None
    assumed: bool
    overhead: Size | None
    sms: int | None

    def __init__(
        self,
        name: str,
        *,
        memory: float | None = None,
        free: float | None = None,
        bandwidth: float | None = None,
        capability: str | None = None,
        overhead: float | None = None,
        processes: Iterable[GpuProcess] = (),
        index: int | None = None,
        uuid: str | None = None,
    ) -> None:
        """Sizes are GiB (a Size is taken as the bytes it is), bandwidth is GB/s.

        Raises UnknownGpu for a name that is not in the catalogue and comes without memory, ConfigError for a size or
        speed that no card can have.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"Gpu name={name!r} is not a name", hint="for example 'RTX 4090'")
        given = None if memory is None else _memory(memory)
        card = _card(name, given)
        total = given if given is not None else card.memory if card else Size(0)
        room = max(Size(0), Size(total - ASSUMED_IN_USE)) if free is None else _size(free, "free")
        if room > total:
            raise ConfigError(f"free={room} is more than the memory of {name} ({total})", hint="free is in GiB")
        values = {
            "name": _label(card, total) if card else name.strip(),
            "memory": total,
            "free": room,
            "bandwidth": _bandwidth(bandwidth) if bandwidth is not None else card.bandwidth if card else None,
            "capability": _capability(capability) if capability is not None else card.capability if card else None,
            "processes": tuple(processes),
            "index": index,
            "uuid": uuid,
            "assumed": free is None,
            "overhead": None if overhead is None else _size(overhead, "overhead"),
            "sms": card.sms if card else None,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; keys of sizes end in _bytes, bandwidth is GB/s."""
        return {
            "name": self.name,
            "index": self.index,
            "uuid": self.uuid,
            "memory_bytes": int(self.memory),
            "free_bytes": int(self.free),
            "free_is_assumed": self.assumed,
            "bandwidth": self.bandwidth,
            "capability": self.capability,
            "processes": [
                {"pid": one.pid, "name": one.name, "used_bytes": None if one.used is None else int(one.used)}
                for one in self.processes
            ],
        }

    def __repr__(self) -> str:
        free = f"{self.free} free{' (assumed)' if self.assumed else ''}"
        speed = "" if self.bandwidth is None else f", {self.bandwidth:g} GB/s"
        return f"<Gpu {self.name}: {self.memory}, {free}{speed}>"


def _card(name: str, memory: Size | None) -> Card | None:
    try:
        return find(name, memory)
    except UnknownGpu:
        if memory is None:
            raise
        return None  # described by hand


def _label(card: Card, memory: Size) -> str:
    # Drivers show up to 2 % less than a row says. Further off it is a changed card, and the row's size would mislead.
    return card.name if abs(card.memory - memory) < 0.05 * card.memory else card.base


def _size(value: float, name: str) -> Size:
    return value if isinstance(value, Size) else gib(value, name)


def _memory(value: float) -> Size:
    memory = _size(value, "memory")
    if memory == 0:
        raise ConfigError("memory=0: a card has some memory", hint="give GiB, for example 24")
    if memory >= MOST_MEMORY:
        raise ConfigError(f"memory={value:g} GiB: that looks like MB", hint=f"memory is in GiB: {value / 1024:g}")
    return memory


def _bandwidth(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"bandwidth={value!r} is not a speed", hint="give GB/s, for example 1008")
    return float(value)


def _capability(value: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,2}\.\d", value):
        raise ConfigError(f"capability={value!r} is not a CUDA compute capability", hint="for example '8.9'")
    return value

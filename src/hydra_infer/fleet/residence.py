"""Which models can lie on one machine's cards at the same time, and which must go when another comes. Pure arithmetic.

How servers make room: TabbyAPI holds one model (common/model.py at e632af4 unloads before it loads). Ollama (fb30760, sched.go)
keeps up to three models per card, and lets a further one in where its file and cache are at most 80 % of what is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..hardware.gpu import Gpu
from ..planner.report import Plan
from ..planner.request import cards_of
from ..units import Size

if TYPE_CHECKING:
    from .schema import Card

__all__ = ["Residence", "Tenant", "gpu_of"]

_OLLAMA_PER_CARD, _OLLAMA_SHARE = 3, 0.8


@dataclass(frozen=True, slots=True)
class Tenant:
    """One model as one server would load it, on `cards`, positions among its host's.

    `memory` is its plan, or the bytes that it takes on one card (or in system RAM) where nobody can plan it.
    """

    server: str
    kind: str
    model: str
    memory: Plan | Size
    cards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Residence:
    """One machine: its cards, and the bytes of system RAM that models may take (None: not known, and not judged)."""

    cards: tuple[Gpu, ...]
    ram: Size | None

    def holds(self, tenants: Sequence[Tenant]) -> bool:
        """Whether these fit at the same time, loaded in this order."""
        counts = Counter(tenant.server for tenant in tenants)
        if any(counts[tenant.server] > _most(tenant) for tenant in tenants):
            return False
        free, ram, seen = [card.free for card in self.cards], self.ram, set[str]()
        for tenant in tenants:
            room = [free[card] for card in tenant.cards]
            if tenant.server in seen and room and _predicted(tenant) > _OLLAMA_SHARE * sum(room):
                return False
            seen.add(tenant.server)
            taken = self._taken(tenant, room, ram)
            if taken is None:
                return False
            for card, size in zip(tenant.cards, taken[:-1], strict=True):
                free[card] = Size(max(0, free[card] - size))
            ram = None if ram is None else Size(max(0, ram - taken[-1]))
        return True

    def _taken(self, tenant: Tenant, room: list[Size], ram: Size | None) -> list[Size] | None:
        """What it takes of each card and, last, of system RAM; None where it does not fit."""
        if isinstance(tenant.memory, Size):
            return _on_first_card(tenant.memory, room, ram)
        gpus = tuple(_with_free(self.cards[card], size) for card, size in zip(tenant.cards, room, strict=True))
        plan = Plan.of(replace(tenant.memory.request, gpus=gpus, ram=ram))
        return [*(use.needed if use.used else Size(0) for use in plan.devices), plan.host] if plan.fits else None

    def groups(self, tenants: Sequence[Tenant]) -> list[tuple[Tenant, ...]]:
        """Who can stay together: each group begins with the first one not yet in any, and takes in all that still fit."""
        found: list[tuple[Tenant, ...]] = []
        for first in tenants:
            if any(first in group for group in found):
                continue
            group = [first]
            for other in tenants:
                if other not in group and self.holds([*group, other]):
                    group.append(other)
            found.append(tuple(group))
        return found

    def displaced(self, by: Tenant, tenants: Sequence[Tenant]) -> tuple[list[Tenant], list[Tenant]]:
        """Whom `by` would not fit beside: those of its own server, which that takes out for it, and those of others."""
        others = [one for one in tenants if one is not by and not self.holds([one, by])]
        return [one for one in others if one.server == by.server], [one for one in others if one.server != by.server]


def gpu_of(card: Card) -> Gpu:
    """The card meant by a table of the file. Raises UnknownGpu and ConfigError."""
    if card.memory is None and card.free is None and card.bandwidth is None:
        return cards_of(card.name)[0]
    return Gpu(card.name, memory=card.memory, free=card.free, bandwidth=card.bandwidth)


def _most(tenant: Tenant) -> int:
    """How many models its server holds at once."""
    return _OLLAMA_PER_CARD * max(1, len(tenant.cards)) if tenant.kind == "ollama" else 1


def _predicted(tenant: Tenant) -> Size:
    """What Ollama expects of a model before it loads it: its file and its cache."""
    if isinstance(tenant.memory, Size):
        return tenant.memory
    return Size(tenant.memory.host_use.weights + sum(use.weights + use.cache for use in tenant.memory.devices))


def _on_first_card(takes: Size, room: list[Size], ram: Size | None) -> list[Size] | None:
    """A model of a known size: on the first card with room for it, in system RAM where there is no card."""
    nothing = [Size(0)] * len(room)
    if not room:
        return [takes] if ram is None or takes <= ram else None
    card = next((number for number, size in enumerate(room) if takes <= size), None)
    return None if card is None else [*nothing[:card], takes, *nothing[card + 1 :], Size(0)]


def _with_free(card: Gpu, free: Size) -> Gpu:
    return Gpu(
        card.name, memory=card.memory, free=free, bandwidth=card.bandwidth, capability=card.capability, overhead=card.overhead
    )

"""What a Router knows of one backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..wire.dialect import Look
from ..wire.tabby import ANY_MODEL
from ..wire.trouble import Failure
from .backend import Backend, LocalModel
from .ledger import Entry

__all__ = ["NEVER", "Candidate", "Place", "State"]

NEVER = float("-inf")


@dataclass(slots=True, eq=False)
class Place:
    """What is known of one backend. Only the Pool writes here, under its lock."""

    backend: Backend
    position: int
    in_flight: int = 0
    rests_until: float | None = None  # set by a failure; None again after the next success
    probing: bool = False  # rest is over, and one request is finding out
    last: Failure | None = None
    missing: dict[str, float] = field(default_factory=dict)  # local model name -> rest until
    told: Look | None = None  # what the server says of itself
    told_at: float = NEVER
    contexts: dict[str, int] = field(default_factory=dict)  # what each model is asked for with, once and for all
    loaded_with: tuple[str, dict[str, Any]] | None = None  # what this router last loaded there, and how
    answered: int = 0
    failed: int = 0
    ttft: float | None = None  # seconds, a moving average over answers
    decode_tps: float | None = None  # tokens per second after the first, likewise
    ledger: dict[str, Entry] = field(default_factory=dict)  # by model
    heard_by: list[set[int]] = field(default_factory=list)  # who keeps this place in an order: told its position

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return self.backend.max_parallel is not None and self.in_flight >= self.backend.max_parallel

    @property
    def names(self) -> Iterable[str]:
        """The model names, by the backend's own table or by the server's own word."""
        if self.backend.models is not None:
            return self.backend.models
        return self.told.models if self.told else ()

    @property
    def in_memory(self) -> tuple[str, ...] | None:
        """The local names of what it has in memory; an engine is its own model, TabbyAPI's "default" is none."""
        if self.backend.kind == "engine":
            return tuple(self.names)
        if self.told is None or self.told.loaded is None:
            return None
        return tuple(name for name in self.told.loaded if (self.backend.kind, name) != ("tabby", ANY_MODEL))

    def local(self, model: str) -> LocalModel | None:
        """What it calls `model`; None when it does not serve that."""
        if self.backend.models is not None:
            return self.backend.models.get(model)
        return LocalModel(model) if model in self.names else None

    def is_loaded(self, local: LocalModel) -> bool:
        """Whether the server said that it has the model in memory."""
        return self.told is not None and local.name in (self.told.loaded or ())

    def is_cold(self, local: LocalModel) -> bool:
        """Whether the server said what it has in memory, and the model is not among it."""
        return self.told is not None and self.told.loaded is not None and local.name not in self.told.loaded

    def context(self, local: LocalModel) -> int | None:
        """The context (tokens) that the model has there: as configured, else as the server told; None when nobody said."""
        configured = local.context or self.backend.context or self.contexts.get(local.name)
        if configured or self.told is None or self.told.loaded is None:
            return configured
        return self.told.loaded.get(local.name)

    def changed(self) -> None:
        """Have every order in which this place stands look at it again."""
        for positions in self.heard_by:
            positions.add(self.position)


class Candidate(NamedTuple):
    """A backend that serves a model, and its own name for it."""

    place: Place
    local: LocalModel

    @property
    def is_cold(self) -> bool:
        """Whether the model is known not to be in memory there."""
        return self.place.is_cold(self.local)

    @property
    def context(self) -> int | None:
        """The context (tokens) that the model has there; None when nobody said."""
        return self.place.context(self.local)


@dataclass(frozen=True, slots=True)
class State:
    """A copy of one backend's facts for people to read."""

    state: str  # "ready" | "resting" | "probing" | "full" | "misconfigured"
    in_flight: int
    rests_for: float
    why: str
    answered: int
    failed: int
    models: tuple[str, ...] | None
    loaded: tuple[str, ...] | None
    decode_tps: float | None

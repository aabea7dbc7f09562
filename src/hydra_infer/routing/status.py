"""How the backends are, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .. import table

__all__ = ["BackendStatus", "Status"]


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend: whether it answered when asked and in how many seconds, and what the Router holds of it.

    `slots`: how many calls it may have in flight, None for any number. `loaded`: its own names of the models it has in memory,
    None where a server does not tell. `decode_tps`: tokens per second after the first, a moving average over answers.
    """

    name: str
    kind: str
    url: str
    reachable: bool
    seconds: float
    error: str
    state: str
    in_flight: int
    rests_for: float
    why: str
    answered: int
    failed: int
    models: tuple[str, ...] | None
    slots: int | None
    loaded: tuple[str, ...] | None
    decode_tps: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        lists = {"models": self.models, "loaded": self.loaded}
        return asdict(self) | {name: None if names is None else list(names) for name, names in lists.items()}


@dataclass(frozen=True, slots=True)
class Status:
    """Every backend's status, in list order; iterate it, index it, or print it. `queued`: calls that wait for a slot."""

    backends: tuple[BackendStatus, ...]
    queued: int

    @property
    def healthy(self) -> bool:
        """Whether every backend answered and none is resting."""
        return all(row.reachable and row.rests_for == 0 for row in self.backends)

    def __iter__(self) -> Iterator[BackendStatus]:
        return iter(self.backends)

    def __len__(self) -> int:
        return len(self.backends)

    def __getitem__(self, key: int | str) -> BackendStatus:
        if isinstance(key, int):
            return self.backends[key]
        for row in self.backends:
            if row.name == key:
                return row
        raise KeyError(key)

    def __str__(self) -> str:
        return table.text([_HEAD, *map(_cells, self.backends)])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        no = [place for place, row in enumerate(self.backends, 1) if not row.reachable or row.rests_for]
        return {"text/plain": str(self), "text/html": table.html([_HEAD, *map(_cells, self.backends)], no=no)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"backends": [row.to_dict() for row in self.backends], "queued": self.queued}


_HEAD = ("backend", "kind", "reachable", "state", "models", "")


def _cells(row: BackendStatus) -> tuple[str, ...]:
    reach = f"{row.seconds * 1000:.0f} ms" if row.reachable else "no"
    state = f"{row.state} {row.rests_for:.0f} s" if row.rests_for else row.state
    models = "not known" if row.models is None else ", ".join(row.models[:4]) + (" …" if len(row.models) > 4 else "")
    # TabbyAPI answers chats only while it has one; Ollama loads what it is asked for.
    empty = "no model is loaded" if row.kind == "tabby" and row.loaded == () else ""
    return row.name, row.kind, reach, state, models, row.error or row.why or empty

"""One change of what a server has loaded, as routing sees it: what is wished, the instructions that come of it, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..wire.exchange import WireRequest
from ..wire.lifecycle import Reading, Wish
from .backend import Backend
from .call import Limits

__all__ = ["Ask", "Change", "Errand", "Foresee", "Foresight", "Progressed"]


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be done: `verb` is "load", "unload" or "pull"; `backend` names the server, None leaves the choice.

    `timeout`: the longest silence, in seconds; a server that shows progress is alive. `ends_at`: the deadline, an instant.
    """

    verb: str
    model: str
    backend: str | None = None
    wish: Wish = field(default_factory=Wish)
    force: bool = False
    timeout: float = 600.0
    connect: float = 2.0
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this and give the answer to `reading` as it comes. Sent back: None, or the Failure of the connection."""

    backend: Backend
    model: str
    request: WireRequest
    reading: Reading
    limits: Limits


@dataclass(frozen=True, slots=True)
class Foresee:
    """Plan this load. Sent back: the Foresight; a plan that does not fit raises DoesNotFit. `model`: as callers name it."""

    backend: Backend
    model: str
    local_name: str
    wish: Wish


@dataclass(frozen=True, slots=True)
class Foresight:
    """What planning said: `note` in words, `settings` to load exactly that with; `plan` is None where none could be made."""

    note: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a load or a pull is: `fraction` from 0 to 1, None where the server does not say."""

    backend: str
    model: str
    fraction: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """What load(), unload() or pull() did. `changed` is False where it was so already.

    `replaced` are the server's names of models that were loaded there and no longer are; `planned` says what planning said,
    and `plan` is the Plan where there is one. `seconds` from asking to the end.
    """

    verb: str
    backend: str
    model: str
    local_name: str
    changed: bool
    context: int | None = None
    replaced: tuple[str, ...] = ()
    planned: str = ""
    plan: Any = field(default=None, repr=False, compare=False)
    seconds: float = 0.0

    def __str__(self) -> str:
        name = self.model if self.model == self.local_name else f"{self.model} ({self.local_name})"
        state = {"load": "loaded", "unload": "not loaded", "pull": "there"}[self.verb]
        said = f"{name} is {state} on {self.backend}" + ("" if self.changed else ", as it was before")
        context = f", context {self.context}" if self.context and self.verb == "load" else ""
        replaced = f"; no longer loaded there: {', '.join(self.replaced)}" if self.replaced else ""
        return said + context + replaced + (f" ({self.planned})" if self.planned else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the plan as its own dict."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        return facts | {"replaced": list(self.replaced), "plan": None if self.plan is None else self.plan.to_dict()}

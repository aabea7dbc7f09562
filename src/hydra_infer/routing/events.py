"""What a Router tells of its calls while they go on. Figures and names only: no prompt, no answer, no server's words, no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .call import Ended
    from .verdict import GaveUp

__all__ = ["Attempted", "Event", "Failed", "Finished", "Rested", "Tell", "fields_of", "nobody"]


class Attempted(NamedTuple):
    """One backend was asked. `result` is "answered" or the kind of trouble, `seconds` until the first token or the failure.

    `number` counts the attempts of its call, from 1: an answer to a later one is a failover, or a retry that helped.
    """

    backend: str
    model: str
    local_name: str
    result: str
    status: int | None
    seconds: float
    number: int

    @property
    def kind(self) -> str:
        """What it is called in logs."""
        return "attempt"

    @property
    def good(self) -> bool:
        """Nothing to worry about."""
        return self.result == "answered"

    def __str__(self) -> str:
        later = f", attempt {self.number}" if self.number > 1 else ""
        return f"{self.backend}: {self.result} for {self.model} after {self.seconds:.3f} s{later}"


class Rested(NamedTuple):
    """A backend is left alone for `seconds`, or only a model on it (result "no model")."""

    backend: str
    model: str
    result: str
    seconds: float

    @property
    def kind(self) -> str:
        """What it is called in logs."""
        return "rest"

    @property
    def good(self) -> bool:
        """Trouble, always."""
        return False

    def __str__(self) -> str:
        return f"{self.backend}: left alone for {self.seconds:.1f} s, {self.result} for {self.model}"


class Finished(NamedTuple):
    """An answer is over: "whole", "broken" off by its server, or "left" by the caller. Token counts are the server's."""

    backend: str
    model: str
    result: str
    ttft: float | None
    seconds: float
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def kind(self) -> str:
        """What it is called in logs."""
        return "end"

    @classmethod
    def of(cls, backend: str, model: str, ended: Ended) -> Finished:
        """How the answer ended."""
        result = "broken" if ended.failure else "left" if ended.left else "whole"
        usage = ended.usage
        return cls(backend, model, result, ended.ttft, ended.seconds, usage.prompt_tokens, usage.completion_tokens)

    @property
    def good(self) -> bool:
        """Nothing to worry about."""
        return self.result != "broken"

    def __str__(self) -> str:
        return f"{self.backend}: {self.result} answer for {self.model} after {self.seconds:.3f} s"


class Failed(NamedTuple):
    """A call without an answer: "refused" for its own fault, past its "deadline", for an "unknown" model, or "failed"."""

    model: str
    result: str
    attempts: int
    seconds: float

    @property
    def kind(self) -> str:
        """What it is called in logs."""
        return "failure"

    @property
    def good(self) -> bool:
        """Trouble, always."""
        return False

    @classmethod
    def of(cls, verdict: GaveUp, seconds: float) -> Failed:
        """Why nobody answered."""
        result = "unknown" if verdict.unknown else "deadline" if verdict.out_of_time else "refused" if verdict.final else "failed"
        return cls(verdict.model, result, len(verdict.outcomes), round(seconds, 6))

    def __str__(self) -> str:
        return f"{self.model}: {self.result} after {self.attempts} attempts and {self.seconds:.3f} s"


Event = Attempted | Rested | Finished | Failed
Tell = Callable[[Event], None]


def fields_of(event: Event) -> dict[str, Any]:
    """An event as plain data, for structured logs."""
    return {"event": event.kind, **event._asdict()}


def nobody(event: Event) -> None:
    """Nobody listens."""

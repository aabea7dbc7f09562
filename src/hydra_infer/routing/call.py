"""One call as routing sees it: which models may answer, under which limits; and the instructions that come out of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tenacity.wait import wait_base, wait_random_exponential

from ..reply import Usage
from ..wire.question import Question
from ..wire.trouble import Failure
from .backend import Backend, LocalModel

__all__ = ["Attempt", "Call", "Ended", "Limits", "Outcome", "Pause", "Policy", "Probe", "Serve", "Started", "Wait"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A Router's settings; see Router for what each means. `wait` is any tenacity wait, consulted for a lone candidate."""

    connect_timeout: float = 2.0
    first_token_timeout: float | None = None
    idle_timeout: float = 60.0
    timeout: float = 600.0
    queue_timeout: float = 5.0
    deadline: float | None = None
    retries: int = 2
    cooldown: float = 30.0
    wait: wait_base = field(default_factory=lambda: wait_random_exponential(multiplier=0.5, max=8))


class Call(NamedTuple):
    """One call. `models`: the one named, then its fallbacks, in order. `ends_at`: the instant by which all must be over.

    `mode`: "reply" (we stream upstream and assemble), "stream" (pieces go on as they come), "plain" (one body, as it is).
    """

    question: Question
    models: tuple[str, ...]
    mode: str = "reply"
    tags: frozenset[str] = frozenset()
    timeout: float | None = None
    first_token_timeout: float | None = None
    ends_at: float | None = None


class Limits(NamedTuple):
    """One attempt's timers in seconds; None: not bounded by this one. `ends_at` is an instant, the call's deadline.

    `first`: until the first token, or the complete body of a plain call. `idle`: between tokens, pings are none.
    `whole`: until the complete answer. The `…_name`s say which setting to blame when one expires. `silence`: how long the
    gap between tokens may grow when, asked at each `idle`, the server still holds the model; None: it is not asked.
    `sign`: what is waited for, in messages.
    """

    connect: float
    first: float
    first_name: str
    idle: float
    idle_name: str
    whole: float | None
    ends_at: float | None
    silence: float | None = None
    sign: str = "token"

    def patience(self, now: float) -> float:
        """Seconds that may pass from now until the first token."""
        return self.first if self.ends_at is None else max(0.0, min(self.first, self.ends_at - now))


class Outcome(NamedTuple):
    """What became of one attempt; `reply.attempts` and `error.attempts` are made of these.

    `result` is "answered" or the kind of trouble; `seconds` from asking to the first token or the failure.
    """

    backend: str
    model: str
    local_name: str
    result: str
    message: str = ""
    status: int | None = None
    seconds: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether this attempt brought the answer."""
        return self.result == "answered"

    def __str__(self) -> str:
        return f"{self.backend}: answered" if self.answered else f"{self.backend}: {self.message or self.result}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, times to the microsecond."""
        return {**self._asdict(), "seconds": round(self.seconds, 6)}


# ---- instructions, and what is sent back for each ------------------------------------------------------------


class Attempt(NamedTuple):
    """Ask this backend. Sent back: Started, or the Failure."""

    backend: Backend
    local: LocalModel
    model: str
    limits: Limits
    context: int | None = None  # the number of tokens to serve it with, for servers that are told
    cold: bool = False  # the model is known not to be loaded there: have it loaded first, where the dialect can


class Serve(NamedTuple):
    """It has answered: pass its answer on. Sent back: Ended, when that is over. `outcomes`: every attempt of the call."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next step. Sent back: None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the ticket at most so long. Sent back: None; the ticket itself tells what came of it."""

    ticket: Future[Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask these backends for their models, at most so long, all at once. Sent back: None; the pool is told."""

    backends: tuple[Backend, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Started:
    """The first token-bearing event, or the complete body, has arrived."""


class Ended(NamedTuple):
    """The answer is over: to its end, broken (`failure`), or left early by the caller (`left`).

    `ttft` and `seconds` are from asking; the token counts are the server's, None where it did not tell, and so is `cost`.
    """

    failure: Failure | None = None
    left: bool = False
    ttft: float | None = None
    seconds: float = 0.0
    usage: Usage = Usage()
    cost: float | None = None

"""One attempt until it is decided: the events so far, redirects within the server, one free retry."""

from __future__ import annotations

from ..routing.call import Attempt, Call
from ..wire.dialect import DIALECTS
from ..wire.exchange import Event, Exchange
from ..wire.openai import Target
from ..wire.trouble import Failure, Trouble
from .looks import hushed
from .upstream import LineFailed

__all__ = ["Opening", "still_loading"]

_MAX_HOPS = 3


class Opening:
    """One attempt until it is decided: the events so far, redirects within the server, one free retry."""

    def __init__(self, call: Call, step: Attempt) -> None:
        self._call, self._step = call, step
        self.exchange = exchange = _exchange(call, step)
        self.request = exchange.request
        self.events: list[Event] = []
        self._lost: Failure | None = None
        self.ended = self._retry = self._retried = False
        self._hops = 0

    @property
    def answered(self) -> bool:
        return self.exchange.answered and self.exchange.failure is None

    @property
    def undecided(self) -> bool:
        exchange = self.exchange
        return not (exchange.answered or self.ended or exchange.failure or exchange.moved)

    @property
    def failure(self) -> Failure:
        """Why there is no answer."""
        too_far = "too many redirects" if self.exchange.moved else "it ended without an answer"
        return hushed(self._lost or self.exchange.failure or Failure(Trouble.BROKEN, too_far), self._step.backend)

    def take(self, data: bytes) -> None:
        """A piece of the body, an empty one at its end."""
        self.ended = not data
        self.events += self.exchange.feed(data) if data else self.exchange.end()

    def lost(self, error: LineFailed) -> None:
        """The line failed. A server may close a kept connection at any time: then nothing was asked yet, and asking is free."""
        self._lost, self._retry = error.failure, error.stale and not self._retried

    def again(self) -> bool:
        """Whether to send once more, at once: after a stale connection, or where a redirect points to."""
        path = self.exchange.moved
        if self._retry:
            self._retried, self._retry, self._lost = True, False, None
            return True
        if path is None or self._lost or self._hops == _MAX_HOPS:
            return False
        self._hops += 1
        self.exchange = _exchange(self._call, self._step)
        self.request = self.exchange.request._replace(path=path)
        return True


def _exchange(call: Call, step: Attempt) -> Exchange:
    """The dialect's side of this attempt."""
    backend, local = step.backend, step.local
    return DIALECTS[backend.kind].open(call.question, Target(backend.url, local.name, backend.headers(), step.context))


def still_loading(step: Attempt) -> Failure:
    """The failure of an attempt that waited for its model to be loaded, and may not wait longer."""
    limits = step.limits
    message = f"the model is still being loaded after {limits.first:g} s ({limits.first_name}); that goes on"
    return Failure(Trouble.LOADING, message, limit=limits.first_name)

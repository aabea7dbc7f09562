"""A server's open connections, kept for the next call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["Kept"]


class _Connection(Protocol):
    """What httpcore's connections tell of themselves."""

    def is_available(self) -> bool: ...
    def has_expired(self) -> bool: ...


C = TypeVar("C", bound=_Connection)


class Kept(Generic[C]):
    """Connections to one server, the last used first; as many as there are calls at once.

    httpcore's own pool looks at every connection for every request, with a system call for each idle one: at 32 calls at once
    that is most of what a call costs. Here a call looks at the one that it takes. What is not to be used again is handed out for
    closing, since only the caller knows whether that must be awaited.
    """

    def __init__(self, make: Callable[[], C], keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._keep, self._clock = make, keep, clock
        self._lock = threading.Lock()
        self._idle: deque[tuple[float, C]] = deque()  # with the time of its last use, the oldest first
        self._open: set[C] = set()

    def take(self) -> tuple[C, list[C]]:
        """A connection for one request, kept or new; and those that turned out to be spent."""
        with self._lock:
            spent = []
            while self._idle:
                _, connection = self._idle.pop()
                if not connection.has_expired():
                    break
                spent.append(connection)
            else:
                connection = self._make()
                self._open.add(connection)
            self._open.difference_update(spent)
            return connection, spent

    def give(self, connection: C) -> list[C]:
        """Its request is over: keep it, unless it cannot be used again. Gives those that are spent, old ones among them."""
        now = self._clock()
        with self._lock:
            spent = []
            if connection.is_available() and connection in self._open:
                self._idle.append((now, connection))
            else:
                spent.append(connection)
            while self._idle and now - self._idle[0][0] > self._keep:
                spent.append(self._idle.popleft()[1])
            self._open.difference_update(spent)
            return spent

    def renew(self) -> None:
        """In a forked child, where whoever held the lock may be gone."""
        self._lock = threading.Lock()

    def clear(self) -> list[C]:
        """All of them, in use or not; none is kept any more."""
        with self._lock:
            spent = list(self._open)
            self._open.clear()
            self._idle.clear()
            return spent

"""One at a time per server: who may change what a server has loaded, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

__all__ = ["Turn", "Turns"]

Turn = Future[None]


class Turns:
    """A line of tickets before each address, shared by all threads and event loops. Two rows for one address share its line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Turn]] = {}

    def take(self, url: str) -> Turn:
        """A ticket: done when it is its holder's turn. Give it back by `leave`, whether it came to that or not."""
        turn: Turn = Future()
        with self._lock:
            line = self._lines.setdefault(url, deque())
            line.append(turn)
            first = len(line) == 1
        if first:
            turn.set_result(None)
        return turn

    def renew(self) -> None:
        """In a forked child: its parent's turns are not its own."""
        self._lock = threading.Lock()
        self._lines.clear()

    def leave(self, url: str, turn: Turn) -> None:
        """The turn is over, or not waited for any longer."""
        with self._lock:
            line = self._lines.get(url)
            if line is None or turn not in line:  # a parent's, in its forked child
                return
            was_first = line[0] is turn
            line.remove(turn)
            following = line[0] if was_first and line else None
        if following is not None:
            following.set_result(None)  # outside the lock: waking a waiter runs its callbacks

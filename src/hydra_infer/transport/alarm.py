"""One timer for all attempts that an event loop makes over one line."""

from __future__ import annotations

import asyncio
import math
from operator import attrgetter
from typing import Protocol

__all__ = ["Alarm", "Watched"]


class Watched(Protocol):
    """An attempt as an alarm sees it: the instant by which something must have happened, by the clock it is told with."""

    due: float

    def left(self) -> float:
        """Seconds until `due`."""

    def look(self) -> None:
        """Act if it is time: move `due`, or end."""


class Alarm:
    """Looks at attempts when the first of them is due. Nearly all are over long before, and tokens move `due` all the time: a
    timer for each would cost a call more than reading its answer does."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = math.inf  # the instant for which it is set

    def add(self, watched: Watched) -> None:
        """Look at this one too, from the running event loop."""
        self._watched.add(watched)
        self.expect(watched)

    def discard(self, watched: Watched) -> None:
        """Look at it no more."""
        self._watched.discard(watched)

    def expect(self, watched: Watched) -> None:
        """Its `due` has been moved."""
        if watched.due < self._set_for:
            if self._timer is not None:
                self._timer.cancel()
            self._set_for = watched.due
            self._timer = asyncio.get_running_loop().call_later(max(0.0, watched.left()), self._ring)

    def _ring(self) -> None:
        self._timer, self._set_for = None, math.inf
        for watched in tuple(self._watched):
            watched.look()
        if self._watched:
            self.expect(min(self._watched, key=attrgetter("due")))

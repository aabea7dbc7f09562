"""Loading: how the thread that loads a model tells the one who waits how far it is, and is told to stop."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from ..errors import LoadError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .progress import Report

__all__ = ["Loading"]

# How often a waiting caller looks whether loading is over while nothing is reported; short enough to go unnoticed.
POLL = 0.1


class Loading:
    """`report` and `check` are for the loading thread, `wait` for the caller's.

    So the caller's progress function runs where the caller is (a notebook's widgets want that), and what it raises, like an
    interrupt from the keyboard, ends the load.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._news: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._cancelled = threading.Event()

    def report(self, fraction: float, message: str) -> None:
        """Say how far it is. Raises LoadError when nobody waits any more: the place to give up is between two modules."""
        self.check()
        self._news.put((fraction, message))

    def check(self) -> None:
        """Raise LoadError when the caller has given up."""
        if self._cancelled.is_set():
            raise LoadError("loading was cancelled")

    def wait(self, ready: Future[Any]) -> None:
        """Pass on what is reported until `ready` is done; leaving early, by any exception, cancels the load."""
        try:
            while not ready.done():
                try:
                    self._report(*self._news.get(timeout=POLL))
                except queue.Empty:
                    continue
            while not self._news.empty():
                self._report(*self._news.get_nowait())
        except BaseException:
            self._cancelled.set()
            raise

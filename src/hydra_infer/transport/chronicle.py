"""Where a Router's events go: to the log "hydra_infer", one line each, to whoever listens, and the last troubles to memory."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from ..routing.events import Attempted, Event, fields_of

__all__ = ["Chronicle"]

_LOG = logging.getLogger("hydra_infer")
_LOG.addHandler(logging.NullHandler())  # silent until somebody configures logging
# What fits on one page.
REMEMBERED = 20


class Chronicle:
    """Takes events in the thread or event loop of their call. Trouble is a warning, everything else for debugging.

    `troubles` are the last ones and the answers that made up for them, oldest first, each with its time (seconds since 1970).
    """

    def __init__(self, listener: Callable[[Event], None] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._listener, self._clock = listener, clock
        self.troubles: deque[tuple[float, Event]] = deque(maxlen=REMEMBERED)

    @property
    def hears_good(self) -> bool:
        """Whether anybody takes what is no trouble: else it need not be made."""
        return self._listener is not None or _LOG.isEnabledFor(logging.DEBUG)

    def __call__(self, event: Event) -> None:
        is_good = event.good
        level = logging.DEBUG if is_good else logging.WARNING
        if _LOG.isEnabledFor(level):
            _LOG.log(level, "%s", event, extra=fields_of(event))
        if not is_good or (isinstance(event, Attempted) and event.number > 1):
            self.troubles.append((self._clock(), event))
        if self._listener is None:
            return
        try:
            self._listener(event)
        except Exception:  # noqa: BLE001 - a listener's fault is told, and is not the call's
            _LOG.exception("on_event failed")

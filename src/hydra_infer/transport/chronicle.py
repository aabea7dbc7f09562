"""Where a Router's events go: to the log "hydra_infer", one line each, and to whoever listens."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..routing.events import Event, fields_of

__all__ = ["Chronicle"]

_LOG = logging.getLogger("hydra_infer")
_LOG.addHandler(logging.NullHandler())  # silent until somebody configures logging


class Chronicle:
    """Takes events in the thread or event loop of their call. Trouble is a warning, everything else for debugging."""

    def __init__(self, listener: Callable[[Event], None] | None = None) -> None:
        self._listener = listener

    def __call__(self, event: Event) -> None:
        level = logging.DEBUG if event.good else logging.WARNING
        if _LOG.isEnabledFor(level):
            _LOG.log(level, "%s", event, extra=fields_of(event))
        if self._listener is None:
            return
        try:
            self._listener(event)
        except Exception:  # noqa: BLE001 - a listener's fault is told, and is not the call's
            _LOG.exception("on_event failed")

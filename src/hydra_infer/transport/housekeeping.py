"""What a Router does beside its calls: a cold model is loaded before it is asked, what is known of servers is kept fresh."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future

from ..routing.call import Attempt
from ..routing.pool import Pool
from ..wire.dialect import DIALECTS
from ..wire.trouble import Failure
from .errands import Errands
from .shell import LOOK_SECONDS, AsyncShell

__all__ = ["Housekeeping"]


class Housekeeping:
    """Errands, and when to run them. Leaving a cold Ollama aborts its load; an errand goes on when its caller moves on."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._clock, self._errands = pool, clock, Errands()
        self._shell = AsyncShell(pool, self, clock)

    def before(self, step: Attempt) -> Future[Failure | None] | None:
        """What must be waited for before an attempt: the load of a cold model, or nothing. Others' loads are joined."""
        backend = step.backend
        for stale in self._pool.stale():
            self._errands.run(stale.name, functools.partial(self._shell.look, [stale], LOOK_SECONDS))
        if not step.cold or DIALECTS[backend.kind].warm is None:
            return None
        return self._errands.run((backend.name, step.local.name), lambda: self._shell.warm(step))

    def renew(self) -> None:
        """In a forked child: nothing goes on yet."""
        self._errands.renew()

    def close(self) -> None:
        """Stop whatever goes on."""
        self._errands.close()

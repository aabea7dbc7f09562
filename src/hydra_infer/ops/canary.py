"""One token from one server: what proves that it serves, which no status page does."""

from __future__ import annotations

import time

from ..router import Router
from ..routing.backend import Backend

__all__ = ["canary"]


def canary(backend: Backend, model: str, *, embeds: bool = False, seconds: float = 60.0) -> float:
    """Have the server answer with one token (or a vector), by no other server and no other model; gives the seconds it took.

    Raises what the Router raises: AllBackendsFailed, Refused, DeadlineExceeded, ….
    """
    began = time.monotonic()
    with Router([backend], retries=0) as router:
        if embeds:
            router.embed(model, "hi", deadline=seconds)
        else:
            router.chat(model, "hi", max_tokens=1, fallback=False, deadline=seconds)
    return time.monotonic() - began

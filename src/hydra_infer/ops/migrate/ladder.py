"""The readiness ladder of a TabbyAPI: does it listen, has it the model, does it answer? Only the last rung proves anything.

/health proves nothing: it is 200 with no model loaded and 503 for ever after one failed answer (TabbyAPI e632af4,
common/health.py). While it loads a model at its start its port is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...engines.progress import Report, quiet
from ...errors import DeadlineExceeded, LoadError, Refused
from ...routing.backend import Backend
from ..asking import Answer, ask
from ..canary import canary
from .move import Server

__all__ = ["climb"]

_PAUSE = 0.2
# One token takes as long as that on a slow card, however late the model came.
_LEAST_CANARY = 10.0


def climb(
    server: Server,
    *,
    api_key: str | None = None,
    timeout: float = 600.0,
    ended: Callable[[], str | None] = lambda: None,
    report: Report = quiet,
) -> None:
    """Return when the server has answered with one token of its model; for one that loads none at start, when it listens.

    `ended` says how its process ended, where it has. Raises LoadError for a process that ended, for no model and for a wrong
    one, Refused for a wrong key and for what is no TabbyAPI, DeadlineExceeded after `timeout` seconds, and what the first
    answer raises.
    """
    ends_at = time.monotonic() + timeout
    backend = Backend.tabby(server.url, api_key=api_key)
    report(0.1, f"waiting for {server.url}")
    while (answer := ask(backend, "/v1/model", headers=backend.headers())).status == 0:
        if (how := ended()) is not None:
            raise LoadError(f"the server for {server.url} ended: {how}")
        if time.monotonic() >= ends_at:
            raise DeadlineExceeded(
                f"nothing usable at {server.url} after {timeout:g} s: {answer.trouble}", hint="its log says more"
            )
        time.sleep(_PAUSE)
    model = loaded(server, answer)
    if model is not None:
        report(0.8, f"{model} is loaded")
        canary(backend, model, seconds=max(_LEAST_CANARY, ends_at - time.monotonic()))
    report(1.0, f"{server.url} serves")


def loaded(server: Server, answer: Answer) -> str | None:
    """The model that an answer to GET /v1/model shows, None where none is loaded and none is wanted; otherwise see climb()."""
    if answer.status == 503 and server.model is None:
        return None
    if answer.status == 503:
        raise LoadError(f"{server.url} is up without {server.model}, which it was to load at its start", hint="its log says why")
    model = answer.get("id")
    if answer.status != 200 or not isinstance(model, str):
        hint = "give its API key" if answer.status == 401 else "is it a TabbyAPI?"
        raise Refused(f"{server.url}/v1/model answers {answer.status} and no model's card", hint=hint, status=answer.status)
    if server.model not in (None, model):
        raise LoadError(
            f"{server.url} has {model} loaded, not {server.model}",
            hint="an older process may still hold the port: who listens there?",
        )
    return model

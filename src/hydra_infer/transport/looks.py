"""What servers say of themselves, read: which models they have, and which of them are in memory."""

from __future__ import annotations

from dataclasses import replace

from ..configs.secrets import HIDDEN
from ..routing.backend import Backend
from ..routing.call import Attempt
from ..wire.bounds import MAX_LIST_BYTES
from ..wire.dialect import DIALECTS, Look
from ..wire.exchange import broken
from ..wire.openai import Target
from ..wire.trouble import Failure, Trouble, failure_of_status
from .upstream import LineFailed

__all__ = ["Body", "Got", "engine_look", "hushed", "loaded_path", "read_list", "shows", "target", "with_loaded"]

_LEAST_KEY = 6

Got = tuple[int, dict[str, str], bytes] | Failure  # status, headers and body of an answer


class Body:
    """The body of an answer that is no call's, as it comes. Raises LineFailed where it is longer than such answers are."""

    def __init__(self, most: int = MAX_LIST_BYTES) -> None:
        self._most, self._data = most, bytearray()

    def add(self, data: bytes) -> None:
        """The next piece."""
        self._data += data
        if len(self._data) > self._most:
            raise LineFailed(broken(f"the answer is larger than {self._most} bytes", None))

    @property
    def whole(self) -> bytes:
        """All of it."""
        return bytes(self._data)


def hushed(failure: Failure, backend: Backend) -> Failure:
    """The failure without the backend's keys: servers repeat a wrong one in their answers, and those are told to others."""
    message, body = failure.message, failure.body
    for key in filter(None, (backend.api_key, backend.admin_key)):
        if len(key) >= _LEAST_KEY:  # else it is no secret, and may be in any word
            message, body = message.replace(key, HIDDEN), body.replace(key.encode(), HIDDEN.encode())
    return failure if (message, body) == (failure.message, failure.body) else replace(failure, message=message, body=body)


def target(backend: Backend) -> Target:
    """Where a question about no model in particular goes."""
    return Target(backend.url, "", backend.headers())


def engine_look(backend: Backend) -> Look | Failure | None:
    """An engine in this process needs no asking."""
    return Look(list(backend.models or ())) if backend.kind == "engine" else None


def read_list(backend: Backend, got: Got) -> Look | Failure:
    """The models in an answer to the list path."""
    if isinstance(got, Failure):
        return got
    status, headers, body = got
    if status != 200:
        return hushed(failure_of_status(status, headers, body), backend)
    try:
        return Look(DIALECTS[backend.kind].read_list(body))
    except (ValueError, RecursionError) as error:
        return hushed(Failure(Trouble.BROKEN, str(error), status=status), backend)


def loaded_path(step: Attempt) -> str:
    """Where the attempt's server tells what it has loaded."""
    path = DIALECTS[step.backend.kind].loaded_path
    assert path is not None, "only a server that tells what it has loaded is asked for it"
    return path


def shows(step: Attempt, got: Got) -> bool:
    """Whether an answer shows the attempt's model as loaded; no answer shows nothing."""
    found = with_loaded(step.backend, Look([]), got)
    return step.local.name in (found.loaded or ())


def with_loaded(backend: Backend, look: Look, got: Got) -> Look:
    """The look with what is in memory. A server that will not say just now (Ollama while it loads) is no failure."""
    read = DIALECTS[backend.kind].read_loaded
    if read is None or isinstance(got, Failure) or got[0] not in (200, 503):
        return look
    try:
        return replace(look, loaded=read(got[2]) if got[0] == 200 else {})
    except (ValueError, RecursionError):
        return look

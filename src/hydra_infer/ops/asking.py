"""One short question to one server, bounded in time: what doctor and watch know of servers they know by this."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..routing.backend import Backend
from ..transport.upstream import HttpLine, LineFailed
from ..transport.watch import Watch, quick
from ..wire.exchange import WireRequest

__all__ = ["Answer", "ask"]

_MOST = 4 * 2**20  # an answer that lists a thousand models is some 200 kB


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is 0 where nothing answered, and `trouble` says why; `data` is the JSON of the `body`, None where it is none."""

    status: int
    data: Any = None
    trouble: str = ""
    body: bytes = field(default=b"", repr=False)

    def get(self, *path: str) -> Any:
        """What stands there in the data, None where nothing does."""
        found = self.data
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found


def ask(backend: Backend, path: str, *, headers: dict[str, str] | None = None, body: Any = None, seconds: float = 3.0) -> Answer:
    """GET the path, or POST `body` there as JSON. `headers` carry a key only where the caller gives them."""
    data = b"" if body is None else json.dumps(body).encode()
    sent = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
    if data:
        sent |= {"content-type": "application/json", "content-length": str(len(data))}
    request = WireRequest("POST" if data else "GET", urlsplit(backend.url).path + path, sent, data)
    line = HttpLine(backend)
    got = bytearray()
    try:
        response = line.send(request, Watch(quick(seconds), time.monotonic))
        try:
            while piece := response.read():
                got += piece
                if len(got) > _MOST:
                    return Answer(0, trouble=f"its answer to {path} is longer than {_MOST} bytes")
        finally:
            response.close()
    except LineFailed as error:
        return Answer(0, trouble=error.failure.message)
    finally:
        line.close()
    try:
        return Answer(response.status, json.loads(bytes(got)), body=bytes(got))
    except (ValueError, RecursionError):
        return Answer(response.status)

"""The live page of `serve`: the servers, their models and the last failovers, as server-sent events while somebody looks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import AsyncGenerator, Callable

from .transport.desk import Head
from .transport.shell import Looks
from .transport.switchboard import Switchboard
from .wire.sse import encode_event

__all__ = ["Live", "page"]

# What the Router knows by itself is looked at every second; servers are asked less often, since each of them logs it.
TICK_SECONDS = 1.0
LOOK_SECONDS = 10.0


class Live:
    """Events for any number of watchers. Servers are asked once for all of them, and not at all when nobody watches.

    `closing` says that the server is about to stop: then the events end.
    """

    def __init__(self, board: Switchboard, *, tick: float = TICK_SECONDS, look: float = LOOK_SECONDS) -> None:
        self.closing: Callable[[], bool] = lambda: False
        self.watchers = 0
        self._board, self._tick, self._every = board, tick, look
        self._looks: Looks | None = None
        self._looking: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[bytes]:
        """What there is to see, once, and again whenever it has changed."""
        self.watchers += 1
        looking = self._looking = self._looking or asyncio.create_task(self._look())
        try:
            sent = b""
            while not self.closing():
                if looking.done():
                    looking.result()  # it ends by a fault only
                if self._looks is not None and (now := self._snapshot()) != sent:
                    sent = now
                    yield encode_event(now)
                await asyncio.sleep(self._tick)
        finally:
            self.watchers -= 1
            if not self.watchers:
                await self._stop()

    async def _look(self) -> None:
        while True:
            self._looks = await self._board.alook()
            await asyncio.sleep(self._every)

    async def _stop(self) -> None:
        looking, self._looking, self._looks = self._looking, None, None
        if looking is not None:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    def _snapshot(self) -> bytes:
        total = self._board.usage().total
        seen = {
            **self._board.status_by(self._looks or {}).to_dict(),
            "answers": total.answers,
            "completion_tokens": total.completion_tokens,
            "troubles": [{"at": at, "good": event.good, "text": str(event)} for at, event in self._board.troubles()],
        }
        return json.dumps(seen).encode()


@functools.cache
def page() -> tuple[Head, bytes]:
    """The page, which may run its own script, wear its own style, ask its own server, and nothing else."""
    html = importlib.resources.files(__package__).joinpath("live.html").read_bytes()
    policy = "; ".join(
        [
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",  # the icon
            f"script-src '{_digest(html, b'script')}'",
            f"style-src '{_digest(html, b'style')}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    return Head(200, {**headers, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}), html


def _digest(html: bytes, tag: bytes) -> str:
    """What a content security policy calls an inline element by."""
    inside = re.search(rb"<%b>(.*)</%b>" % (tag, tag), html, re.DOTALL)
    assert inside is not None, f"live.html has a <{tag.decode()}>"
    return "sha256-" + base64.b64encode(hashlib.sha256(inside[1]).digest()).decode()

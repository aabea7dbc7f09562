"""One of something for each event loop, closed when its loop shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Connections belong to the loop that made them; a Router may meet many loops, one after the other or at once."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._close = make, close
        self._held: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]] = WeakKeyDictionary()

    def held(self) -> T | None:
        """The running loop's, if it has been made."""
        entry = self._held.get(asyncio.get_running_loop())
        return None if entry is None else entry[0]

    async def get(self) -> T:
        """The running loop's; made at first use."""
        entry = self._held.get(loop := asyncio.get_running_loop())
        if entry is None:
            made = self._make()
            # asyncio.run closes every async generator of its loop at the end: the one moment at which we can close too.
            entry = self._held[loop] = (made, self._keep(loop, made))
            await anext(entry[1])
        return entry[0]

    async def aclose(self) -> None:
        """Close the running loop's; other loops close theirs when they shut down."""
        entry = self._held.get(asyncio.get_running_loop())
        if entry is not None:
            await entry[1].aclose()

    async def _keep(self, loop: asyncio.AbstractEventLoop, made: T) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._held.pop(loop, None)
            await self._close(made)

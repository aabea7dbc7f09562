"""What goes on beside the calls: models being warmed, servers looked at again. The Router's one background thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

__all__ = ["Errands"]


class Errands:
    """Runs coroutines in a thread of its own, started at the first one and ended by `close`. Not two of the same at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, Future[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, key: object, errand: Callable[[], Coroutine[Any, Any, Any]]) -> Future[Any]:
        """Start an errand, or join the one under the same key that is on its way; gives its future."""
        with self._lock:
            if self._loop is None:
                self._running.clear()
                self._start()
            assert self._loop is not None
            future = self._running.get(key)
            if future is None or future.done():
                future = self._running[key] = asyncio.run_coroutine_threadsafe(errand(), self._loop)
            return future

    def close(self) -> None:
        """End the thread and whatever it is doing. Safe to call more than once; `run` starts a new one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def renew(self) -> None:
        """In a forked child, whose parent kept the thread and what it is doing."""
        self._lock, self._loop, self._thread = threading.Lock(), None, None
        self._running.clear()

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="hydra-errands", daemon=True)
        self._thread.start()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread's life: until the loop is stopped; then what is left is cancelled and connections are closed."""
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)

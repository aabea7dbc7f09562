"""What a Router lives through: callers cancelled anywhere, event loops that come and go, threads, forks, a clock set back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from servers.fault import CUT, RESET, FaultServer, chunked, hello, word
from transport.faces import LOOPED, both, chat, stream

from hydra_infer import AllBackendsFailed, Backend, HydraError, Router, StreamBroken
from hydra_infer.transport import aiohttp_line
from hydra_infer.transport.watch import Watch

pytestmark = pytest.mark.usefixtures("no_leaks")


def slots(router: Router) -> list[int]:
    return [place.in_flight for place in router._board.pool.places]


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("face", LOOPED, indirect=True)
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_caller_may_be_cancelled_at_any_turn_of_its_loop(face: str, way: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], max_parallel=1)], queue_timeout=5)

        async def ask() -> str:
            if way == "whole":
                return (await router.aio.chat("m", "hi")).text
            return "".join([chunk.text async for chunk in router.aio.stream("m", "hi")])

        async def cancelled_after(turns: int) -> bool:
            task = asyncio.create_task(ask())
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001 * (turns % 7))  # some of them when bytes are on their way
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=10)
            assert done, "a cancelled caller goes on"
            return task.cancelled()

        async def main() -> None:
            cancelled = [await cancelled_after(turns) for turns in range(60)]
            assert any(cancelled)
            for _ in range(100):  # what a cancelled stream leaves to be closed is closed in the loop's next turns
                if slots(router) == [0]:
                    break
                await asyncio.sleep(0.01)
            assert slots(router) == [0]
            assert await ask() == "hello from a"
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        router.close()


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_a_caller_may_be_cancelled_while_it_waits(face: str) -> None:
    """For a slot, for a look at servers, before another try, for the first token."""
    silent = FaultServer([5.0])
    busy = FaultServer(hello("a"))
    with silent, busy:
        waits: dict[str, Router] = {
            "look": Router([Backend.openai(silent.url)]),
            "token": Router([Backend.openai(silent.url, models=["m"])]),
            "retry": Router([Backend.openai("http://127.0.0.1:9", models=["m"])], retries=9),
            "slot": Router([Backend.openai(busy.url, models=["m"], max_parallel=1)]),
        }

        async def main() -> None:
            held = await waits["slot"].aio.stream("m", "hi")
            for router in waits.values():
                task = asyncio.create_task(router.aio.chat("m", "hi"))
                await asyncio.sleep(0.15)
                assert not task.done()
                task.cancel()
                await asyncio.wait([task], timeout=5)
                assert task.cancelled()
            await held.aclose()
            assert [slots(router) for router in waits.values()] == [[0]] * 4
            assert waits["slot"]._board.pool.waiting() == 0
            assert (await waits["slot"].aio.chat("m", "hi")).text == "hello from a"

        asyncio.run(main())
        for router in waits.values():
            router.close()


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_event_loops_that_come_and_go_leave_nothing(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        chat(face, router)
        files, threads = open_files(), threading.active_count()
        for _ in range(20):
            chat(face, router)
        assert server.connections == 21
        ends_at = time.monotonic() + 5  # the server's side of a connection, and its thread, end when they hear of it
        while (open_files() > files or threading.active_count() > threads) and time.monotonic() < ends_at:
            time.sleep(0.01)
        assert open_files() <= files
        assert threading.active_count() <= threads
        router.close()


@both
@pytest.mark.parametrize("end", [[2.0], [CUT], [RESET]])
def test_streams_that_break_leave_nothing(face: str, end: list[Any]) -> None:
    """aiohttp raises one and the same exception for every response that was closed, and all their frames hang on to it."""
    with FaultServer(chunked(word("one"), *end, end=False)) as server:
        router = Router([Backend.openai(server.url, models=["m"])], idle_timeout=0.05)
        for _ in range(5):
            with pytest.raises(StreamBroken):
                stream(face, router, [])
        gc.collect()
        assert [thing for thing in gc.get_objects() if isinstance(thing, Watch)] == []
        router.close()


NOBODY = "http://127.0.0.1:9"
FAULTS: dict[str, list[Any]] = {
    "nobody there": [],
    "cut at once": [CUT],
    "no HTTP": [b"nonsense\r\n\r\n"],
    "half a head": [b"HTTP/1.1 200 OK\r\nconte", CUT],
    "silent": chunked(word("one"), 2.0, end=False),
    "cut": chunked(word("one"), 0.02, CUT, end=False),
    "reset": chunked(word("one"), 0.02, RESET, end=False),
    "malformed": [*chunked(word("one"), 0.02, end=False), b"zz\r\n", CUT],
}
# What asyncio leaves of a connection that is closed: the transport, which holds a method of its own, and its socket. Over
# aiohttp they are let go once a response has begun.
ASYNCIOS = 8
BEGUN = ("silent", "cut", "reset", "malformed")


@both
@pytest.mark.parametrize("fault", FAULTS)
def test_calls_that_fail_leave_nothing_for_the_garbage_collector(face: str, fault: str) -> None:
    """An error kept in a variable of a frame that it went through keeps all that the call had until the collector comes."""
    times = 8
    with FaultServer(FAULTS[fault]) as server:
        url = server.url if FAULTS[fault] else NOBODY
        router = Router([Backend.openai(url, models=["m"])], idle_timeout=0.05, retries=0)
        told: list[str] = []

        def fail() -> None:
            try:
                with router.stream("m", "hi") as answer:
                    for _ in answer:
                        pass
            except HydraError as error:
                told.append(error.message)

        async def afail() -> None:
            try:
                async for _ in router.aio.stream("m", "hi"):
                    pass
            except HydraError as error:
                told.append(error.message)

        async def loop() -> list[Any]:
            await afail()
            with nothing_collected():
                for _ in range(times):
                    await afail()
                await asyncio.sleep(0.05)  # transports close in the loop's next turns
                return garbage()

        def thread() -> list[Any]:
            fail()
            with nothing_collected():
                for _ in range(times):
                    fail()
                return garbage()

        left = thread() if face == "sync" else asyncio.run(loop())
        assert len(told) == times + 1
        assert [thing for thing in left if isinstance(thing, types.FrameType | types.TracebackType | Watch)] == []
        let_go = face == "sync" or (fault in BEGUN and sys.modules.get("aiohttp", ...) is not None)
        assert len(left) <= (2 if let_go else ASYNCIOS * times)
        router.close()


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def garbage() -> list[Any]:
    """What only the garbage collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return gc.garbage[:]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_many_threads_ask_at_once_and_connections_are_used_again() -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        with ThreadPoolExecutor(8) as threads:
            texts = list(threads.map(lambda _: router.chat("m", "hi").text, range(200)))
        assert texts == ["hello from a"] * 200
        assert server.connections <= 8
        assert slots(router) == [0]
        router.close()


def test_connections_of_a_burst_are_closed_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        for answer in [router.stream("m", "hi") for _ in range(5)]:
            assert "".join(chunk.text for chunk in answer) == "hello from a"
        assert server.connections == 5
        kept = router._board._shell._lines[router._board.backends[0].name]._kept  # type: ignore[attr-defined]
        kept._clock = lambda: time.monotonic() + 60
        router.chat("m", "hi")
        assert (len(kept._idle), len(kept._open)) == (1, 1)
        assert server.connections == 5  # the last used one was taken, the others were closed
        router.close()


@pytest.mark.parametrize("face", ["async-aiohttp"], indirect=True)
def test_connections_of_a_burst_are_closed_while_calls_go_on(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp itself takes them in turn, so that each is used again before it is old."""
    monkeypatch.setattr(aiohttp_line, "KEEPALIVE", 0.5)
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])

        async def main() -> None:
            await asyncio.gather(*(router.aio.chat("m", "hi") for _ in range(5)))
            assert len(server._open) == 5
            ends_at = time.monotonic() + 10
            while len(server._open) > 1 and time.monotonic() < ends_at:
                await router.aio.chat("m", "hi")
                await asyncio.sleep(0.01)
            assert len(server._open) == 1

        asyncio.run(main())
        router.close()


def test_a_clock_that_is_set_back_or_forth_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([4e9, 0.0] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    with FaultServer([RESET]) as bad, FaultServer(hello("good")) as good:
        rows = [Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")]
        router = Router(rows, cooldown=30, deadline=20)
        replies = [router.chat("m", "hi") for _ in range(5)]
        assert [len(reply.attempts) for reply in replies] == [2, 1, 1, 1, 1]  # the rest of the bad one goes on
        assert all(0 <= reply.timings.total < 20 for reply in replies if reply.timings.total is not None)
        with pytest.raises(AllBackendsFailed):
            Router(rows[:1], retries=0).chat("m", "hi")
        router.close()


# ---- forks -----------------------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_a_child(work: Callable[[], Any]) -> int:
    """The exit status of a forked child that does the work: 0 when it was done, a signal's number when that ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for a lock which nobody holds must not wait for ever
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of threads: those of the fault server
def test_a_forked_child_has_connections_of_its_own_and_leaves_its_parents() -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        router.chat("m", "hi")

        def work() -> None:
            assert router.chat("m", "hi").text == "hello from a"
            assert asyncio.run(router.aio.chat("m", "hi")).text == "hello from a"

        assert in_a_child(work) == 0
        assert server.connections == 3
        assert router.chat("m", "hi").text == "hello from a"
        assert server.connections == 3  # the parent's own was still good
        router.close()


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_everything_is_free() -> None:
    """The one slot is taken, its stream half read, and another thread holds the locks."""
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], max_parallel=1)])
        half_read = router.stream("m", "hi")
        next(half_read)
        holding, over = threading.Event(), threading.Event()

        def hold() -> None:
            pool = router._board.pool
            with pool.turn, pool._lock, router._board._turns._lock, router._board._housekeeping._errands._lock:
                holding.set()
                over.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        assert holding.wait(5)

        def work() -> None:
            assert router.chat("m", "hi").text == "hello from a"
            half_read.close()
            assert slots(router) == [0]
            assert router.chat("m", "hi").text == "hello from a"

        status = in_a_child(work)
        over.set()
        thread.join()
        assert status == 0
        assert slots(router) == [1]
        assert "".join(chunk.text for chunk in half_read) == " from a"
        assert slots(router) == [0]
        router.close()

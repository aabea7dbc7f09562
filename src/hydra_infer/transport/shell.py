"""The two loops that obey the failover flow, one for threads and one for event loops. They differ in `await`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..routing.backend import Backend
from ..routing.call import Attempt, Call, Limits, Pause, Probe, Serve, Started, Wait
from ..routing.flow import COLD, Flow
from ..routing.pool import Pool
from ..routing.verdict import GaveUp
from ..wire.dialect import DIALECTS, Look, get
from ..wire.exchange import WireRequest
from ..wire.lifecycle import Advance, Reading
from ..wire.openai import Target
from ..wire.trouble import Failure, failure_of_status
from .aiohttp_line import async_line
from .answer import Answer, AsyncAnswer
from .engine import AsyncEngineLine, EngineLine
from .looks import Body, Got, engine_look, hushed, loaded_path, read_list, shows, target, with_loaded
from .opening import Opening, still_loading
from .upstream import AsyncLine, HttpLine, Line, LineFailed
from .watch import Holds, Watch, quick

if TYPE_CHECKING:
    from .housekeeping import Housekeeping

__all__ = ["LOOK_SECONDS", "AsyncShell", "Looks", "Shell"]

Clock = Callable[[], float]
Looks = dict[str, tuple[Look | Failure, float]]
# How long a server may take to tell what it has, when nobody waits for it but a person or nobody at all.
LOOK_SECONDS = 3.0


class Shell:
    """Runs calls in the calling thread; safe for many threads at once."""

    def __init__(self, backends: Iterable[Backend], pool: Pool, errands: Housekeeping, clock: Clock = time.monotonic) -> None:
        self._pool, self._errands, self._clock = pool, errands, clock
        self._lines: dict[str, Line] = {
            row.name: EngineLine(row.source) if row.kind == "engine" else HttpLine(row) for row in backends
        }

    def run(self, call: Call, flow: Flow) -> Answer | GaveUp:
        """Obey the flow until somebody has answered or it gives up. An Answer holds a slot: read or close it."""
        answer: Answer | Failure | None = None
        fact: Any = None
        try:
            while True:
                step, fact = flow.send(fact), None
                if isinstance(step, Attempt):
                    answer = self._attempt(call, step)
                    fact = answer if isinstance(answer, Failure) else Started()
                elif isinstance(step, Serve) and isinstance(answer, Answer):
                    answer.flow, answer.outcomes = flow, step.outcomes
                    return answer
                elif isinstance(step, Pause | Wait | Probe):
                    self.meanwhile(step)
        except StopIteration as stop:
            return _given_up(stop)
        except BaseException:
            flow.close()  # interrupted: the reservation goes back at once, not when the garbage is collected
            raise

    def meanwhile(self, step: Pause | Wait | Probe) -> None:
        """What a flow wants done before its next request."""
        if isinstance(step, Pause):
            time.sleep(step.seconds)
        elif isinstance(step, Wait):
            concurrent.futures.wait([step.ticket], step.seconds)
        else:
            self.look(step.backends, step.seconds)

    def fetch(
        self,
        backend: Backend,
        request: WireRequest,
        limits: Limits,
        reading: Reading,
        deliver: Callable[[Advance], None],
        *,
        again: bool = True,
    ) -> Failure | None:
        """Send a request that is no call and read its answer as it comes; the Failure of the connection, if it fails."""
        watch = Watch(limits, self._clock)
        try:
            response = self._lines[backend.name].send(request, watch)
            try:
                reading.head(response.status, response.headers)
                while data := response.read():
                    _read(reading, data, watch, deliver)
                    if reading.done:
                        break
                reading.end()
                reading.failure = reading.failure and hushed(reading.failure, backend)
            finally:
                response.close()
        except LineFailed as error:
            if error.stale and again:  # a kept connection that the server had closed: nothing was asked yet
                return self.fetch(backend, request, limits, reading, deliver, again=False)
            return error.failure
        return None

    def look(self, backends: Sequence[Backend], seconds: float) -> Looks:
        """Ask servers for their models, all at once, and tell the pool. Gives what each answered, and in how many seconds."""
        if not backends:
            return {}
        with concurrent.futures.ThreadPoolExecutor(len(backends), "hydra-look") as threads:
            return dict(threads.map(lambda backend: (backend.name, self._look(backend, seconds)), backends))

    def _look(self, backend: Backend, seconds: float) -> tuple[Look | Failure, float]:
        watch = Watch(quick(seconds), self._clock)
        found = engine_look(backend)
        if found is None:
            found = read_list(backend, self._get(backend, DIALECTS[backend.kind].list_path, watch))
            loaded_path = DIALECTS[backend.kind].loaded_path
            if loaded_path is not None and isinstance(found, Look):
                found = with_loaded(backend, found, self._get(backend, loaded_path, watch))
            self._pool.tell(backend, found)
        return found, self._clock() - watch.began

    def _get(self, backend: Backend, path: str, watch: Watch) -> Got:
        try:
            response = self._lines[backend.name].send(get(path, target(backend)), watch)
            try:
                body = Body()
                while data := response.read():
                    body.add(data)
            finally:
                response.close()
        except LineFailed as error:
            return error.failure
        return response.status, response.headers, body.whole

    def _holder(self, step: Attempt) -> Holds | None:
        """What asks, in a long silence, whether the server still has the attempt's model in memory; None: it is not asked."""
        return None if step.limits.silence is None else functools.partial(self._holds, step)

    def _holds(self, step: Attempt, seconds: float) -> bool:
        return shows(step, self._get(step.backend, loaded_path(step), Watch(quick(seconds), self._clock)))

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines.values():
            line.close()

    def renew(self) -> None:
        """In a forked child: its own connections. Event loops' are made for their loop, and none runs in a child yet."""
        for line in self._lines.values():
            line.renew()

    def _attempt(self, call: Call, step: Attempt) -> Answer | Failure:
        if (warming := self._errands.before(step)) is not None:
            try:
                loaded = warming.result(step.limits.patience(self._clock()))
            except concurrent.futures.TimeoutError:
                return still_loading(step)
            if isinstance(loaded, Failure):
                return loaded
        opening = Opening(call, step)
        while True:
            watch, response = Watch(step.limits, self._clock, self._holder(step)), None
            try:
                response = self._lines[step.backend.name].send(opening.request, watch)
                opening.exchange.head(response.status, response.headers)
                while opening.undecided:
                    opening.take(response.read())
                if opening.answered:
                    watch.token()
                    answer = Answer(opening.exchange, watch, opening.events, step, response, ended=opening.ended)
                    response = None  # its answer closes it now
                    return answer
            except LineFailed as error:
                opening.lost(error)
            finally:
                if response is not None:
                    response.close()
            if not opening.again():
                return opening.failure


class AsyncShell:
    """Runs calls in the running event loop; safe for many loops at once."""

    def __init__(self, pool: Pool, errands: Housekeeping, clock: Clock = time.monotonic) -> None:
        self._pool, self._errands, self._clock = pool, errands, clock
        self._lines: dict[str, AsyncLine] = {}

    def _line(self, backend: Backend) -> AsyncLine:
        """Made at its first use from a loop, so that threads do not wait for aiohttp to be imported; loops share it."""
        made = self._lines.get(backend.name)
        return made or self._lines.setdefault(backend.name, _async_line(backend))

    async def run(self, call: Call, flow: Flow) -> AsyncAnswer | GaveUp:
        """Obey the flow until somebody has answered or it gives up. An answer holds a slot: read or close it."""
        answer: AsyncAnswer | Failure | None = None
        fact: Any = None
        try:
            while True:
                step, fact = flow.send(fact), None
                if isinstance(step, Attempt):
                    answer = await self._attempt(call, step)
                    fact = answer if isinstance(answer, Failure) else Started()
                elif isinstance(step, Serve) and isinstance(answer, AsyncAnswer):
                    answer.flow, answer.outcomes = flow, step.outcomes
                    return answer
                elif isinstance(step, Pause | Wait | Probe):
                    await self.meanwhile(step)
        except StopIteration as stop:
            return _given_up(stop)
        except BaseException:
            flow.close()
            raise

    async def meanwhile(self, step: Pause | Wait | Probe) -> None:
        """What a flow wants done before its next request."""
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Wait):
            await asyncio.wait([asyncio.wrap_future(step.ticket)], timeout=step.seconds)
        else:
            await self.look(step.backends, step.seconds)

    async def fetch(
        self,
        backend: Backend,
        request: WireRequest,
        limits: Limits,
        reading: Reading,
        deliver: Callable[[Advance], None],
        *,
        again: bool = True,
    ) -> Failure | None:
        """Send a request that is no call and read its answer as it comes; the Failure of the connection, if it fails."""
        watch = Watch(limits, self._clock)
        try:
            response = await self._line(backend).send(request, watch)
            try:
                reading.head(response.status, response.headers)
                while data := await response.read():
                    _read(reading, data, watch, deliver)
                    if reading.done:
                        break
                reading.end()
                reading.failure = reading.failure and hushed(reading.failure, backend)
            finally:
                await response.aclose()
        except LineFailed as error:
            if error.stale and again:
                return await self.fetch(backend, request, limits, reading, deliver, again=False)
            return error.failure
        finally:
            watch.stop()
        return None

    async def look(self, backends: Sequence[Backend], seconds: float) -> Looks:
        """Ask servers for their models, all at once, and tell the pool. Gives what each answered, and in how many seconds."""
        found = await asyncio.gather(*(self._look(backend, seconds) for backend in backends))
        return {backend.name: look for backend, look in zip(backends, found, strict=True)}

    async def _look(self, backend: Backend, seconds: float) -> tuple[Look | Failure, float]:
        watch = Watch(quick(seconds), self._clock)
        found = engine_look(backend)
        if found is None:
            found = read_list(backend, await self._get(backend, DIALECTS[backend.kind].list_path, watch))
            loaded_path = DIALECTS[backend.kind].loaded_path
            if loaded_path is not None and isinstance(found, Look):
                found = with_loaded(backend, found, await self._get(backend, loaded_path, watch))
            self._pool.tell(backend, found)
        return found, self._clock() - watch.began

    async def _get(self, backend: Backend, path: str, watch: Watch) -> Got:
        return await self._exchange(backend, get(path, target(backend)), watch)

    async def _exchange(self, backend: Backend, request: WireRequest, watch: Watch) -> Got:
        try:
            response = await self._line(backend).send(request, watch)
            try:
                body = Body()
                while data := await response.read():
                    body.add(data)
            finally:
                await response.aclose()
        except LineFailed as error:
            return error.failure
        finally:
            watch.stop()
        return response.status, response.headers, body.whole

    def _holder(self, step: Attempt) -> Holds | None:
        return None if step.limits.silence is None else functools.partial(self._holds, step)

    async def _holds(self, step: Attempt, seconds: float) -> bool:
        return shows(step, await self._get(step.backend, loaded_path(step), Watch(quick(seconds), self._clock)))

    async def warm(self, step: Attempt) -> Failure | None:
        """Have the model loaded, however long that takes up to COLD; None when it is."""
        warm = DIALECTS[step.backend.kind].warm
        assert warm is not None
        watch = Watch(quick(COLD), self._clock)
        target = Target(step.backend.url, step.local.name, step.backend.headers(), step.context)
        got = await self._exchange(step.backend, warm(target), watch)
        if isinstance(got, Failure):
            return got
        status, headers, body = got
        if status != 200:
            return hushed(failure_of_status(status, headers, body), step.backend)
        self._pool.warmed(step.backend, step.local.name, step.context)
        return None

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        for line in list(self._lines.values()):
            await line.aclose()

    async def _attempt(self, call: Call, step: Attempt) -> AsyncAnswer | Failure:
        if (warming := self._errands.before(step)) is not None:
            # Shielded: leaving must not abort the load.
            loading = asyncio.shield(asyncio.wrap_future(warming))
            try:
                loaded = await asyncio.wait_for(loading, step.limits.patience(self._clock()))
            except TimeoutError:
                return still_loading(step)
            if isinstance(loaded, Failure):
                return loaded
        opening = Opening(call, step)
        while True:
            watch, response = Watch(step.limits, self._clock, self._holder(step)), None
            try:
                response = await self._line(step.backend).send(opening.request, watch)
                opening.exchange.head(response.status, response.headers)
                while opening.undecided:
                    opening.take(await response.read())
                if opening.answered:
                    if opening.ended:
                        watch.stop()  # nothing more is waited for
                    watch.token()
                    answer = AsyncAnswer(opening.exchange, watch, opening.events, step, response, ended=opening.ended)
                    response = None
                    return answer
            except LineFailed as error:
                opening.lost(error)
            finally:
                if response is not None:
                    await response.aclose()
                elif not opening.answered:
                    watch.stop()
            if not opening.again():
                return opening.failure


def _async_line(backend: Backend) -> AsyncLine:
    return AsyncEngineLine(backend.source) if backend.kind == "engine" else async_line(backend)


def _given_up(stop: StopIteration) -> GaveUp:
    verdict = stop.value
    assert isinstance(verdict, GaveUp), "the failover flow ended without an answer and without a reason"
    return verdict


def _read(reading: Reading, data: bytes, watch: Watch, deliver: Callable[[Advance], None]) -> None:
    """A piece of an answer; what shows progress is a sign of life, what only fills the line is none."""
    for advance in reading.feed(data):
        watch.token()
        deliver(advance)

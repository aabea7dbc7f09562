"""The two loops that obey the failover flow, one for threads and one for event loops. They differ in `await`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..routing.backend import Backend
from ..routing.call import Attempt, Call, Pause, Probe, Serve, Started, Wait
from ..routing.flow import COLD, Flow
from ..routing.pool import Pool
from ..routing.verdict import GaveUp
from ..wire.dialect import DIALECTS, Look, get
from ..wire.exchange import Event, Exchange, WireRequest
from ..wire.openai import Target
from ..wire.trouble import Failure, Trouble, failure_of_status
from .answer import Answer, AsyncAnswer
from .engine import AsyncEngineLine, EngineLine
from .upstream import AsyncHttpLine, AsyncLine, HttpLine, Line, LineFailed
from .watch import Watch, quick

if TYPE_CHECKING:
    from .housekeeping import Housekeeping

__all__ = ["LOOK_SECONDS", "AsyncShell", "Shell"]

Clock = Callable[[], float]
Looks = dict[str, tuple[Look | Failure, float]]
Got = tuple[int, dict[str, str], bytes] | Failure
_MAX_HOPS = 3
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
                elif isinstance(step, Pause):
                    time.sleep(step.seconds)
                elif isinstance(step, Wait):
                    concurrent.futures.wait([step.ticket], step.seconds)
                elif isinstance(step, Probe):
                    self.look(step.backends, step.seconds)
        except StopIteration as stop:
            return _given_up(stop)
        except BaseException:
            flow.close()  # interrupted: the reservation goes back at once, not when the garbage is collected
            raise

    def look(self, backends: Sequence[Backend], seconds: float) -> Looks:
        """Ask servers for their models, all at once, and tell the pool. Gives what each answered, and in how many seconds."""
        if not backends:
            return {}
        with concurrent.futures.ThreadPoolExecutor(len(backends), "hydra-look") as threads:
            return dict(threads.map(lambda backend: (backend.name, self._look(backend, seconds)), backends))

    def _look(self, backend: Backend, seconds: float) -> tuple[Look | Failure, float]:
        watch = Watch(quick(seconds), self._clock)
        found = _engine_look(backend)
        if found is None:
            found = _read_list(backend, self._get(backend, DIALECTS[backend.kind].list_path, watch))
            loaded_path = DIALECTS[backend.kind].loaded_path
            if loaded_path is not None and isinstance(found, Look):
                found = _with_loaded(backend, found, self._get(backend, loaded_path, watch))
            self._pool.tell(backend, found)
        return found, self._clock() - watch.began

    def _get(self, backend: Backend, path: str, watch: Watch) -> Got:
        try:
            response = self._lines[backend.name].send(get(path, _target(backend)), watch)
            body = b"".join(response)
            response.close()
        except LineFailed as error:
            return error.failure
        return response.status, response.headers, body

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines.values():
            line.close()

    def _attempt(self, call: Call, step: Attempt) -> Answer | Failure:
        if (warming := self._errands.before(step)) is not None:
            try:
                loaded = warming.result(step.limits.patience(self._clock()))
            except concurrent.futures.TimeoutError:
                return _still_loading(step)
            if isinstance(loaded, Failure):
                return loaded
        opening = _Opening(call, step)
        while True:
            watch, response = Watch(step.limits, self._clock), None
            try:
                response = self._lines[step.backend.name].send(opening.request, watch)
                body = iter(response)
                opening.exchange.head(response.status, response.headers)
                while opening.undecided:
                    opening.take(next(body, None))
                if opening.answered:
                    watch.token()
                    answer = Answer(opening.exchange, watch, opening.events, step, response, body)
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

    def __init__(self, backends: Iterable[Backend], pool: Pool, errands: Housekeeping, clock: Clock = time.monotonic) -> None:
        self._pool, self._errands, self._clock = pool, errands, clock
        self._lines: dict[str, AsyncLine] = {
            row.name: AsyncEngineLine(row.source) if row.kind == "engine" else AsyncHttpLine(row) for row in backends
        }

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
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Wait):
                    await asyncio.wait([asyncio.wrap_future(step.ticket)], timeout=step.seconds)
                elif isinstance(step, Probe):
                    await self.look(step.backends, step.seconds)
        except StopIteration as stop:
            return _given_up(stop)
        except BaseException:
            flow.close()
            raise

    async def look(self, backends: Sequence[Backend], seconds: float) -> Looks:
        """Ask servers for their models, all at once, and tell the pool. Gives what each answered, and in how many seconds."""
        found = await asyncio.gather(*(self._look(backend, seconds) for backend in backends))
        return {backend.name: look for backend, look in zip(backends, found, strict=True)}

    async def _look(self, backend: Backend, seconds: float) -> tuple[Look | Failure, float]:
        watch = Watch(quick(seconds), self._clock)
        found = _engine_look(backend)
        if found is None:
            found = _read_list(backend, await self._get(backend, DIALECTS[backend.kind].list_path, watch))
            loaded_path = DIALECTS[backend.kind].loaded_path
            if loaded_path is not None and isinstance(found, Look):
                found = _with_loaded(backend, found, await self._get(backend, loaded_path, watch))
            self._pool.tell(backend, found)
        return found, self._clock() - watch.began

    async def _get(self, backend: Backend, path: str, watch: Watch) -> Got:
        return await self._exchange(backend, get(path, _target(backend)), watch)

    async def _exchange(self, backend: Backend, request: WireRequest, watch: Watch) -> Got:
        try:
            response = await self._lines[backend.name].send(request, watch)
            body = b"".join([data async for data in response])
            await response.aclose()
        except LineFailed as error:
            return error.failure
        finally:
            watch.stop_timer()
        return response.status, response.headers, body

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
            return failure_of_status(status, headers, body)
        self._pool.warmed(step.backend, step.local.name, step.context)
        return None

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        for line in self._lines.values():
            await line.aclose()

    async def _attempt(self, call: Call, step: Attempt) -> AsyncAnswer | Failure:
        if (warming := self._errands.before(step)) is not None:
            # Shielded: leaving must not abort the load.
            loading = asyncio.shield(asyncio.wrap_future(warming))
            try:
                loaded = await asyncio.wait_for(loading, step.limits.patience(self._clock()))
            except TimeoutError:
                return _still_loading(step)
            if isinstance(loaded, Failure):
                return loaded
        opening = _Opening(call, step)
        while True:
            watch, response = Watch(step.limits, self._clock), None
            try:
                response = await self._lines[step.backend.name].send(opening.request, watch)
                body = aiter(response)
                opening.exchange.head(response.status, response.headers)
                while opening.undecided:
                    opening.take(await anext(body, None))
                if opening.answered:
                    watch.token()
                    answer = AsyncAnswer(opening.exchange, watch, opening.events, step, response, body)
                    response = None
                    return answer
            except LineFailed as error:
                opening.lost(error)
            finally:
                if response is not None:
                    await response.aclose()
                elif not opening.answered:
                    watch.stop_timer()
            if not opening.again():
                return opening.failure


class _Opening:
    """One attempt until it is decided: the events so far, redirects within the server, one free retry."""

    def __init__(self, call: Call, step: Attempt) -> None:
        self._call, self._step = call, step
        self.exchange = open_exchange(call, step)
        self.request = self.exchange.request
        self.events: list[Event] = []
        self._lost: Failure | None = None
        self._ended = self._retry = self._retried = False
        self._hops = 0

    @property
    def answered(self) -> bool:
        return self.exchange.answered and self.exchange.failure is None

    @property
    def undecided(self) -> bool:
        return not (self._ended or self.exchange.answered or self.exchange.failure or self.exchange.moved)

    @property
    def failure(self) -> Failure:
        """Why there is no answer."""
        too_far = "too many redirects" if self.exchange.moved else "it ended without an answer"
        return self._lost or self.exchange.failure or Failure(Trouble.BROKEN, too_far)

    def take(self, data: bytes | None) -> None:
        """A piece of the body, or None for its end."""
        self._ended = data is None
        self.events += self.exchange.end() if data is None else self.exchange.feed(data)

    def lost(self, error: LineFailed) -> None:
        """The line failed. A server may close a kept connection at any time: then nothing was asked yet, and asking is free."""
        self._lost, self._retry = error.failure, error.stale and not self._retried

    def again(self) -> bool:
        """Whether to send once more, at once: after a stale connection, or where a redirect points to."""
        path = self.exchange.moved
        if self._retry:
            self._retried, self._retry, self._lost = True, False, None
            return True
        if path is None or self._lost or self._hops == _MAX_HOPS:
            return False
        self._hops += 1
        self.exchange = open_exchange(self._call, self._step)
        self.request = replace(self.exchange.request, path=path)
        return True


def open_exchange(call: Call, step: Attempt) -> Exchange:
    """The dialect's side of this attempt."""
    backend, local = step.backend, step.local
    return DIALECTS[backend.kind].open(call.question, Target(backend.url, local.name, backend.headers(), step.context))


def _still_loading(step: Attempt) -> Failure:
    limits = step.limits
    message = f"the model is still being loaded after {limits.first:g} s ({limits.first_name}); that goes on"
    return Failure(Trouble.LOADING, message, limit=limits.first_name)


def _given_up(stop: StopIteration) -> GaveUp:
    verdict = stop.value
    assert isinstance(verdict, GaveUp), "the failover flow ended without an answer and without a reason"
    return verdict


def _target(backend: Backend) -> Target:
    return Target(backend.url, "", backend.headers())


def _engine_look(backend: Backend) -> Look | Failure | None:
    """An engine in this process needs no asking."""
    return Look(list(backend.models or ())) if backend.kind == "engine" else None


def _read_list(backend: Backend, got: Got) -> Look | Failure:
    if isinstance(got, Failure):
        return got
    status, headers, body = got
    if status != 200:
        return failure_of_status(status, headers, body)
    try:
        return Look(DIALECTS[backend.kind].read_list(body))
    except (ValueError, RecursionError) as error:
        return Failure(Trouble.BROKEN, str(error), status=status)


def _with_loaded(backend: Backend, look: Look, got: Got) -> Look:
    """The look with what is in memory. A server that will not say just now (Ollama while it loads) is no failure."""
    read = DIALECTS[backend.kind].read_loaded
    if read is None or isinstance(got, Failure) or got[0] not in (200, 503):
        return look
    try:
        return replace(look, loaded=read(got[2]) if got[0] == 200 else {})
    except (ValueError, RecursionError):
        return look

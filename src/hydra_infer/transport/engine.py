"""An Engine in this process answering as a server would: the one place where the two wings meet."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, ContextTooLong, HydraError
from ..reply import Assembler, Chunk
from ..wire.exchange import WireRequest
from ..wire.sse import encode_event
from ..wire.trouble import Failure, Trouble
from .alarm import Alarm
from .upstream import AsyncResponse, LineFailed, Response
from .watch import Watch

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..engines.job import Job

__all__ = ["AsyncEngineLine", "EngineLine"]

_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream"}


class EngineLine:
    """The engine for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def send(self, request: WireRequest, watch: Watch) -> Response:
        asked = json.loads(request.body)
        if request.path.endswith("/embeddings"):
            return _Body(*_embeddings(self._engine, asked))
        job = _submit(self._engine, asked)
        return _Stream(job, watch) if asked.get("stream") else _Body(*_collect(job))

    def close(self) -> None:
        """The engine belongs to whoever loaded it."""

    def renew(self) -> None:
        """In a forked child: the engine has stayed with its parent."""


class AsyncEngineLine:
    """The engine for event loops: what would block runs in a thread, tokens come through the job's own async queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse:
        asked = json.loads(request.body)
        if request.path.endswith("/embeddings"):
            return _AsyncBody(*await asyncio.to_thread(_embeddings, self._engine, asked))
        job = _submit(self._engine, asked)
        watch.abort = job.close
        watch.start(Alarm())
        return _AsyncStream(job, watch) if asked.get("stream") else _AsyncBody(*await _acollect(job))

    async def aclose(self) -> None:
        """The engine belongs to whoever loaded it."""


class _Whole:
    """A complete JSON answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status, self.headers, self._data = status, _JSON, json.dumps(body).encode()

    def _take(self) -> bytes:
        data, self._data = self._data, b""
        return data


class _Body(_Whole):
    def read(self) -> bytes:
        return self._take()

    def close(self) -> None:
        """Nothing is open."""


class _AsyncBody(_Whole):
    async def read(self) -> bytes:
        return self._take()

    async def aclose(self) -> None:
        """Nothing is open."""


class _Events:
    """A job's chunks as server-sent events."""

    def __init__(self, job: Job, watch: Watch) -> None:
        self.status, self.headers = 200, _SSE
        self._job, self._watch, self._over = job, watch, False

    def _event(self, chunk: Chunk | None) -> bytes:
        self._over = chunk is None
        return encode_event(b"[DONE]" if chunk is None else json.dumps(chunk.raw).encode())

    def _failed(self, error: HydraError) -> bytes:
        self._over = True
        return encode_event(json.dumps(_error_body(error)).encode())

    def _silent(self) -> LineFailed:
        return LineFailed(Failure(Trouble.SILENT, self._watch.verdict, limit=self._watch.blame))


class _Stream(_Events):
    def read(self) -> bytes:
        if self._over:
            return b""
        try:
            return self._event(self._job.take(timeout=max(0.0, self._watch.left())))
        except TimeoutError as error:
            raise self._silent() from error
        except HydraError as error:
            return self._failed(error)

    def close(self) -> None:
        self._job.close()


class _AsyncStream(_Events):
    async def read(self) -> bytes:
        if self._over:
            return b""
        try:
            chunk = await self._job.take_async()
        except HydraError as error:
            return self._failed(error)
        if chunk is None and self._watch.expired:
            raise self._silent()
        return self._event(chunk)

    async def aclose(self) -> None:
        self._watch.stop()
        self._job.close()


def _submit(engine: Engine, asked: dict[str, Any]) -> Job:
    request = {key: value for key, value in asked.items() if key not in ("model", "stream", "stream_options")}
    try:
        return engine.submit(request)
    except HydraError as error:
        raise LineFailed(_failure(error)) from error


def _collect(job: Job) -> tuple[int, dict[str, Any]]:
    assembler = Assembler()
    try:
        for event in job:
            assembler.add(event)
    except HydraError as error:
        return _status(error), _error_body(error)
    return 200, assembler.body()


async def _acollect(job: Job) -> tuple[int, dict[str, Any]]:
    assembler = Assembler()
    try:
        async for event in job:
            assembler.add(event)
    except HydraError as error:
        return _status(error), _error_body(error)
    return 200, assembler.body()


def _embeddings(engine: Engine, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    texts = asked.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return 400, {"error": {"message": "input is neither a string nor a list of strings", "type": "invalid_request_error"}}
    try:
        found = engine.embed(texts)
    except HydraError as error:
        return _status(error), _error_body(error)
    rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found.embeddings)]
    usage = {"prompt_tokens": found.usage.prompt_tokens, "total_tokens": found.usage.total_tokens}
    return 200, {"object": "list", "model": found.model, "data": rows, "usage": usage}


def _status(error: HydraError) -> int:
    """The HTTP status by which a server would say the same."""
    if isinstance(error, ContextTooLong | ValueError):
        return 400
    status = getattr(error, "status", None)
    return status if isinstance(error, BackendError) and isinstance(status, int) else 500


def _error_body(error: HydraError) -> dict[str, Any]:
    code = "context_length_exceeded" if isinstance(error, ContextTooLong) else type(error).__name__
    return {"error": {"message": str(error), "type": type(error).__name__, "param": None, "code": code}}


def _failure(error: HydraError) -> Failure:
    body = json.dumps(_error_body(error)).encode()
    if isinstance(error, ContextTooLong):
        trouble = Trouble.OVERFLOW
    else:
        trouble = Trouble.CALLER if isinstance(error, ValueError) else Trouble.FAILED
    return Failure(trouble, str(error), status=_status(error), body=body, content_type="application/json")

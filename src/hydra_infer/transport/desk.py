"""The Router as a server would answer: a foreign client's request in, status, headers and bytes out. No HTTP library here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..routing.call import Call, Outcome
from ..routing.verdict import GaveUp, error_answer
from ..wire.question import PATHS, Fields, read_question
from ..wire.responses import NoCounterpart, as_chat
from .answer import Answer, AsyncAnswer, Told
from .rendering import ChatRendering, Rendering, ResponsesRendering
from .switchboard import Switchboard

__all__ = ["AsyncBody", "Body", "Desk", "Head"]

# Answered by way of chat completions.
RESPONSES = "/responses"

_PLACES = frozenset({"/models", *PATHS, RESPONSES})

# What may travel from a foreign client to a server. Never its Authorization or Cookie: they are meant for somebody else.
_TRAVELLING_HEADERS = frozenset({"traceparent", "tracestate", "x-request-id", "x-hydra-hops"})


class Head(NamedTuple):
    """Status and headers of an answer."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})


class Body:
    """An answer's bytes for threads; closing it early cancels the server's work."""

    def __init__(self, parts: Iterator[bytes], answer: Answer | None = None) -> None:
        self._parts, self._answer = parts, answer

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()


class AsyncBody:
    """The same for event loops."""

    def __init__(self, parts: AsyncIterator[bytes], answer: AsyncAnswer | None = None) -> None:
        self._parts, self._answer = parts, answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()


class Desk:
    """Answers foreign clients; when everything failed it answers too, and never raises through a foreign SDK."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard

    def handle(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], data: bytes, timeout: float | None
    ) -> tuple[Head, Body]:
        """Answer in this thread. `timeout` is the client's own, in seconds; None when it has none."""
        opened = self._open(method, path, headers, data, timeout)
        if isinstance(opened, _Opened):
            answer = self._switchboard.ask(opened.call)
            if isinstance(answer, GaveUp):
                head, whole = _refusal(answer)
                return head, Body(iter([whole]))
            rendering = opened.rendering(answer)
            if opened.call.mode == "stream":
                return _head(answer, "text/event-stream"), Body(_sse(rendering, answer), answer)
            return _head(answer, "application/json"), Body(iter([rendering.whole(event) for event in answer]))
        head, whole = opened or _model_list(self._switchboard.models())
        return head, Body(iter([whole]))

    async def ahandle(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], data: bytes, timeout: float | None
    ) -> tuple[Head, AsyncBody]:
        """Answer in this event loop."""
        opened = self._open(method, path, headers, data, timeout)
        if isinstance(opened, _Opened):
            answer = await self._switchboard.aask(opened.call)
            if isinstance(answer, GaveUp):
                head, whole = _refusal(answer)
                return head, AsyncBody(_Once(whole))
            rendering = opened.rendering(answer)
            if opened.call.mode == "stream":
                return _head(answer, "text/event-stream"), AsyncBody(_asse(rendering, answer), answer)
            whole = b"".join([rendering.whole(event) async for event in answer])
            return _head(answer, "application/json"), AsyncBody(_Once(whole))
        head, whole = opened or _model_list(await self._switchboard.amodels())
        return head, AsyncBody(_Once(whole))

    def _open(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], data: bytes, timeout: float | None
    ) -> _Opened | tuple[Head, bytes] | None:
        """The call in a request, a refusal, or None for "list the models"."""
        place = "/" + path.strip("/").removeprefix("v1").strip("/")
        if place not in _PLACES:
            return _no_such_path(method, place)
        allowed = "GET" if place == "/models" else "POST"
        if method != allowed:
            refusal = error_answer(f"{method} {place}: only {allowed} is answered here", "method_not_allowed")
            return _static(405, refusal, allow=allowed)
        if place == "/models":
            return None
        travelling = {name.lower(): value for name, value in headers if name.lower() in _TRAVELLING_HEADERS}
        try:
            question = read_question(place, data, travelling)
            asked = question.body.fields if place == RESPONSES else None
            if asked is not None:
                question = question._replace(path="/chat/completions", body=Fields(as_chat(asked)))
            stream = question.stream
            call = self._switchboard.call(
                question,
                mode="stream" if stream else "plain",
                first_token_timeout=timeout if stream else None,
                deadline=None if stream else timeout,
            )
            return _Opened(call, asked)
        except NoCounterpart as error:
            return _static(404, error_answer(str(error), "not_found"))
        except ConfigError as error:
            return _static(400, error_answer(str(error), "bad_request", kind="invalid_request_error"))


class _Opened(NamedTuple):
    """A request let in: the call, and where it came in other words than the call's, those."""

    call: Call
    asked: Mapping[str, Any] | None

    def rendering(self, answer: Told) -> Rendering:
        if self.asked is not None:
            return ResponsesRendering(self.asked, answer)
        return ChatRendering(self.call.question, answer)


def _head(answer: Told, content_type: str) -> Head:
    headers = {
        "content-type": content_type,
        "x-hydra-backend": answer.backend,
        "x-hydra-model": answer.model,
        "x-hydra-attempts": _tried(answer.outcomes),
    }
    return Head(200, headers)


def _tried(outcomes: Iterable[Outcome]) -> str:
    return ", ".join([f"{outcome.backend}={outcome.result}" for outcome in outcomes])


def _refusal(verdict: GaveUp) -> tuple[Head, bytes]:
    """SDKs retry 5xx and 429 by themselves; this header tells them that the Router has done so already."""
    status, body = verdict.answer()
    headers = {"content-type": "application/json", "x-should-retry": "false", "x-hydra-attempts": _tried(verdict.outcomes)}
    return Head(status, headers), body


def _sse(rendering: Rendering, answer: Answer) -> Iterator[bytes]:
    for event in answer:
        if part := rendering.part(event):
            yield part
    yield rendering.last()


async def _asse(rendering: Rendering, answer: AsyncAnswer) -> AsyncIterator[bytes]:
    async for event in answer:
        if part := rendering.part(event):
            yield part
    yield rendering.last()


def _model_list(models: Mapping[str, list[str]]) -> tuple[Head, bytes]:
    rows: list[dict[str, Any]] = [
        {"id": name, "object": "model", "created": 0, "owned_by": ", ".join(by)} for name, by in models.items()
    ]
    return _static(200, json.dumps({"object": "list", "data": rows}).encode())


def _no_such_path(method: str, path: str) -> tuple[Head, bytes]:
    if path.startswith(f"{RESPONSES}/"):
        return _static(404, error_answer(str(NoCounterpart("stored answers to look up")), "not_found"))
    if path.startswith(("/audio", "/images", "/files")):
        return _static(501, error_answer(f"{path} is not routed", "not_implemented"))
    return _static(
        404,
        error_answer(
            f"{method} {path} is not answered here; there are {', '.join((*PATHS, RESPONSES))} and /models", "not_found"
        ),
    )


def _static(status: int, body: bytes, **headers: str) -> tuple[Head, bytes]:
    return Head(status, {"content-type": "application/json", "x-should-retry": "false", **headers}), body


class _Once:
    """One piece, for event loops: an async generator would be heavier than what it gives."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if data is None:
            raise StopAsyncIteration
        return data

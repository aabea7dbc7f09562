"""The OpenAI dialect: what vLLM, SGLang, llama-server, LiteLLM, TabbyAPI and Ollama's /v1 have in common."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from .bounds import MAX_CHOICES, MAX_EARLY_EVENTS, MAX_VALUES, load
from .exchange import Event, Receiver, WireRequest, broken
from .question import Question, to_json
from .shape import flaw_in
from .splice import NotAnObject, Text
from .sse import SSEParser
from .trouble import Failure, failure_of_error, failure_of_status

__all__ = ["OpenAIExchange", "Target", "as_chunk", "models_in", "path_of", "rename"]

_REDIRECTS = (301, 302, 303, 307, 308)
# Numbers are most of what embeddings are, and small.
_MAX_NUMBERS = 4 * MAX_VALUES
_TOKEN_KEYS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "function_call", "audio")


class Target(NamedTuple):
    """Where one attempt goes: `base` is the server's URL without /v1 ("http://host:5000"), `headers` carry its key.

    `context` is the number of tokens to serve the model with, for servers that are told.
    """

    base: str
    local_name: str
    headers: Mapping[str, str]
    context: int | None = None


@functools.lru_cache(maxsize=256)
def path_of(base: str) -> str:
    """The path below which a server's API stands; empty for most."""
    return urlsplit(base).path


class OpenAIExchange(Receiver):
    """One attempt in the OpenAI dialect; see Exchange for how it is driven."""

    warnings: tuple[str, ...] = ()

    def __init__(self, question: Question, target: Target) -> None:
        super().__init__(question.path)
        self._question, self._target = question, target
        headers = {
            **question.headers,
            "accept": "text/event-stream" if question.stream else "application/json",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **target.headers,
        }
        path = f"{path_of(target.base)}/v1{question.path}"
        self.request = WireRequest("POST", path, headers, question.body_for(target.local_name))
        self._sse: SSEParser | None = None
        self._is_whole = False  # the body has begun as no stream does
        self._open_choices: set[int] = set()
        self._ended_choices: set[int] = set()
        self._early = 0  # events before the first token
        self._unnumbered = 0  # pieces of tool calls that do not say which call they belong to, and so are calls of their own

    # ---- the response, as it comes ---------------------------------------------------------------------------

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        super().head(status, headers)
        if status in _REDIRECTS:
            self._redirect(headers.get("location", ""))

    def feed(self, data: bytes) -> list[Event]:
        if self.failure or self.finished:
            return []
        events: list[Event] = []
        try:
            for piece in self._decoder.feed(data):
                if self._sse:
                    self._count(piece)
                    events += self._events(self._sse.feed(piece))
                else:
                    events += self._sniff(piece)
                if self.failure or self.finished:
                    break
        except ValueError as error:
            self.failure = broken(str(error), self._status)
        return events

    def end(self) -> list[Event]:
        if self.failure or self.finished:
            return []
        if not self._sse:
            return self._complete(bytes(self._body))
        events = self._events(self._sse.end())
        if not self.failure and not self.finished:
            if self.answered and self._ended_choices and not self._open_choices:
                self.finished = True  # a finish_reason without [DONE] is an honest end
            else:
                self.failure = broken("the stream ended without a finish_reason", self._status)
        return events

    # ---- where a dialect differs ---------------------------------------------------------------------------------

    def _refusal(self, failure: Failure) -> Failure:
        """What a status other than 2xx means from this kind of server."""
        return failure

    def _untrue(self, data: dict[str, Any]) -> Failure | None:
        """What is wrong with a body or event that looks like an answer; None when nothing is."""
        del data
        return None

    # ---- what the bytes turn out to be -----------------------------------------------------------------------

    def _sniff(self, data: bytes) -> list[Event]:
        """Tell SSE from a complete body by its first byte: content types are wrong too often to go by."""
        if not self._keep(data):
            return self._complete(bytes(self._body))
        if not 200 <= self._status < 300 or not self._question.stream or self._is_whole:
            return []
        start = data.lstrip()[:1]  # nothing but space came before
        self._is_whole = start in (b"{", b"[", b"<")
        if self._is_whole or not start:
            return []
        self._sse = SSEParser()
        held, self._body = bytes(self._body), bytearray()
        return self._events(self._sse.feed(held))

    def _complete(self, body: bytes) -> list[Event]:
        """A body that came whole: the answer to a plain call, an error, or a server that does not stream."""
        self.finished = True
        if not 200 <= self._status < 300:
            self.failure = self._refusal(failure_of_status(self._status, self._headers, body))
            return []
        try:
            data = load(body, _MAX_NUMBERS if self._question.path == "/embeddings" else MAX_VALUES)
        except json.JSONDecodeError:
            self.failure = broken(_describe(body), self._status)
            return []
        except ValueError as error:
            self.failure = broken(str(error), self._status)
            return []
        if isinstance(data, dict) and data.get("error"):
            self.failure = failure_of_error(data["error"], body)
        elif flaw := _flaw(data, self._question.path):
            self.failure = broken(flaw, self._status)
        elif (untrue := self._untrue(data)) is not None:
            self.failure = untrue
        else:
            self.answered = True
            return [Event(data, body, tokens=True, whole=True)]
        return []

    def _events(self, messages: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for message in messages:
            if self.finished or self.failure:
                break
            if message.strip() == b"[DONE]":
                self.finished = self.answered
                if not self.answered:
                    self.failure = broken("the stream ended without a single token", self._status)
            elif event := self._event(message):
                events.append(event)
                if not self.answered:
                    self._early += 1
                    if self._early > MAX_EARLY_EVENTS:
                        self.failure = broken(f"{MAX_EARLY_EVENTS} events came, and none of them has a token", self._status)
        return events

    def _event(self, message: bytes) -> Event | None:
        try:
            data = load(message)
        except ValueError:
            self.failure = broken(f"an event that is not JSON: {message[:80].decode('utf-8', 'replace')!r}", self._status)
            return None
        if not isinstance(data, dict):
            self.failure = broken(f"an event that is not an object: {message[:80].decode('utf-8', 'replace')!r}", self._status)
            return None
        if data.get("error"):
            self.failure = failure_of_error(data["error"], message)
            return None
        if (flaw := flaw_in(data)) is not None:
            self.failure = broken(f"an event that is no answer: {flaw}", self._status)
            return None
        if (untrue := self._untrue(data)) is not None:
            self.failure = untrue
            return None
        choices = data.get("choices") or ()
        tokens = False
        for choice in choices:
            tokens = self._choice(choice) or tokens
        self.answered = self.answered or tokens
        return Event(data, message, tokens, False, not choices and bool(data.get("usage")))

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Note where this choice stands; tells whether the piece carries tokens."""
        index = choice.get("index") or 0
        if choice.get("finish_reason") is not None:
            self._ended_choices.add(index)
            self._open_choices.discard(index)
            return True
        if index not in self._ended_choices:
            self._open_choices.add(index)
        delta = choice.get("delta")
        if delta is None:
            return bool(choice.get("text"))
        if delta.get("content"):  # as nearly every piece has
            return True
        if calls := delta.get("tool_calls"):
            self._unnumbered += sum(call.get("index") is None for call in calls)
            if self._unnumbered > MAX_CHOICES:
                raise ValueError(f"more than {MAX_CHOICES} tool calls came")
        return bool(choice.get("text")) or any(map(delta.get, _TOKEN_KEYS))

    def _redirect(self, location: str) -> None:
        """Follow within the same origin, where the key may go; another origin must never see it."""
        base = urlsplit(self._target.base)
        try:
            there = urlsplit(urljoin(f"{base.scheme}://{base.netloc}{self.request.path}", location))
        except ValueError:
            self.failure = broken(f"it redirects to what is no address: {location[:80]!r}", self._status)
            return
        if location and (there.scheme, there.netloc) == (base.scheme, base.netloc):
            self.moved = there.path + (f"?{there.query}" if there.query else "")
        else:
            self.failure = broken(f"it redirects to another address ({there.scheme}://{there.netloc[:80]})", self._status)


def as_chunk(body: dict[str, Any]) -> dict[str, Any]:
    """A complete body as the one event of a stream, for a caller who asked for a stream and a server that sent none."""
    choices = []
    for choice in body.get("choices") or []:
        piece = {key: value for key, value in choice.items() if key != "message"}
        if choice.get("message"):
            calls = choice["message"].get("tool_calls")
            numbered = {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]} if calls else {}
            piece["delta"] = {**choice["message"], **numbered}
        choices.append(piece)
    kind = str(body.get("object") or "chat.completion")
    return {**body, "object": "chat.completion.chunk" if kind.startswith("chat") else kind, "choices": choices}


def rename(event: Event, model: str) -> bytes:
    """The event's text with its `model` value set to the name that the caller used; every other byte as it came."""
    local_name = event.data.get("model")
    if local_name is None or local_name == model:
        return event.raw
    # Standing there once, it is the top-level key (inside strings its quotes would be escaped), unless that is in disguise.
    if isinstance(local_name, str) and event.raw.count(b'"model"') == 1 and b"\\u006" not in event.raw:
        for needle, renamed in _renamings(local_name, model):
            if needle in event.raw:
                return event.raw.replace(needle, renamed)
    try:
        return Text(event.raw).replace(model=model)
    except NotAnObject:  # with a key that stands there twice, say: then as it was read
        return to_json({**event.data, "model": model})


@functools.lru_cache(maxsize=64)
def _renamings(local_name: str, model: str) -> tuple[tuple[bytes, bytes], ...]:
    """The two usual ways to write the pair, and what each becomes."""
    old, new = json.dumps(local_name).encode(), json.dumps(model).encode()
    return tuple((b'"model"' + colon + old, b'"model"' + colon + new) for colon in (b":", b": "))


def models_in(body: bytes) -> list[str]:
    """The names in a GET /v1/models answer. Raises ValueError when it is none."""
    data = load(body)
    rows = data.get("data") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"no model list in {_describe(body)}")  # noqa: TRY004 - a fault of data, not of a type
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _flaw(data: Any, path: str) -> str | None:
    """What keeps a complete body from being an answer; None when it is one."""
    if not isinstance(data, dict):
        return "the body is not a JSON object"
    key = "data" if path == "/embeddings" else "choices"
    rows = data.get(key)
    if not isinstance(rows, list) or not rows:
        return f"the body has no {key}"
    if flaw := flaw_in(data):
        return flaw
    if path == "/embeddings":
        return None if all(map(_is_vector, rows)) else "a row of data is no embedding"
    if path == "/chat/completions":
        for row in rows:
            if not row.get("message"):
                return "a choice has no message"
    return None


def _is_vector(row: Any) -> bool:
    """A vector as numbers, or as base64 where the caller wanted that."""
    return isinstance(row, dict) and isinstance(row.get("embedding"), list | str) and type(row.get("index", 0) or 0) is int


def _describe(body: bytes) -> str:
    text = body[:200].decode("utf-8", "replace").strip()
    if not text:
        return "an empty body"
    return "an HTML page instead of JSON" if text.startswith("<") else f"a body that is not JSON: {text[:80]!r}"

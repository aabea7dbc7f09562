"""How an answer is worded for a foreign client: as the chat or completion it is, or as a response of the Responses API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from ..plain import text_of
from ..routing.verdict import error_answer
from ..wire.exchange import Event
from ..wire.openai import as_chunk, rename
from ..wire.question import Question
from ..wire.responses import Speaker
from ..wire.sse import encode_event
from .answer import Told

__all__ = ["ChatRendering", "Rendering", "ResponsesRendering"]


class Rendering(Protocol):
    """Bytes for one answer: `whole` for a complete body, or a `part` for each event of a stream and then `last`."""

    def whole(self, event: Event) -> bytes: ...

    def part(self, event: Event) -> bytes: ...

    def last(self) -> bytes: ...


class ChatRendering:
    """As it came, with the caller's name for the model."""

    def __init__(self, question: Question, answer: Told) -> None:
        self._question, self._answer = question, answer
        self._text: list[str] = []  # for the case that the stream breaks

    def whole(self, event: Event) -> bytes:
        return rename(event, self._answer.model)

    def part(self, event: Event) -> bytes:
        if event.usage_only and not self._question.wants_usage:
            return b""
        if event.whole:
            return encode_event(json.dumps({**as_chunk(event.data), "model": self._answer.model}).encode())
        choice = (event.data.get("choices") or [{}])[0]
        self._text.append(text_of((choice.get("delta") or {}).get("content")) or text_of(choice.get("text")))
        return encode_event(rename(event, self._answer.model))

    def last(self) -> bytes:
        """[DONE], or the error: SDKs take a silent cut for success, an error event they raise."""
        if self._answer.failure is None:
            return encode_event(b"[DONE]")
        return encode_event(_broken(self._answer, "".join(self._text)))


class ResponsesRendering:
    """In the words of the Responses API. `asked` is the request."""

    def __init__(self, asked: Mapping[str, Any], answer: Told) -> None:
        self._answer = answer
        self._speaker = Speaker(asked, answer.model, uuid.uuid4().hex)

    def whole(self, event: Event) -> bytes:
        self.part(event)
        self.last()
        return json.dumps(self._speaker.response).encode()

    def part(self, event: Event) -> bytes:
        return b"".join(map(_named, self._speaker.feed(as_chunk(event.data) if event.whole else event.data)))

    def last(self) -> bytes:
        if self._answer.failure is None:
            return b"".join(map(_named, self._speaker.end()))
        return _named(self._speaker.failed(json.loads(_broken(self._answer, self._speaker.text))["error"]))


def _named(event: Mapping[str, Any]) -> bytes:
    return encode_event(json.dumps(event).encode(), event["type"])


def _broken(answer: Told, text: str) -> bytes:
    assert answer.failure is not None
    message = f"{answer.backend} broke off: {answer.failure.message}"
    return error_answer(message, "stream_broken", backend=answer.backend, text=text)

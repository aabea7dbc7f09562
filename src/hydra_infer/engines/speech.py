"""Speech: what the echo engine says, computed at once: words, OpenAI-shaped events, vectors. Pure but for the date."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, HydraError

__all__ = ["Answer", "Spoken", "Vocabulary", "last_words", "prompt_words", "speak", "vector", "words"]

JsonDict = dict[str, Any]
Answer = str | Mapping[str, Any] | HydraError | tuple[str | HydraError, ...]
Spoken = list[JsonDict] | HydraError  # what is said at one moment: events, or the error that ends it


def words(text: str) -> list[str]:
    """The tokens of a text: each word with the space before it. Joined they are the text again."""
    return re.findall(r"\s*\S+|\s+", text)


def last_words(request: Mapping[str, Any]) -> str:
    """What an echo of the request is: the last user message, or the prompt."""
    if "prompt" in request:
        return _prompt(request)
    said = [_content(message) for message in request["messages"] if message.get("role") == "user"]
    return said[-1] if said else ""


def prompt_words(request: Mapping[str, Any]) -> list[str]:
    """The tokens that the request asks the engine to read."""
    if "prompt" in request:
        return words(_prompt(request))
    return [word for message in request["messages"] for word in words(_content(message))]


def speak(request: Mapping[str, Any], answer: Answer, *, model: str, number: int, prompt_tokens: int, room: int) -> list[Spoken]:
    """The answer as it is said, moment by moment; the last moment has the finish reason and the usage.

    At most `room` tokens, or the request's max_tokens if that is fewer; `number` makes the id.
    """
    extras: JsonDict = {}
    if isinstance(answer, Mapping):
        extras = {key: value for key, value in answer.items() if key not in ("role", "content")}
        answer = _content(answer)
    pieces: list[str | HydraError] = list(answer) if isinstance(answer, tuple) else [answer]
    if isinstance(answer, str):
        pieces = list(words(answer))
    pieces = _cut(pieces, request.get("stop"))
    limit = min([room, *(request[key] for key in ("max_tokens", "max_completion_tokens") if request.get(key) is not None)])
    finish = "length" if len(pieces) > limit else "tool_calls" if extras.get("tool_calls") else "stop"
    events = _Events(chat="messages" in request, model=model, number=number)
    moments: list[Spoken] = [piece if isinstance(piece, HydraError) else [events.text(piece)] for piece in pieces[:limit]]
    spent = len(moments) + sum(len(words(json.dumps(call))) for call in extras.get("tool_calls") or ())
    opening, closing = events.opening(extras), events.closing(finish, prompt_tokens, spent)
    if not moments:
        return [[*opening, *closing]]
    if not isinstance(moments[0], HydraError):
        moments[0] = [*opening, *moments[0]]
    if not isinstance(moments[-1], HydraError):
        moments[-1] = [*moments[-1], *closing]
    return moments


def vector(text: str, dimensions: int) -> list[float]:
    """A vector of length 1 that depends on the text alone. It means nothing: alike texts are not near each other."""
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    numbers = [int.from_bytes(digest[at : at + 2], "big") - 32767.5 for at in range(0, len(digest), 2)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


class Vocabulary:
    """Numbers words in the order in which they are first seen."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        for word in words(text):
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
        return [self._ids[word] for word in words(text)]

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids that `ids` gave. Raises ConfigError for any other."""
        try:
            return "".join(self._words[number] for number in map(_natural, ids))
        except IndexError:
            raise ConfigError(f"a token id is not below {len(self._words)}", hint="detokenize what tokenize gave") from None


class _Events:
    """Builds the events of one answer in OpenAI's shapes: chat.completion.chunk or text_completion."""

    def __init__(self, *, chat: bool, model: str, number: int) -> None:
        self._chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-echo-{number}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def opening(self, extras: JsonDict) -> list[JsonDict]:
        if not self._chat:
            return []
        delta = {"role": "assistant", "content": "", **extras}
        if extras.get("tool_calls"):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(extras["tool_calls"])]
        return [self._event({"delta": delta})]

    def text(self, piece: str) -> JsonDict:
        return self._event({"delta": {"content": piece}} if self._chat else {"text": piece})

    def closing(self, finish: str, prompt_tokens: int, completion_tokens: int) -> list[JsonDict]:
        end = self._event({"delta": {}} if self._chat else {"text": ""}, finish)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        return [end, {**self._head, "choices": [], "usage": usage}]

    def _event(self, piece: JsonDict, finish: str | None = None) -> JsonDict:
        return {**self._head, "choices": [{"index": 0, **piece, "finish_reason": finish}]}


def _cut(pieces: Sequence[str | HydraError], stop: str | Sequence[str] | None) -> list[str | HydraError]:
    """The pieces up to the first stop string, which may lie across several of them."""
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    stops = [word for word in stops if word]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    left = min((at for at in map(text.find, stops) if at >= 0), default=None)
    if left is None:
        return list(pieces)
    kept: list[str | HydraError] = []
    for piece in pieces:
        if isinstance(piece, HydraError) or not left:
            break
        kept.append(piece[:left])
        left -= len(piece[:left])
    return kept


def _prompt(request: Mapping[str, Any]) -> str:
    prompt = request["prompt"]
    if not isinstance(prompt, str):
        raise ConfigError(f"prompt={prompt!r:.80} is not a text", hint="the echo engine goes on from one text")
    return prompt


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _natural(number: int) -> int:
    if number < 0:
        raise IndexError(number)
    return number

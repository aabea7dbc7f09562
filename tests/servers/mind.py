"""What thinks behind the stand-in servers: from a request to the pieces of its answer, made up or from a real engine."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from hydra_infer.engines.engine import Engine
from hydra_infer.reply import Chunk

__all__ = ["Died", "Mind", "by_engine", "pause", "words"]

# A mind gets an OpenAI-shaped request (messages or prompt, tools, response_format, max_tokens) and gives one Chunk per token.
# None in between means "nothing yet": the server looks whether its client is still there.
Mind = Callable[[dict[str, Any]], Generator[Chunk | None, None, None]]

TICK = 0.01
_MARKS = re.compile(r"\[\[(\w+)(?::([\d.]+))?\]\]")
_ENGINE_FIELDS = ("messages", "prompt", "max_tokens", "temperature", "stop", "seed", "tools")


class Died(Exception):
    """The engine failed while it was answering; the text is its own."""


def words(request: dict[str, Any], *, count: int | None = None) -> Generator[Chunk | None, None, None]:
    """A made-up answer. Tools are called once and then their result is told; a schema is filled; else the last words come back.

    Marks in the last message steer it: [[n:5]] gives five numbered tokens (`count` is how many without the mark), [[slow:2]]
    waits before the first, [[delay:0.1]] before each, [[think]] thinks first, [[oom]] and [[oom_mid]] run out of memory before
    the first and after the third.
    """
    text = _last(request)
    marks = dict(_MARKS.findall(text))
    yield from pause(float(marks.get("slow") or 0))
    if "oom" in marks:
        raise Died("OutOfMemoryError: CUDA out of memory. Tried to allocate 114.00 MiB. GPU 1 has a total capacity of 23.57 GiB")
    if "think" in marks:
        yield Chunk(reasoning="pondering ")
        yield Chunk(reasoning="this")
    if (call := _tool_call(request)) is not None:
        yield Chunk(tool_calls=(call,), finish_reason="tool_calls")
        return
    number = int(marks.get("n") or count or 0)
    said = _said(request, _MARKS.sub("", text))
    pieces = [f"tok{index} " for index in range(number)] if number else re.findall(r"\s*\S+|\s+", said)
    limit = request.get("max_tokens")
    for index, piece in enumerate(pieces if limit is None else pieces[:limit]):
        yield from pause(float(marks.get("delay") or 0))
        if index == 3 and "oom_mid" in marks:
            raise Died("OutOfMemoryError: CUDA out of memory. Tried to allocate 114.00 MiB.")
        yield Chunk(text=piece)
    yield Chunk(finish_reason="length" if limit is not None and len(pieces) > limit else "stop")


def by_engine(engine: Engine) -> Mind:
    """A mind with real tokens; the engine belongs to whoever loaded it."""

    def answer(request: dict[str, Any]) -> Generator[Chunk | None, None, None]:
        asked = {key: request[key] for key in _ENGINE_FIELDS if request.get(key) is not None}
        job = engine.submit(asked)
        try:
            while True:
                try:
                    chunk = job.take(timeout=TICK)
                except TimeoutError:
                    yield None
                    continue
                if chunk is None:
                    return
                yield chunk
        finally:
            job.close()

    return answer


def pause(seconds: float) -> Iterator[None]:
    """Nothing, for so long."""
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(min(TICK, left))
        yield None


def _last(request: dict[str, Any]) -> str:
    if "prompt" in request:
        return str(request["prompt"])
    return _content(request["messages"][-1]) if request["messages"] else ""


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _tool_call(request: dict[str, Any]) -> dict[str, Any] | None:
    """A call of the first tool, while the last word is the user's."""
    if not request.get("tools") or request["messages"][-1]["role"] == "tool":
        return None
    function = request["tools"][0]["function"]
    arguments = json.dumps(_filled(function.get("parameters") or {"type": "object"}))
    return {"index": 0, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _said(request: dict[str, Any], text: str) -> str:
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(_filled(wanted["json_schema"]["schema"]))
    if wanted.get("type") == "json_object":
        return json.dumps({"answer": text})
    return text


def _filled(schema: dict[str, Any]) -> Any:
    """The plainest value that a JSON schema allows."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: _filled(part) for name, part in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [_filled(schema.get("items") or {})]
    return {"integer": 3, "number": 2.5, "boolean": True, "null": None}.get(kind, "Basel")

"""How the Ollama stand-in checks a request and words its answers, line by line and whole."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hydra_infer.reply import Chunk

from .mind import Died, Mind
from .standin import Head, Refused, Step, plain

__all__ = ["Answering", "checked", "duration", "prompt_tokens", "runner_options"]

# Options that belong to the loaded model: another value loads it again.
RUNNER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
_INTEGERS = {*RUNNER, "num_keep", "seed", "num_predict", "top_k", "repeat_last_n"} - {"use_mmap"}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# The same token so many times in a row, and the answer stops without a word.
_REPEATS = 30


class Answering:
    """One request being answered. `died` tells that the engine ran out of memory in it."""

    def __init__(
        self, body: dict[str, Any], chat: bool, prompt_tokens: int, thinks: bool, mind: Mind, began: float, load_seconds: float
    ) -> None:
        self._body, self._chat, self._mind = body, chat, mind
        self._thinks = thinks and body.get("think") is not False
        self._counts = {"load_duration": _nanoseconds(load_seconds), "prompt_eval_count": prompt_tokens}
        self._began, self._tokens, self._repeats = began, 0, 0
        self._last = ""
        self.died = False

    def steps(self) -> Iterator[Step]:
        """Lines as they come, or one body with all of them."""
        streamed = self._body.get("stream") is not False
        begun, lines = False, []
        for line in self._lines():
            if line is None:
                yield b""
            elif not streamed:
                lines.append(line)
            else:
                if not begun:  # a failure before the first line still has a status of its own
                    if "error" in line:
                        raise Refused(500, line)
                    yield Head(200, {"content-type": "application/x-ndjson"})
                    begun = True
                yield json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        if not streamed:
            yield from plain(self._whole(lines), 200, "application/json; charset=utf-8")

    def _lines(self) -> Iterator[dict[str, Any] | None]:
        pieces = self._mind(_as_openai(self._body, self._chat))
        try:
            for piece in pieces:
                if piece is None:
                    yield None
                    continue
                if (line := self._line(piece)) is not None:
                    yield line
                if self._repeats > _REPEATS:
                    return
                if piece.finish_reason:
                    yield self._done("length" if piece.finish_reason == "length" else "stop")
                    return
        except Died as died:
            self.died = True
            yield {"error": f"llama-server process has terminated: {died}"}
        finally:
            pieces.close()

    def _line(self, piece: Chunk) -> dict[str, Any] | None:
        self._tokens += bool(piece.text or piece.reasoning)
        if piece.text:
            self._repeats = self._repeats + 1 if piece.text.strip() == self._last else 0
            self._last = piece.text.strip()
        said: dict[str, Any] = {}
        if piece.reasoning and self._thinks:
            said["thinking"] = piece.reasoning
        if piece.tool_calls:
            said["tool_calls"] = [_call(call) for call in piece.tool_calls]
        return self._said(piece.text, said, done=False) if piece.text or said else None

    def _said(self, text: str, more: dict[str, Any], *, done: bool) -> dict[str, Any]:
        words = {"message": {"role": "assistant", "content": text, **more}} if self._chat else {"response": text, **more}
        return {
            "model": self._body["model"],
            "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}123Z",
            **words,
            "done": done,
        }

    def _done(self, reason: str) -> dict[str, Any]:
        spent = _nanoseconds(time.monotonic() - self._began)
        timed = {"total_duration": spent, **self._counts, "prompt_eval_duration": spent // 4 + 1}
        answered = {"eval_count": self._tokens, "eval_duration": spent // 2 + 1} if self._tokens else {}  # zeros are left out
        context = {} if self._chat else {"context": [1, 2, 3]}
        return {**self._said("", {}, done=True), "done_reason": reason, **context, **timed, **answered}

    def _whole(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        error = next((line["error"] for line in lines if "error" in line), None)
        if error is not None:
            raise Refused(500, {"error": error})
        place = [line["message"] if self._chat else line for line in lines]
        key = "content" if self._chat else "response"
        said = {key: "".join(line[key] for line in place)}
        if thought := "".join(line.get("thinking", "") for line in place):
            said["thinking"] = thought
        calls = [call for line in place for call in line.get("tool_calls", ())]
        more = {**said, **({"tool_calls": calls} if calls else {})}
        last = lines[-1]
        return {**last, "message": {**last["message"], **more}} if self._chat else {**last, **more}


def checked(body: dict[str, Any], capabilities: tuple[str, ...], name: str) -> None:
    """Refuse what the model cannot do, or what is of a wrong type; the latter as an error of its own (500)."""
    for option, value in (body.get("options") or {}).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if option in _INTEGERS and not number:
            raise Refused(500, {"error": f'option "{option}" must be of type integer'})
        if option == "stop" and not isinstance(value, list):
            raise Refused(500, {"error": 'option "stop" must be of type array'})
    if body.get("tools") and "tools" not in capabilities:
        raise Refused(400, {"error": f"registry.ollama.ai/library/{name} does not support tools"})
    if body.get("think") and "thinking" not in capabilities:
        raise Refused(400, {"error": f'"{name}" does not support thinking'})
    if body.get("format") not in (None, "", "json") and not isinstance(body["format"], dict):
        raise Refused(400, {"error": f"invalid format: {json.dumps(body['format'])}"})
    if body.get("keep_alive") is not None:
        duration(body["keep_alive"])


def duration(value: float | str) -> float:
    """Seconds of a keep_alive: a number, or a duration as Go writes it ("10m", "1h30m"); a bare "10" is none."""
    if isinstance(value, int | float):
        return float(value)
    parts = re.findall(r"([\d.]+)(ms|s|m|h)", value)
    if "".join(number + unit for number, unit in parts) != value.removeprefix("-"):
        raise Refused(400, {"error": f'time: missing unit in duration "{value}"'})
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if value.startswith("-") else seconds


def runner_options(body: dict[str, Any], context: int) -> dict[str, Any]:
    """What the model has to be loaded with for this request."""
    options = body.get("options") or {}
    given = {name: options[name] for name in RUNNER if name in options}
    return {"num_ctx": context, **given, "shift": body.get("shift") is not False}


def prompt_tokens(body: dict[str, Any], chat: bool, options: dict[str, Any], name: str) -> int:
    """Tokens (words) of the prompt as it is read: one too long is cut to half of the context, unless that is forbidden."""
    texts = [message.get("content") or "" for message in body["messages"]] if chat else [body["prompt"]]
    count, room = sum(len(text.split()) for text in texts), options["num_ctx"]
    if count <= room:
        return count
    if body.get("truncate") is False:
        message = f"request ({count} tokens) exceeds the available context size ({room} tokens), try increasing it"
        inner = {"code": 400, "message": message, "type": "exceed_context_size_error", "n_prompt_tokens": count, "n_ctx": room}
        raise Refused(400, {"error": json.dumps({"error": inner}, separators=(",", ":"))})
    if not options["shift"]:
        raise Refused(400, {"error": f"the prompt is longer than the context length currently available to the model; {name}"})
    return int(room - (room - 4) // 2)


def _as_openai(body: dict[str, Any], chat: bool) -> dict[str, Any]:
    """The request as minds understand it."""
    options, wanted = body.get("options") or {}, body.get("format")
    request: dict[str, Any] = {"messages": body["messages"]} if chat else {"prompt": body["prompt"]}
    if isinstance(wanted, dict):
        request["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted}}
    elif wanted == "json":
        request["response_format"] = {"type": "json_object"}
    if options.get("num_predict", -1) >= 0:
        request["max_tokens"] = options["num_predict"]
    shared = {name: options[name] for name in ("temperature", "stop", "seed") if name in options}
    return {**request, **shared, **({"tools": body["tools"]} if body.get("tools") else {})}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments are an object here, and a text everywhere else."""
    function = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
    return {"id": f"call_{uuid.uuid4().hex[:8]}", "function": function}


def _nanoseconds(seconds: float) -> int:
    return max(1, int(seconds * 1e9))

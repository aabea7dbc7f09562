"""How the TabbyAPI stand-in checks a request and words its answers, streamed and whole."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from hydra_infer.reply import Chunk

from .mind import TICK, Died, Mind
from .standin import Refused, Step, plain

__all__ = ["Answering", "Card", "Task", "fitting", "tokens_of", "validated"]


@dataclass(frozen=True, slots=True)
class Card:
    """The model in memory, in tokens."""

    name: str
    context: int
    cache_size: int
    cache_mode: str
    chunk_size: int
    template: bool


@dataclass(eq=False, slots=True)
class Task:
    """A running answer. An unload cancels it; `issue` is what went wrong with it."""

    cancelled: bool = False
    issue: str | None = None


@dataclass(slots=True)
class _Choice:
    """One answer of possibly several."""

    index: int
    pieces: Generator[Chunk | None, None, None]
    text: str = ""
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    finish: str | None = None

    @property
    def eos(self) -> str | None:
        """Why it really ended; None when it was cut, though its finish_reason says "stop"."""
        return {None: None, "length": "max_new_tokens"}.get(self.finish, "stop_token")


class Answering:
    """One request being answered, `n` times for each prompt. `prompt_tokens` are counted once for all."""

    def __init__(
        self, card: Card, fields: dict[str, Any], prompts: list[Any], prompt_tokens: int, mind: Mind, reasoning: bool, task: Task
    ) -> None:
        self.stream = bool(fields.get("stream"))
        self._card, self._fields, self._task, self._reasoning = card, fields, task, reasoning
        self._chat = "messages" in fields
        self._prompt_tokens, self._tokens = prompt_tokens, 0
        self._id, self._began = uuid.uuid4().hex, time.monotonic()
        asked = [{**fields, ("messages" if self._chat else "prompt"): prompt} for prompt in prompts]
        every = [each for each in asked for _ in range(fields.get("n") or 1)]
        self._choices = [_Choice(index, mind(each)) for index, each in enumerate(every)]

    def streamed(self) -> Iterator[Step]:
        """Server-sent events; what fails ends them with an error event and without [DONE]."""
        if not self._chat and self._fields.get("max_tokens") is None:
            yield from self.aborted()
            return
        try:
            for choice, piece in self._in_turns():
                if piece is None:
                    yield b""
                    continue
                if delta := self._heard(choice, piece):
                    yield self._event(choice, delta)
                if choice.finish:
                    yield self._event(choice, {}, ended=True)
        except Died as died:
            self._task.issue = str(died)
            yield from self.aborted()
            return
        if self._task.cancelled:
            while True:  # the client is never told
                time.sleep(TICK)
                yield b""
        yield b"data: [DONE]\r\n\r\n"

    def whole(self) -> Iterator[Step]:
        """One body. When the model is unloaded meanwhile, what there is, and "stop"."""
        try:
            for choice, piece in self._in_turns():
                if piece is None:
                    yield b""
                else:
                    self._heard(choice, piece)
        except Died as died:
            self._task.issue = str(died)
            yield from self.aborted()
            return
        body = {
            "id": f"cmpl-{self._id}",
            "choices": [self._whole_choice(choice) for choice in self._choices],
            "created": int(time.time()),
            "model": self._card.name,
            "object": "chat.completion" if self._chat else "text_completion",
            "usage": self._usage() if self._wants_usage else None,
        }
        yield from plain(body)

    def aborted(self) -> Iterator[Step]:
        """The answer that something went wrong."""
        what = "Chat completion" if self._chat else "Completion"
        if self.stream:
            message = f"{what} aborted. Please check the server console."
            yield b"data: %s\r\n\r\n" % _dumps({"error": {"message": message, "trace": None}})
        else:
            detail = f"{what} {self._id} aborted. Maybe the model was unloaded? Please check the server console."
            yield from plain({"detail": detail}, 503)

    def _in_turns(self) -> Iterator[tuple[_Choice, Chunk | None]]:
        """Every choice's pieces, one of each after the other, until the last has ended or all are cut."""
        going = list(self._choices)
        try:
            while going and not self._task.cancelled:
                for choice in list(going):
                    piece = next(choice.pieces)
                    yield choice, piece
                    if piece is not None and piece.finish_reason:
                        going.remove(choice)
        finally:
            for choice in self._choices:
                choice.pieces.close()

    def _heard(self, choice: _Choice, piece: Chunk) -> dict[str, str] | None:
        """Take a piece in; gives what a stream has to tell of it now. Tool calls are held back until the end."""
        choice.finish = piece.finish_reason
        choice.calls += tuple(_whole_call(call) for call in piece.tool_calls)
        self._tokens += bool(piece.text or piece.reasoning)
        text, reasoning = piece.text, piece.reasoning
        if reasoning and not self._reasoning:
            text, reasoning = ("" if choice.text else "<think>") + reasoning, ""
        elif text and choice.text.startswith("<think>") and "</think>" not in choice.text:
            text = "</think>" + text
        choice.text += text
        choice.reasoning += reasoning
        return {"content": text} if text else {"reasoning_content": reasoning} if reasoning else None

    def _event(self, choice: _Choice, delta: dict[str, Any], *, ended: bool = False) -> bytes:
        data: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish if ended else None}
        if self._chat:
            data["delta"] = {"tool_calls": list(choice.calls)} if ended and choice.calls else delta
        else:
            data["text"] = delta.get("content", "")
        counted = ended and self._wants_usage and all(other.finish for other in self._choices)
        if ended and self._chat and not counted:
            data["eos_reason"] = choice.eos
        event = {
            "id": f"chatcmpl-{self._id}",
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": int(time.time()),
            "choices": [data],
            **({"usage": self._usage()} if counted else {}),
            "model" if self._chat else "model_name": self._card.name,
        }
        return b"data: %s\r\n\r\n" % json.dumps(event).encode()

    def _whole_choice(self, choice: _Choice) -> dict[str, Any]:
        data = {"index": choice.index, "finish_reason": choice.finish or "stop", "eos_reason": choice.eos, "logprobs": None}
        if not self._chat:
            return {**data, "text": choice.text}
        message = {
            "role": "assistant",
            "content": choice.text or (None if choice.calls else ""),
            "reasoning_content": choice.reasoning or None,
            "tool_calls": list(choice.calls) or None,
            "tool_call_id": None,
        }
        return {**data, "stop_str": "</s>" if choice.eos == "stop_token" else None, "message": message}

    @property
    def _wants_usage(self) -> bool:
        return bool((self._fields.get("stream_options") or {}).get("include_usage"))

    def _usage(self) -> dict[str, Any]:
        seconds = round(time.monotonic() - self._began, 2)
        return {
            "prompt_tokens": self._prompt_tokens,
            "prompt_time": 0.0,
            "prompt_tokens_per_sec": "Indeterminate",
            "completion_tokens": self._tokens,
            "completion_time": seconds,
            "completion_tokens_per_sec": round(self._tokens / seconds, 2) if seconds else "Indeterminate",
            "total_tokens": self._prompt_tokens + self._tokens,
            "total_time": seconds,
        }


def validated(fields: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """The fields as its schema takes them: an over-large max_tokens is fine, a negative penalty is not."""
    flaws = [_flaw("missing", ["messages"], "Field required", fields)] if chat and "messages" not in fields else []
    if not chat and not isinstance(fields.get("prompt"), str):
        flaws += _prompt_flaws(fields)
    for name, low, high in (("temperature", 0, 10), ("frequency_penalty", 0, None), ("presence_penalty", 0, None)):
        flaws += _range_flaws(name, fields.get(name), low, high)
    for index, tool in enumerate(fields.get("tools") or []):
        absent = [name for name in ("name", "description", "parameters") if name not in tool["function"]]
        flaws += [_flaw("missing", ["tools", index, "function", name], "Field required", tool["function"]) for name in absent]
    if flaws:
        raise Refused(422, {"detail": flaws})
    limit = next((fields[name] for name in ("max_tokens", "max_completion_tokens", "max_length") if fields.get(name)), None)
    return {**fields, "max_tokens": limit}


def tokens_of(prompt: str | list[dict[str, Any]], *, opening: bool = True) -> list[int]:
    """A token is a byte; 256 begins. A chat is rendered by the template, with the assistant's `opening` when it is to answer."""
    if isinstance(prompt, list):
        said = [f"<|{message['role']}|>{_text(message)}\n" for message in prompt]
        prompt = "".join(said) + "<|assistant|>" * opening
    return [256, *prompt.encode()]


def fitting(tokens: int, card: Card) -> None:
    """Refuse a prompt that does not fit the sequence; or, with the first chunk of the answer, in pages of 256, the cache."""
    needed = -(-(tokens - 1 + card.chunk_size) // 256) * 256
    message = None
    if tokens > card.context:
        message = f"Prompt length {tokens} exceeds the available context size of {card.context} tokens"
    elif needed > card.cache_size:
        available = f"which exceeds the available context size of {card.cache_size} tokens"
        message = f"Initial job allocation requires {needed} cache tokens, {available}"
    if message:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"}
        raise Refused(400, {"error": error})


def _prompt_flaws(fields: dict[str, Any]) -> list[dict[str, Any]]:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and all(isinstance(one, str) for one in prompt):
        return []
    rows = [(["prompt", "str"], prompt)] + [(["prompt", "list[str]", index], one) for index, one in enumerate(prompt or [])]
    return [_flaw("string_type", place, "Input should be a valid string", given) for place, given in rows]


def _range_flaws(name: str, value: Any, low: float, high: float | None) -> list[dict[str, Any]]:
    if value is not None and value < low:
        words = f"Input should be greater than or equal to {low}"
        return [{**_flaw("greater_than_equal", [name], words, value), "ctx": {"ge": float(low)}}]
    if value is not None and high is not None and value > high:
        words = f"Input should be less than or equal to {high}"
        return [{**_flaw("less_than_equal", [name], words, value), "ctx": {"le": float(high)}}]
    return []


def _flaw(kind: str, place: list[Any], words: str, given: Any) -> dict[str, Any]:
    return {"type": kind, "loc": ["body", *place], "msg": words, "input": given}


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "function": call["function"],
        "type": "function",
        "index": call.get("index", 0),
    }


def _dumps(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

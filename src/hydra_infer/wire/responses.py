"""OpenAI's Responses API in the words of chat completions, which every server speaks: requests to there, answers from there."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..plain import brief, count_of, grow, table_of, text_of

__all__ = ["NoCounterpart", "Speaker", "as_chat"]

JsonDict = dict[str, Any]

# Fields that say the same under the same name.
_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls", "user")
# What only a server that keeps conversations, prompts and files can answer. An absent or false value asks for none of it.
_STORED = ("previous_response_id", "conversation", "prompt", "background")
# Translated below, or for OpenAI's own machines only: their loss changes no answer.
_HANDLED = frozenset(
    "input instructions max_output_tokens tools tool_choice text reasoning top_logprobs metadata store include truncation "
    "service_tier safety_identifier prompt_cache_key prompt_cache_retention stream_options max_tool_calls".split()
).union(_SAME, _STORED)
# Parts of the echo that a response must have, as they are when nobody says them.
_UNSAID: JsonDict = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class NoCounterpart(ConfigError):
    """Something in a Responses request that chat completions cannot say."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"/v1/responses is translated to chat completions here, which have no {what}",
            hint="switch the client to chat completions: openai-agents set_default_openai_api('chat_completions'), "
            "pydantic-ai OpenAIChatModel, LangChain use_responses_api=False, n8n without 'Use Responses API'",
        )


# ---- requests --------------------------------------------------------------------------------------------------------


def as_chat(asked: Mapping[str, Any]) -> JsonDict:
    """The request's fields for /chat/completions. Raises NoCounterpart, and ConfigError for what is no such request.

    Fields that are not OpenAI's (a server's own samplers) stay as they are.
    """
    for name in _STORED:
        if asked.get(name):
            raise NoCounterpart(f"{name!r}: answers are not stored")
    chat: JsonDict = {
        name: value for name, value in asked.items() if (name in _SAME or name not in _HANDLED) and value is not None
    }
    chat["messages"] = _messages(asked)
    if asked.get("max_output_tokens") is not None:
        chat["max_tokens"] = asked["max_output_tokens"]
    if asked.get("top_logprobs") is not None:
        chat |= {"logprobs": True, "top_logprobs": asked["top_logprobs"]}
    if tools := asked.get("tools"):
        chat["tools"] = [_tool(_object(tool, "tools")) for tool in _list(tools, "tools")]
        if (choice := asked.get("tool_choice")) is not None:
            chat["tool_choice"] = _choice(choice)
    if (effort := _object(asked.get("reasoning"), "reasoning").get("effort")) is not None:
        chat["reasoning_effort"] = effort
    text = _object(asked.get("text"), "text")
    if (verbosity := text.get("verbosity")) is not None:
        chat["verbosity"] = verbosity
    if (wanted := _format(_object(text.get("format"), "text.format"))) is not None:
        chat["response_format"] = wanted
    return chat


def _messages(asked: Mapping[str, Any]) -> list[JsonDict]:
    """Instructions and input as messages. Calls that follow each other are one assistant's message, as templates want them."""
    given = asked.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else _list(given, "input")
    if asked.get("instructions"):
        items = [{"role": "system", "content": asked["instructions"]}, *items]
    messages: list[JsonDict] = []
    for item in items:
        message = _message(_object(item, "input"))
        if message is None:
            continue
        last = messages[-1] if messages else {}
        if "tool_calls" in message and last.get("role") == "assistant":
            last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
        elif message["role"] == last.get("role") == "system" and isinstance(last["content"], str):
            last["content"] += f"\n\n{message['content']}"  # many templates take only one
        else:
            messages.append(message)
    if not messages:
        raise ConfigError("the request's field 'input' has nothing to answer in it")
    return messages


def _message(item: Mapping[str, Any]) -> JsonDict | None:
    """One input item; None for thoughts, which no server wants back."""
    kind = item.get("type", "message")
    if kind == "message":
        role = "system" if item.get("role") == "developer" else item.get("role")
        return {"role": role, "content": _content(item.get("content"))}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(item.get("output"))}
    if kind == "reasoning":
        return None
    raise NoCounterpart(f"input item of type {brief(kind)}")


def _content(content: Any) -> Any:
    """A text, or parts where there are pictures among them."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(_object(part, "input")) for part in _list(content, "input")]
    return parts if any(part["type"] != "text" for part in parts) else "".join(part["text"] for part in parts)


def _part(part: Mapping[str, Any]) -> JsonDict:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": str(part.get("text", ""))}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal", ""))}
    if kind == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise NoCounterpart(f"content of type {brief(kind)}" + (" by file_id" if part.get("file_id") else ""))


def _tool(tool: Mapping[str, Any]) -> JsonDict:
    if tool.get("type") != "function":
        raise NoCounterpart(f"tool of type {brief(tool.get('type'))}: only functions are called")
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type" and value is not None}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if _object(choice, "tool_choice").get("type") != "function":
        raise NoCounterpart(f"tool_choice of type {brief(choice.get('type'))}")
    return {"type": "function", "function": {"name": choice.get("name")}}


def _format(wanted: Mapping[str, Any]) -> JsonDict | None:
    if wanted.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {key: value for key, value in wanted.items() if key != "type"}}
    return {"type": "json_object"} if wanted.get("type") == "json_object" else None


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """What should be an object; one that is not there is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"in the request's field {name!r} stands {brief(value)} where an object belongs")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"in the request's field {name!r} stands {brief(value)} where a list belongs")
    return value


# ---- answers ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Item:
    """One item of the output. `place` is what its events carry: which item it is, and where it stands."""

    kind: str
    place: JsonDict
    said: JsonDict = field(default_factory=lambda: {"text": ""})
    call: JsonDict = field(default_factory=dict)  # call_id and name
    done: bool = False

    @property
    def text(self) -> str:
        """What it says, or its call's arguments, so far."""
        return text_of(self.said["text"])

    @property
    def data(self) -> JsonDict:
        """The item as it is now."""
        head = {"id": self.place["item_id"], "type": self.kind}
        if self.kind == "reasoning":
            return {**head, "summary": [], "content": [self.part] if self.text else []}
        status = {"status": "completed" if self.done else "in_progress"}
        if self.kind == "function_call":
            return {**head, **status, **self.call, "arguments": self.text}
        return {**head, **status, "role": "assistant", "content": [self.part] if self.text else []}

    @property
    def part(self) -> JsonDict:
        """Its one content part."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}


class Speaker:
    """Says a chat answer in the words of Responses: feed it chat chunks, send its events; or take `response` at the end.

    `asked` is the Responses request, `model` the name that the caller knows, `number` what makes the ids unique.
    """

    def __init__(self, asked: Mapping[str, Any], model: str, number: str) -> None:
        self._asked, self._model, self._number = asked, model, number
        self._items: list[_Item] = []
        self._calls: dict[int, _Item] = {}
        self._usage: JsonDict | None = None
        self._finish: str | None = None
        self._created = 0
        self._events = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(item.text for item in self._items if item.kind == "message")

    @property
    def response(self) -> JsonDict:
        """The response as it is now."""
        reason = _INCOMPLETE.get(self._finish or "")
        status = "in_progress" if self._finish is None else "incomplete" if reason else "completed"
        said = {name: self._asked.get(name) for name in _UNSAID}
        echo = {name: _UNSAID[name] if value is None else value for name, value in said.items()}
        return {
            "id": f"resp_{self._number}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": [item.data for item in self._items],
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": self._usage,
            **echo,
        }

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[JsonDict]:
        """The events that a chat chunk (or a whole answer as one chunk) brings."""
        if not self._events:
            self._created = count_of(chunk.get("created")) or 0
            yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)
        if usage := table_of(chunk.get("usage")):
            self._usage = _usage(usage)
        for choice in (chunk.get("choices") or [])[:1]:
            delta = choice.get("delta") or {}
            yield from self._text("reasoning", text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning")))
            yield from self._text("message", text_of(delta.get("content")) or text_of(delta.get("refusal")))
            for position, call in enumerate(delta.get("tool_calls") or []):
                index = call.get("index")
                yield from self._call(position if index is None else index, call)
            self._finish = choice.get("finish_reason") or self._finish

    def end(self) -> Iterator[JsonDict]:
        """The last events; after them `response` is whole."""
        yield from self._close()
        self._finish = self._finish or "stop"
        response = self.response
        yield self._event(f"response.{response['status']}", response=response)

    def failed(self, error: Mapping[str, Any]) -> JsonDict:
        """The event for an answer that broke off; SDKs raise what has `error` in it."""
        return self._event("error", code=error.get("code"), message=error.get("message"), param=None, error=error)

    def _text(self, kind: str, text: str) -> Iterator[JsonDict]:
        if not text:
            return
        item = self._items[-1] if self._items and self._items[-1].kind == kind else None
        if item is None or item.done:
            yield from self._close()
            item = yield from self._open(kind)
            if kind == "message":
                yield self._event("response.content_part.added", **item.place, content_index=0, part=item.part)
        grow(item.said, "text", text)
        word = "output_text" if kind == "message" else "reasoning_text"
        logprobs: JsonDict = {"logprobs": []} if kind == "message" else {}
        yield self._event(f"response.{word}.delta", **item.place, content_index=0, delta=text, **logprobs)

    def _call(self, index: int, piece: Mapping[str, Any]) -> Iterator[JsonDict]:
        function = piece.get("function") or {}
        item = self._calls.get(index)
        if item is None:
            yield from self._close(but="function_call")
            call = {"call_id": piece.get("id") or f"call_{self._number}_{index}", "name": function.get("name") or ""}
            item = self._calls[index] = yield from self._open("function_call", call)
        if arguments := function.get("arguments"):
            grow(item.said, "text", arguments)
            yield self._event("response.function_call_arguments.delta", **item.place, delta=arguments)

    def _open(self, kind: str, call: JsonDict | None = None) -> Generator[JsonDict, None, _Item]:
        """A new item, and the event that tells of it."""
        index = len(self._items)
        item = _Item(kind, {"item_id": f"{kind}_{self._number}_{index}", "output_index": index}, call=call or {})
        self._items.append(item)
        yield self._event("response.output_item.added", output_index=index, item=item.data)
        return item

    def _close(self, but: str | None = None) -> Iterator[JsonDict]:
        """End the items that are open, except those of one kind."""
        for item in self._items:
            if item.done or item.kind == but:
                continue
            item.done = True
            if item.kind == "function_call":
                whole = {"name": item.call["name"], "arguments": item.text}
                yield self._event("response.function_call_arguments.done", **item.place, **whole)
            elif item.kind == "reasoning":
                yield self._event("response.reasoning_text.done", **item.place, content_index=0, text=item.text)
            else:
                yield self._event("response.output_text.done", **item.place, content_index=0, text=item.text, logprobs=[])
                yield self._event("response.content_part.done", **item.place, content_index=0, part=item.part)
            yield self._event("response.output_item.done", output_index=item.place["output_index"], item=item.data)

    def _event(self, kind: str, **data: Any) -> JsonDict:
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **data}


def _usage(chat: Mapping[str, Any]) -> JsonDict:
    prompt, answer = count_of(chat.get("prompt_tokens")) or 0, count_of(chat.get("completion_tokens")) or 0
    cached = count_of(table_of(chat.get("prompt_tokens_details")).get("cached_tokens")) or 0
    thought = count_of(table_of(chat.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},  # both required, openai 3.54
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": count_of(chat.get("total_tokens")) or prompt + answer,
    }

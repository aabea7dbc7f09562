"""ChatTemplate: a model's own way to write a chat as one text, read from its folder and rendered in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..models.strict_json import JsonDict, read_object
from ..units import MIB, Size
from .sandbox import Refusal, run

__all__ = ["ChatTemplate"]

# Gemma 3's tokenizer_config.json, among the largest, has 1.2 MB; the longest templates have some 30 KB.
MAX_CONFIG = 16 * MIB
MAX_TEMPLATE = 1 * MIB

# Stands at the end of the message to be continued; private-use characters, so that no template looks for it or trims it.
MARK = "\ue000here\ue001"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a model wants to be spoken to: `text` is the jinja2 template, `path` the file that it stands in.

    `tool_text` is the template for requests with tools: the same, unless the model has one of its own for them.
    `tokens` are the special tokens that templates name (bos_token, eos_token, …).
    """

    text: str
    tool_text: str
    path: Path
    tokens: Mapping[str, str | list[str]]

    @classmethod
    def read(cls, folder: Path) -> ChatTemplate | None:
        """The template of a model's folder, or None where it has none.

        Looked for as transformers 5.23 does: chat_template.jinja (with additional_chat_templates/*.jinja beside it),
        chat_template.json, then tokenizer_config.json. Raises ConfigError for a file that is broken.
        """
        config = _object(folder / "tokenizer_config.json")
        for path, named in _sources(folder, config):
            if named and "default" not in named:
                raise ConfigError(f"{path}: no chat template is called 'default', only {', '.join(sorted(named))}")
            if named:
                tokens = {**_tokens(_object(folder / "special_tokens_map.json")), **_tokens(config)}
                return cls(named["default"], named.get("tool_use", named["default"]), path, tokens)
        return None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The prompt for OpenAI-shaped messages, up to where the model begins to write.

        It holds its special tokens as text, the first one (bos_token) included where the template writes it: encode it
        with special tokens, and add none. With `continue_final_message` it ends inside the last message instead.
        `variables` reach the template by name (enable_thinking=False, documents=[…]) and go before its own globals.

        Of a content in parts only those of type "text" can be rendered: whoever has an image puts the text that stands
        for it in its place before. Raises ConfigError where the template refuses the messages, with its words, and where
        it is broken, and MissingExtra without jinja2.
        """
        source = self.tool_text if tools else self.text
        habits = _habits(source, str(self.path))
        told = [habits.message(message) for message in _plain(messages)]
        if continue_final_message:
            _mark(told)
        given = {
            "documents": None,
            **self.tokens,
            **variables,
            "messages": told,
            "tools": _plain(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        try:
            prompt = run(source, str(self.path), given)
        except Refusal as refusal:
            raise ConfigError(f"the chat template in {self.path} refuses these messages: {refusal}") from refusal
        return _cut(prompt, self.path) if continue_final_message else prompt


@dataclass(frozen=True, slots=True)
class _Habits:
    """What a template takes a message's fields for."""

    parts: bool  # content is a list of parts, never a text
    written: bool  # a call's arguments are JSON text, not a mapping
    developer: bool  # it knows the role "developer"

    def message(self, message: JsonDict) -> JsonDict:
        """The message with its fields in the template's shape."""
        told = {**message, "content": self._content(message.get("content"))}
        if told.get("role") == "developer" and not self.developer:
            told["role"] = "system"  # what the role was called before, and still is to most models
        if told.get("tool_calls"):
            told["tool_calls"] = [self._call(call) for call in told["tool_calls"]]
        if told.get("reasoning_content"):
            told.setdefault("thinking", told["reasoning_content"])  # gpt-oss's name for it
        return told

    def _content(self, content: Any) -> str | list[JsonDict]:
        parts = content if content and isinstance(content, list) else [{"type": "text", "text": content or ""}]
        for part in parts:
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                kind = part.get("type") if isinstance(part, dict) else part
                raise ConfigError(
                    f"a chat template cannot write a part of type {kind!r:.40}",
                    hint='put the text that stands for it in its place: {"type": "text", "text": …}',
                )
        return parts if self.parts else "".join(part["text"] for part in parts)

    def _call(self, call: JsonDict) -> JsonDict:
        function = dict(call.get("function") or {})
        arguments = function.get("arguments") or {}
        if self.written and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        elif not self.written and isinstance(arguments, str):
            with suppress(ValueError):  # what is no JSON reaches the template as it is
                arguments = json.loads(arguments)
        return {**call, "function": {**function, "arguments": arguments}}


@lru_cache(maxsize=16)
def _habits(source: str, where: str) -> _Habits:
    """Found out by rendering: whether the words of a probe come out.

    Most templates write a mapping of arguments with tojson; DeepSeek-V3's adds them to a text. Some, SmolVLM's among
    them, write nothing of a content that is a text.
    """
    word = "probe"
    asked, in_parts = ({"role": "user", "content": content} for content in (word, [{"type": "text", "text": word}]))

    def called(arguments: Any) -> list[JsonDict]:
        call = {"id": "123456789", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return [{"role": "user", "content": ""}, {"role": "assistant", "content": "", "tool_calls": [call]}]

    def says(*messages: JsonDict) -> bool:
        try:
            return word in run(source, where, {"messages": list(messages), "tools": None, "add_generation_prompt": False})
        except (Refusal, ConfigError):
            return False  # the probe only asks; what is wrong with the template shows when it is used

    return _Habits(
        parts=not says(asked) and says(in_parts),
        written=not says(*called({"a": word})) and says(*called(f'{{"a": "{word}"}}')),
        developer="developer" in source,
    )


def _sources(folder: Path, config: JsonDict) -> Iterable[tuple[Path, dict[str, str]]]:
    """Where a template may stand, in order of precedence, each with the named templates in it."""
    main = folder / "chat_template.jinja"
    named = {path.stem: _text(path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    yield main, ({"default": _text(main)} if main.is_file() else {}) | named
    legacy = folder / "chat_template.json"
    yield legacy, _named(_object(legacy).get("chat_template"), legacy)
    path = folder / "tokenizer_config.json"
    yield path, _named(config.get("chat_template"), path)


def _named(value: Any, path: Path) -> dict[str, str]:
    """The templates in a field "chat_template": one text, a list of {name, template}, or an object of them."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value):
        value = {one["name"]: one.get("template") for one in value}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ConfigError(f"{path}: chat_template is neither a text nor a list of texts with names")
    return value


def _tokens(config: JsonDict) -> dict[str, str | list[str]]:
    """The special tokens by the names that templates use; a token is a text or an object with its "content"."""
    tokens: dict[str, str | list[str]] = {}
    for key, value in config.items():
        if key.endswith("_token") and isinstance(token := _content(value), str):
            tokens[key] = token
    more = config.get("additional_special_tokens")
    if isinstance(more, list):
        tokens["additional_special_tokens"] = [token for token in map(_content, more) if isinstance(token, str)]
    return tokens


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _object(path: Path) -> JsonDict:
    return read_object(path, MAX_CONFIG) if path.is_file() else {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if len(data) > MAX_TEMPLATE:
        raise ConfigError(f"{path} is larger than {Size(MAX_TEMPLATE)}", hint="this is not the file it is taken for")
    return text


def _plain(value: Any) -> Any:
    """A copy in JSON's types: objects have methods, and a sandboxed template may call those that it reaches."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"messages and tools must be plain data: {error}") from error


def _mark(messages: list[JsonDict]) -> None:
    if not messages:
        raise ConfigError("there is no message to continue")
    last = messages[-1]
    if isinstance(last["content"], str):
        last["content"] += MARK
    else:
        last["content"][-1]["text"] += MARK


def _cut(prompt: str, path: Path) -> str:
    end = prompt.rfind(MARK)
    if end < 0:
        raise ConfigError(f"the chat template in {path} does not write the last message's content, so it cannot be continued")
    return prompt[:end]

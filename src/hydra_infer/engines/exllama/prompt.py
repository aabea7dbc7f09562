"""Prompt: from a request's messages or text to token ids, and to the reader of what comes back."""

from __future__ import annotations

import base64
import binascii
import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..formats import Format
from ..parts import Reader
from ..template import ChatTemplate
from .seam import Constraint, Image

if TYPE_CHECKING:
    from pathlib import Path

    from .seam import Runner

__all__ = ["Prompt", "Prompts"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads (`ids`, `images`), and how its answer is read: a completion has no `reader`.

    `ends` are token ids that end a turn of this chat besides the model's own. `constraint` is what tool_choice asks for;
    `special`: the format of tool calls is written in special tokens.
    """

    ids: Sequence[int]
    images: Sequence[Any] = ()
    reader: Reader | None = None
    ends: tuple[int, ...] = ()
    constraint: Constraint | None = None
    special: bool = False


class Prompts:
    """Makes prompts, by the model's chat template or of a text as it is."""

    def __init__(self, template: ChatTemplate | None) -> None:
        self._template = template
        self._format = Format.of(template.text + template.tool_text if template else None)

    @classmethod
    def read(cls, folder: Path) -> Prompts:
        """With the template that lies in a model's folder; without one only completions are possible."""
        return cls(ChatTemplate.read(folder))

    def of(self, request: Mapping[str, Any], runner: Runner) -> Prompt:
        """Raises ConfigError for a request that the template, or this model, cannot take."""
        if "prompt" in request:
            return Prompt(_completion(request["prompt"], runner))
        return self._chat(request, runner)

    def _chat(self, request: Mapping[str, Any], runner: Runner) -> Prompt:
        if self._template is None:
            raise ConfigError(
                f"{runner.info.model} has no chat template", hint="engine.generate(text) goes on from a text without one"
            )
        messages, images = _pictures(request["messages"])
        tools, choice = request.get("tools") or None, request.get("tool_choice") or "auto"
        text = self._template.render(messages, tools=tools, **_variables(request))
        ids, embeddings = runner.encode(text, whole=False, images=images)
        token = functools.partial(_token, runner)
        forced = None
        if tools is not None and choice not in ("auto", "none"):
            parallel = request.get("parallel_tool_calls") is not False
            forced = self._format.constraint(tools, choice, prompt=text, parallel=parallel, token=token)
        return Prompt(
            ids,
            embeddings,
            reader=Reader(self._format, prompt=text, tools=tools, tool_choice=choice),
            ends=tuple(found for found in map(token, self._format.ends) if found is not None),
            constraint=None if forced is None else Constraint("lark", forced),
            special=self._format.special,
        )


def _token(runner: Runner, piece: str) -> int | None:
    """The id of a piece that is one token by itself."""
    found = runner.encode(piece, whole=False)[0]
    return found[0] if len(found) == 1 else None


def _completion(prompt: Any, runner: Runner) -> Sequence[int]:
    """A text, or token ids as they are."""
    if isinstance(prompt, str):
        ids: Sequence[int] = runner.encode(prompt, whole=True)[0]
    elif isinstance(prompt, list) and all(type(one) is int and 0 <= one < len(runner.pieces()) for one in prompt):
        ids = prompt
    else:
        raise ConfigError(f"prompt={prompt!r:.80} is neither a text nor a list of this model's token ids")
    if not ids:
        raise ConfigError("the prompt is empty", hint="give at least one token to go on from")
    return ids


def _variables(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the template is told beside messages and tools."""
    variables = dict(request.get("chat_template_kwargs") or {})
    names = ("add_generation_prompt", "continue_final_message", "reasoning_effort")
    return variables | {name: request[name] for name in names if request.get(name) is not None}


def _pictures(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Image]]:
    """The messages with each picture replaced by a text that stands for it, and the pictures."""
    images: list[Image] = []

    def part(one: Any) -> Any:
        if not isinstance(one, Mapping) or one.get("type") != "image_url":
            return one
        # Nobody can write this mark into a prompt by chance or on purpose.
        images.append(Image(_data(one.get("image_url")), f"<$IMAGE-{secrets.token_hex(8)}$>"))
        return {"type": "text", "text": images[-1].mark}

    def content(value: Any) -> Any:
        return [part(one) for one in value] if isinstance(value, list) else value

    return [{**one, "content": content(one.get("content"))} for one in messages], images


def _data(value: Any) -> bytes:
    """The bytes of a picture in a data: URL. An engine fetches nothing from the network, and opens no file on request."""
    url = value.get("url") if isinstance(value, Mapping) else value
    head, comma, body = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise ConfigError(f"image_url={url!r:.60} is no data: URL", hint="data:image/png;base64,… with the picture itself in it")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"a picture's data: URL does not decode: {error}") from None

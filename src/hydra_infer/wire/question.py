"""What is asked: an OpenAI-shaped request body with the few facts that routing needs read out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ..errors import ConfigError
from ..plain import brief
from .splice import NotAnObject, Text

__all__ = ["PATHS", "Fields", "Question", "read_question", "to_json"]

# The endpoints that a Router passes on, without the /v1 in front.
PATHS = ("/chat/completions", "/completions", "/embeddings")


class Body(Protocol):
    """A JSON object to send: `fields` its values, `replace()` its bytes with some of them set."""

    @property
    def fields(self) -> dict[str, Any]: ...

    def replace(self, **values: Any) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Fields:
    """A body that we build ourselves: there is no foreign text to keep."""

    fields: dict[str, Any]

    def replace(self, **values: Any) -> bytes:
        return to_json({**self.fields, **values})


def to_json(value: Any) -> bytes:
    """The value as UTF-8; half a surrogate pair, which JSON can name and UTF-8 cannot write, stays the escape that it came as."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


class Question(NamedTuple):
    """One call's request. `stream` is how the server is asked; `headers` are the caller's that may travel."""

    path: str
    body: Body
    model: str
    stream: bool
    headers: Mapping[str, str] = MappingProxyType({})

    @property
    def has_tools(self) -> bool:
        """Tool calls are buffered by several servers and sent whole: silence then is no fault."""
        return bool(self.body.fields.get("tools"))

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk itself."""
        options = self.body.fields.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    def body_for(self, local_name: str) -> bytes:
        """The body as one server gets it: its own name for the model, and token counts asked for in streams."""
        values: dict[str, Any] = {"model": local_name}
        if self.stream and not self.wants_usage:
            options = self.body.fields.get("stream_options")
            values["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return self.body.replace(**values)


def read_question(path: str, data: bytes, headers: dict[str, str]) -> Question:
    """The question in a foreign client's request. Raises ConfigError naming what is missing; never judges other fields."""
    try:
        body = Text(data)
    except NotAnObject as error:
        raise ConfigError(f"the request body is not a JSON object: {error}") from error
    model, stream = body.fields.get("model"), body.fields.get("stream", False)
    if not isinstance(model, str) or not model:
        raise ConfigError(f"the request's field 'model' is {brief(model)}", hint="name a model that the router serves")
    if not isinstance(stream, bool) and stream is not None:
        raise ConfigError(f"the request's field 'stream' is {brief(stream)}", hint="true or false")
    return Question(path, body, model, bool(stream), headers)

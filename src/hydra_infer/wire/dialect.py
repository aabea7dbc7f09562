"""Which words each kind of server speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .exchange import Exchange, WireRequest
from .openai import OpenAIExchange, Target, models_in
from .question import Question
from .tabby import TabbyExchange

__all__ = ["DIALECTS", "Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask one kind of server: `open` begins an attempt, `list_path` and `read_list` tell what it serves.

    A new OpenAI-compatible server is a row of data here; code exists only where a server differs.
    """

    open: Callable[[Question, Target], Exchange]
    list_path: str = "/v1/models"
    read_list: Callable[[bytes], list[str]] = models_in

    def list_request(self, target: Target) -> WireRequest:
        """The request for the models that a server has. Its answer goes to `read_list`, which raises ValueError for nonsense."""
        headers = {"accept": "application/json", "accept-encoding": "identity", **target.headers}
        return WireRequest("GET", urlsplit(target.base).path + self.list_path, headers)


_OPENAI = Dialect(OpenAIExchange)

DIALECTS = {
    "openai": _OPENAI,
    "litellm": _OPENAI,
    "engine": _OPENAI,
    "ollama": _OPENAI,
    "tabby": Dialect(TabbyExchange),
}

"""Which words each kind of server speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .exchange import Exchange, WireRequest
from .litellm import LiteLLMExchange
from .ollama import OllamaExchange, loaded_in, tags_in, warm_up
from .openai import OpenAIExchange, Target, models_in, path_of
from .question import Question
from .tabby import TabbyExchange, loaded_model

__all__ = ["DIALECTS", "Dialect", "Look", "get"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to speak with one kind of server. A new OpenAI-compatible one is a row of data; code exists where one differs.

    `open` begins an attempt. `list_path` answers what the server has, `loaded_path` (where there is one) what of it is in
    memory now; `read_list` and `read_loaded` read those answers and raise ValueError for nonsense.
    """

    open: Callable[[Question, Target], Exchange]
    list_path: str = "/v1/models"
    read_list: Callable[[bytes], list[str]] = models_in
    loaded_path: str | None = None
    read_loaded: Callable[[bytes], dict[str, int | None]] | None = None
    # How to have a model loaded without asking it anything, where leaving a cold call would abort its load.
    warm: Callable[[Target], WireRequest] | None = None
    # The context to ask for where nobody says one and nothing is loaded yet; None where the server decides.
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a server told of itself: `models` it has; `loaded` ones with their context (tokens), None where it did not say."""

    models: list[str]
    loaded: dict[str, int | None] | None = None


def get(path: str, target: Target) -> WireRequest:
    """A request for one of a dialect's paths."""
    headers = {"accept": "application/json", "accept-encoding": "identity", **target.headers}
    return WireRequest("GET", path_of(target.base) + path, headers)


_OPENAI = Dialect(OpenAIExchange)

DIALECTS = {
    "openai": _OPENAI,
    "litellm": Dialect(LiteLLMExchange),
    "engine": _OPENAI,
    "tabby": Dialect(TabbyExchange, loaded_path="/v1/model", read_loaded=loaded_model),
    # 8192: Ollama's own default is 4096 on cards below 23 GiB, which cuts most agents' prompts.
    "ollama": Dialect(
        OllamaExchange, "/api/tags", tags_in, loaded_path="/api/ps", read_loaded=loaded_in, warm=warm_up, context=8192
    ),
}

"""One server of a fleet as it shows itself: what it is to serve by the file, and its answers to questions that change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...routing.backend import Backend
from ..asking import Answer, ask

__all__ = ["ServerFacts", "Wanted", "answers_of"]

# What each kind is asked, in order: a name, the path, and which key goes along. Nothing here loads or generates.
_QUESTIONS = {
    "tabby": (
        ("info", "/.well-known/serviceinfo", ""),
        ("health", "/health", ""),
        ("permission", "/v1/auth/permission", "api"),
        ("admin", "/v1/auth/permission", "admin"),
        ("model", "/v1/model", "api"),
        ("folders", "/v1/model/list", "admin"),
    ),
    "ollama": (("info", "/api/version", ""), ("models", "/api/tags", ""), ("loaded", "/api/ps", "")),
    "litellm": (("info", "/health/liveliness", ""), ("readiness", "/health/readiness", ""), ("models", "/v1/models", "api")),
    "openai": (("info", "/v1/models", "api"), ("models", "/v1/models", "api")),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that the file says the server serves: its name there, and the tokens of context it is to have."""

    model: str
    local_name: str
    context: int | None = None
    embeds: bool = False


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`cards`: whether its machine has any, None where the file does not say."""

    name: str
    kind: str
    url: str
    answers: Mapping[str, Answer]
    wanted: tuple[Wanted, ...] | None = None
    cards: bool | None = None
    has_key: bool = False
    has_admin_key: bool = False


def answers_of(backend: Backend, seconds: float) -> dict[str, Answer]:
    """Its answers by name. Where the first question gets none, the others are not asked."""
    keys = {"": {}, "api": backend.headers(), "admin": backend.admin_headers()}
    found: dict[str, Answer] = {}
    for name, path, key in _QUESTIONS[backend.kind]:
        if key == "admin" and not backend.admin_key:
            continue
        found[name] = ask(backend, path, headers=keys[key], seconds=seconds)
        if found["info"].status == 0:
            break
    return found

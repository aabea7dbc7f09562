"""Request: what a caller may ask of an engine, checked, as the OpenAI-shaped dict that a driver gets."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError

__all__ = ["OPENAI", "Messages", "chat_request", "check_kind", "completion_request"]

Messages = str | Sequence[Mapping[str, Any]]

# The fields of OpenAI's chat and completion requests that say how to answer (API reference, November 2026), without
# those about OpenAI's own service (store, service_tier, metadata, …).
OPENAI = frozenset(
    {
        "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n",
        "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed", "stop",
        "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip


def chat_request(messages: Any, options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """A chat: `messages` is a text (one user message) or a list of OpenAI-shaped messages.

    Raises ConfigError for anything else, and for an option that is not in `known`.
    """
    _check_options(options, known)
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    _check_messages(messages)
    return {"messages": [dict(one) for one in messages], **options}


def completion_request(prompt: Any, options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """A completion of `prompt`, which is a text. Raises ConfigError for anything else, and for an unknown option."""
    _check_options(options, known)
    if not isinstance(prompt, str):
        raise ConfigError(f"prompt={prompt!r:.80} is not a text", hint="engine.batch([…]) takes several, engine.chat(…) messages")
    return {"prompt": prompt, **options}


def check_kind(request: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the request is either a chat (with "messages") or a completion (with a "prompt")."""
    if ("messages" in request) == ("prompt" in request):
        raise ConfigError(
            f"a request with the fields {sorted(request)} is neither a chat nor a completion",
            hint='give either "messages" or "prompt"',
        )
    if "messages" in request:
        _check_messages(request["messages"])


def _check_messages(messages: Any) -> None:
    proper = isinstance(messages, list | tuple) and all(isinstance(one, Mapping) and "role" in one for one in messages)
    if not proper or not messages:
        raise ConfigError(
            f"{messages!r:.80} is neither a text nor a list of messages",
            hint='for example [{"role": "user", "content": "Hello"}]',
        )


def _check_options(options: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in options:
        if name in ("stream", "stream_options"):
            raise ConfigError(f"{name}= is no option here", hint="engine.stream(…) gives the answer in pieces")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"there is no option {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"this engine knows {', '.join(sorted(known))}",
            )

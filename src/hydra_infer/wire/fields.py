"""The fields of OpenAI's requests, and what we say of others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError

__all__ = ["CHAT", "COMPLETION", "EMBEDDING", "as_messages", "check_fields", "estimated_tokens"]

# OpenAI's API reference, November 2026, plus the samplers that vLLM, TabbyAPI and llama.cpp agree on.
_SAMPLING = frozenset(
    "frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream_options temperature top_p user "
    "top_k min_p typical_p repetition_penalty ignore_eos min_tokens".split()
)
CHAT = _SAMPLING.union(
    "audio function_call functions max_completion_tokens metadata modalities parallel_tool_calls prediction prompt_cache_key "
    "reasoning_effort response_format safety_identifier service_tier store tool_choice tools top_logprobs verbosity "
    "web_search_options chat_template_kwargs".split()
)
COMPLETION = _SAMPLING.union(("best_of", "echo", "suffix"))
EMBEDDING = frozenset({"dimensions", "encoding_format", "user"})


# Characters of English text in a token, by OpenAI's rule of thumb; code and other languages have fewer, so that they are more
# tokens than estimated.
_CHARACTERS_PER_TOKEN = 4
# What a prompt is made of; a picture's bytes are no text.
_PROMPT = ("messages", "prompt", "input", "tools")
_PICTURES = ("image_url", "input_audio", "file")


def estimated_tokens(fields: Mapping[str, Any]) -> int:
    """About how many tokens a request's prompt has: its characters by four. No tokenizer is asked."""
    characters, left = 0, [fields.get(name) for name in _PROMPT]
    while left:  # not by recursion: a request nests as deeply as its sender likes
        value = left.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, Mapping):
            left += [item for key, item in value.items() if key not in _PICTURES]
        elif isinstance(value, list | tuple):
            left += value
    return characters // _CHARACTERS_PER_TOKEN


def check_fields(given: Iterable[str], known: frozenset[str]) -> tuple[str, ...]:
    """A warning for each field that is not known (TabbyAPI alone has 71 samplers, so it is passed on).

    A near miss of a known field raises ConfigError: `temprature=0` silently ignored would be worse than an error.
    """
    warnings = []
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        if close:
            raise ConfigError(
                f"there is no field {name!r}",
                hint=f"did you mean {close[0]!r}? To send it all the same: extra_body={{{name!r}: …}}",
            )
        warnings.append(f"the field {name!r} is not one of OpenAI's; it was passed on as it is")
    return tuple(warnings)


def as_messages(messages: Any) -> list[dict[str, Any]]:
    """A chat's messages from what people pass: a string is one user message. Raises ConfigError for anything else."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigError(
            f"messages is {type(messages).__name__}, not a string or a list of messages",
            hint="[{'role': 'user', 'content': 'Hello'}]",
        )
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ConfigError(f"messages[{index}] is {message!r:.80}", hint="each message is a dict with 'role' and 'content'")
    return list(messages)

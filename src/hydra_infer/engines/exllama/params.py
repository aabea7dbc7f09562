"""Params: the fields of a request that say how to answer, checked, in one vocabulary for both ExLlama engines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ...errors import ConfigError
from ..request import OPENAI
from .seam import Constraint

__all__ = ["SAMPLING", "Params", "known_fields"]

# Sampling fields by their usual names (TabbyAPI's, where OpenAI has none), with the least and the greatest value that
# means something; None: no bound.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "temperature": (0, None),
    "top_p": (0, 1),
    "top_k": (0, None),
    "min_p": (0, 1),
    "typical": (0, 1),
    "tfs": (0, 1),
    "repetition_penalty": (0.01, None),  # it divides
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "penalty_range": (-1, None),
    "repetition_decay": (0, None),
    "dry_multiplier": (0, None),
    "dry_base": (0, None),
    "dry_allowed_length": (0, None),
    "dry_range": (0, None),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 1),
    "mirostat_tau": (0, None),
    "mirostat_eta": (0, None),
    "adaptive_target": (0, 1),
    "adaptive_decay": (0, 1),
    "smoothing_factor": (0, None),
    "skew": (None, None),
}
FLAGS = frozenset({"temperature_last", "mirostat"})
WHOLE = frozenset({"top_k", "penalty_range", "repetition_decay", "dry_allowed_length", "dry_range"})
SAMPLING = frozenset(RANGES) | FLAGS | {"logit_bias"}

# What any ExLlama engine takes beside sampling. `n` and `user` are OpenAI's: one answer, and nothing to do.
COMMON = (OPENAI - SAMPLING) | {
    "add_generation_prompt", "banned_strings", "chat_template_kwargs", "continue_final_message", "grammar", "json_schema",
    "min_tokens", "regex", "stop_token_ids",
}  # fmt: skip


def known_fields(sampling: frozenset[str]) -> frozenset[str]:
    """Every request field of an engine that knows these sampling fields."""
    return COMMON | sampling


@dataclass(frozen=True, slots=True)
class Params:
    """`max_tokens` None means as many as there is room for; the rest is as in seam.Ask."""

    max_tokens: int | None
    min_tokens: int
    sampling: Mapping[str, Any]
    seed: int | None
    stop: tuple[str | int, ...]
    banned: tuple[str, ...]
    top_logprobs: int | None
    constraint: Constraint | None

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Params:
        """Raises ConfigError naming the field and the value. A field that is None counts as not given."""
        given = {name: value for name, value in request.items() if value is not None}
        if given.get("n", 1) != 1:
            raise ConfigError(f"n={given['n']!r}: an engine gives one answer", hint="engine.batch([prompt] * n) gives several")
        most = given.get("max_completion_tokens", given.get("max_tokens"))
        return cls(
            max_tokens=None if most is None else _whole("max_tokens", most, 1),
            min_tokens=_whole("min_tokens", given.get("min_tokens", 0), 0),
            sampling={name: _sampling(name, given[name]) for name in SAMPLING & given.keys()},
            seed=None if "seed" not in given else _whole("seed", given["seed"], None),
            stop=(*_texts("stop", given.get("stop", ())), *_ids("stop_token_ids", given.get("stop_token_ids", ()))),
            banned=_texts("banned_strings", given.get("banned_strings", ())),
            top_logprobs=_top_logprobs(given),
            constraint=_constraint(given),
        )


def _sampling(name: str, value: Any) -> Any:
    if name == "logit_bias":
        return _bias(value)
    if name in FLAGS:
        if not isinstance(value, bool):
            raise ConfigError(f"{name}={value!r} is neither True nor False")
        return value
    low, high = RANGES[name]
    if not _is_number(value) or (low is not None and value < low) or (high is not None and value > high):
        bounds = f"from {low} to {high}" if high is not None else "a number" if low is None else f"{low} or more"
        raise ConfigError(f"{name}={value!r} cannot be", hint=bounds)
    return _whole(name, value, None) if name in WHOLE else float(value)


def _bias(value: Any) -> dict[int, float]:
    try:
        bias = {int(token): float(weight) for token, weight in value.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"logit_bias={value!r:.80} is no map of token ids to numbers") from None
    if any(token < 0 for token in bias):
        raise ConfigError(f"logit_bias={value!r:.80} has a negative token id")
    return bias


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _whole(name: str, value: Any, least: int | None) -> int:
    number = int(value) if _is_number(value) and abs(value) != math.inf else None
    if number is None or number != value or (least is not None and number < least):
        raise ConfigError(f"{name}={value!r} is not a whole number" + ("" if least is None else f" of {least} or more"))
    return number


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (None,)
    if not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{name}={value!r:.80} is neither a text nor a list of texts, none of them empty")
    return texts


def _ids(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name}={value!r:.80} is no list of token ids")
    return tuple(_whole(name, one, 0) for one in value)


def _top_logprobs(given: Mapping[str, Any]) -> int | None:
    """A chat says logprobs=True and perhaps top_logprobs=5, a completion logprobs=5."""
    asked = given.get("logprobs", False)
    if "prompt" in given and not isinstance(asked, bool):
        return _bounded(asked)
    if not isinstance(asked, bool):
        raise ConfigError(f"logprobs={asked!r} is neither True nor False", hint="how many alternatives is top_logprobs=")
    if "top_logprobs" in given and not asked:
        raise ConfigError("top_logprobs without logprobs", hint="say logprobs=True as well")
    return _bounded(given.get("top_logprobs", 0)) if asked else None


def _bounded(asked: Any) -> int:
    count = _whole("top_logprobs", asked, 0)
    if count > 20:  # OpenAI's own bound
        raise ConfigError(f"top_logprobs={count}: at most 20")
    return count


def _constraint(given: Mapping[str, Any]) -> Constraint | None:
    found = [one for one in (_format(given.get("response_format")), _schema(given), _regex(given), _grammar(given)) if one]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(one.kind for one in found)} at once", hint="an answer can obey one of them")
    return found[0] if found else None


def _format(value: Any) -> Constraint | None:
    """OpenAI's response_format."""
    kind = value.get("type") if isinstance(value, Mapping) else value
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return Constraint("json_schema", '{"type": "object"}')
    schema = value.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, Mapping) or not isinstance(schema.get("schema"), Mapping):
        raise ConfigError(
            f"response_format={value!r:.80} is none of text, json_object, json_schema",
            hint='{"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}',
        )
    return Constraint("json_schema", json.dumps(schema["schema"]))


def _schema(given: Mapping[str, Any]) -> Constraint | None:
    schema = given.get("json_schema")
    if schema is None:
        return None
    if not isinstance(schema, Mapping | str):
        raise ConfigError(f"json_schema={schema!r:.80} is no JSON schema")
    return Constraint("json_schema", schema if isinstance(schema, str) else json.dumps(schema))


def _regex(given: Mapping[str, Any]) -> Constraint | None:
    return Constraint("regex", _texts("regex", given["regex"])[0]) if "regex" in given else None


def _grammar(given: Mapping[str, Any]) -> Constraint | None:
    """Lark's rules are "name: …" from a rule called start, llama.cpp's GBNF is "name ::= …" from root."""
    if "grammar" not in given:
        return None
    text = _texts("grammar", given["grammar"])[0]
    return Constraint("gbnf" if "::=" in text else "lark", text)

"""How alike two models speak: tokens in common, and how far their probabilities for the next token lie apart. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

__all__ = ["agreement", "divergence", "first_token", "spoken_tokens"]

# Servers print probabilities rounded, so that the listed ones may add up to 1 and leave nothing for the others.
_LEAST = 1e-6


def agreement(a: Sequence[str], b: Sequence[str]) -> float:
    """The share of the longer answer that both begin with: after the first different token they answer different texts."""
    longer = max(len(a), len(b))
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    return common / longer if longer else 1.0


def divergence(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """The Kullback-Leibler divergence of b from a in nats, from the logarithms of their likeliest tokens.

    Over the tokens that either lists; all others are one bucket. Where a side does not list a token, it gets an even share of
    that side's rest, but no more than the least it does list: an estimate, for a server says no more.
    """
    union = sorted(a.keys() | b.keys())
    p, q = _spread(a, union), _spread(b, union)
    return max(0.0, sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))


def spoken_tokens(logprobs: Any) -> list[str] | None:
    """The tokens of an answer from its logprobs, in a chat's or a completion's shape; None where there are none."""
    if not isinstance(logprobs, Mapping):
        return None
    content = logprobs.get("content")
    if isinstance(content, list) and content:
        return [str(entry.get("token")) for entry in content]
    tokens = logprobs.get("tokens")
    return [str(token) for token in tokens] if isinstance(tokens, list) and tokens else None


def first_token(logprobs: Any) -> dict[str, float] | None:
    """Token to natural logarithm of its probability, for an answer's first token; None where the server did not say."""
    if not isinstance(logprobs, Mapping):
        return None
    content, tops = logprobs.get("content"), logprobs.get("top_logprobs")
    if isinstance(content, list) and content:
        found = {str(entry["token"]): float(entry["logprob"]) for entry in content[0].get("top_logprobs") or ()}
    elif isinstance(tops, list) and tops:
        found = {str(token): float(value) for token, value in (tops[0] or {}).items()}
    else:
        found = {}
    return found or None


def _spread(listed: Mapping[str, float], union: Sequence[str]) -> list[float]:
    """Probabilities over `union` and, last, of the rest; their sum is 1."""
    known = {token: math.exp(value) for token, value in listed.items()}
    missing = [token for token in union if token not in known]
    rest = max(_LEAST, 1 - sum(known.values()))
    share = min(rest / (len(missing) + 1), *known.values())
    masses = [*(max(_LEAST, known.get(token, share)) for token in union), max(_LEAST, rest - share * len(missing))]
    return [mass / sum(masses) for mass in masses]

"""From when pieces arrived to figures: seconds to the first token, tokens per second, gaps. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...reply import Reply

__all__ = ["Heard", "figures", "heard"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One streamed answer: the instants (seconds) of its asking and of each piece, and what the server counted.

    `tokens` are those of the answer; `counted` is False where the server did not say and pieces were counted. `read` are the
    prompt's tokens without those that the server had in its cache.
    """

    began: float
    arrivals: tuple[float, ...]
    tokens: int
    counted: bool
    read: int | None
    draft: dict[str, Any] | None = None


def heard(began: float, arrivals: Sequence[float], reply: Reply) -> Heard:
    """What a finished stream came to."""
    usage, told = reply.usage, reply.raw.get("usage") or {}
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Heard(
        began=began,
        arrivals=tuple(arrivals),
        tokens=len(arrivals) if usage.completion_tokens is None else usage.completion_tokens,
        counted=usage.completion_tokens is not None,
        read=None if usage.prompt_tokens is None else usage.prompt_tokens - cached,
        draft=reply.draft,
    )


def figures(streams: Sequence[Heard], joules: float | None) -> dict[str, Any]:
    """The figures of streams that ran at once; each is the median over them, None where it cannot be known.

    ttft: seconds from asking to the first piece. prefill_tps: prompt tokens by ttft, so a little less than the server's own.
    decode_tps: tokens after the first piece, which has its even share of them, by the time since it. itl_p95: seconds, the gap
    between pieces that 95 % stay below. throughput_tps: all tokens by the time from the first asking to the last piece.
    joules_per_token: all cards of this machine. acceptance: the share of drafted tokens that was accepted, over all streams.
    """
    spoken = [one for one in streams if one.arrivals]
    first = [one.arrivals[0] - one.began for one in spoken]
    tokens = sum(one.tokens for one in streams)
    return {
        "ttft": _median(first),
        "prefill_tps": _median([one.read / wait for one, wait in zip(spoken, first, strict=True) if one.read and wait > 0]),
        "decode_tps": _median([rate for one in spoken if (rate := _decode(one)) is not None]),
        "itl_p95": _median([gap for one in spoken if (gap := _gap(one)) is not None]),
        "throughput_tps": _throughput(spoken, tokens),
        "joules_per_token": joules / tokens if joules is not None and tokens else None,
        "acceptance": _acceptance([one.draft for one in streams if one.draft]),
        "tokens": tokens,
        "counted": all(one.counted for one in streams),
    }


def _decode(one: Heard) -> float | None:
    # With a draft a piece may hold several tokens, the first one too; without, this is (tokens - 1) / spent.
    spent, pieces = one.arrivals[-1] - one.arrivals[0], len(one.arrivals)
    return one.tokens * (1 - 1 / pieces) / spent if spent > 0 else None


def _gap(one: Heard) -> float | None:
    gaps = sorted(later - earlier for earlier, later in pairwise(one.arrivals))
    return gaps[int(0.95 * (len(gaps) - 1) + 0.5)] if gaps else None


def _throughput(spoken: Sequence[Heard], tokens: int) -> float | None:
    if not spoken:
        return None
    spent = max(one.arrivals[-1] for one in spoken) - min(one.began for one in spoken)
    return tokens / spent if spent > 0 else None


def _acceptance(drafts: Sequence[dict[str, Any]]) -> float | None:
    drafted = sum(draft["tokens"] for draft in drafts)
    return sum(draft["accepted"] for draft in drafts) / drafted if drafted else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None

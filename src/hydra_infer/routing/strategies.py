"""In which order the candidates for a model are asked."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from ..errors import ConfigError
from .backend import Backend
from .place import Candidate
from .roster import Ranking, late_last

__all__ = ["Ask", "Difficulty", "Order", "Strategy", "UserStrategy", "find_strategy", "is_hard"]


class Ask(NamedTuple):
    """What an order may depend on: the request's fields, the model, and who has not been tried in this call."""

    fields: Mapping[str, Any]
    model: str
    is_left: Callable[[Candidate], bool]


# The candidates in the order to ask them for one call; lazily, since nearly always the first one answers.
Order = Callable[[Ask], Iterable[Candidate]]
# Made once for all candidates of a model, so that what a choice needs is worked out before, and not at each call.
Strategy = Callable[[Sequence[Candidate]], Order]
# What a user may give instead of a name: (model, backends in list order) -> backends in the order to ask them.
UserStrategy = Callable[[str, Sequence[Backend]], Sequence[Backend]]
Difficulty = Callable[[Mapping[str, Any]], bool]

# On how many points of the ring a backend of the largest weight stands: shares are then true within some 6 %.
POINTS = 256
# "fastest" compares the time for an answer of this many tokens, and asks a random one this often to keep its figures true.
TYPICAL_ANSWER = 256
EXPLORATION = 0.05


def find_strategy(strategy: str | UserStrategy, random: Random | None = None) -> Strategy:
    """The strategy of that name, or the user's own. Raises ConfigError for a name that is not known."""
    if callable(strategy):
        return _users(strategy)
    dice = random or Random()
    known: dict[str, Strategy] = {
        "ordered": ordered,
        "shuffle": warm_first(shuffle(dice)),
        "least-busy": warm_first(least_busy),
        "fastest": warm_first(fastest(dice)),
        "sticky": warm_first(sticky),
        "cheapest": cheapest,
        "difficulty": by_difficulty(is_hard),
    }
    try:
        return known[strategy]
    except (KeyError, TypeError):
        hint = f"one of {', '.join(known)}, or a function of (model, backends)"
        raise ConfigError(f"strategy={strategy!r} is not known", hint=hint) from None


def ordered(candidates: Sequence[Candidate]) -> Order:
    """List order: the first that can answer does, and loads the model if it must. It is the order that somebody wrote down."""
    return lambda _: candidates


def warm_first(strategy: Strategy) -> Strategy:
    """The strategy's order among those that have the model in memory, then among those that are known to be cold."""

    def prepared(candidates: Sequence[Candidate]) -> Order:
        order = strategy(candidates)
        return lambda ask: late_last(order(ask), lambda candidate: candidate.is_cold)

    return prepared


def shuffle(random: Random) -> Strategy:
    """A random order in which each position is drawn by weight; weight 0 comes last, for emergencies."""

    # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to w.
    def drawn(candidate: Candidate) -> float:
        weight = candidate.place.backend.weight
        return random.random() ** (1 / weight) if weight else -random.random()

    def prepared(candidates: Sequence[Candidate]) -> Order:
        up_to = list(accumulate(candidate.place.backend.weight for candidate in candidates))
        last = len(candidates) - 1

        def shuffled(_: Ask) -> Iterator[Candidate]:
            first = min(bisect(up_to, random.random() * up_to[-1]), last)  # the draw of the first alone needs no sorting
            yield candidates[first]
            yield from sorted((*candidates[:first], *candidates[first + 1 :]), key=drawn, reverse=True)

        return shuffled

    return prepared


def least_busy(candidates: Sequence[Candidate]) -> Order:
    """Fewest requests in flight for its weight first; equals keep list order."""

    def load(candidate: Candidate) -> float:
        place = candidate.place
        return place.in_flight / place.backend.weight if place.backend.weight else math.inf

    ranking = Ranking(candidates, load)
    return lambda _: ranking


def fastest(random: Random) -> Strategy:
    """Shortest expected time for a typical answer, by what was measured here; those not measured yet come first."""

    def prepared(candidates: Sequence[Candidate]) -> Order:
        ranking = Ranking(candidates, _expected_seconds)

        def by_speed(_: Ask) -> Iterable[Candidate]:
            if len(candidates) == 1 or random.random() >= EXPLORATION:
                return ranking
            order = list(ranking)
            return [order.pop(random.randrange(1, len(order))), *order]

        return by_speed

    return prepared


def sticky(candidates: Sequence[Candidate]) -> Order:
    """The same conversation to the same server, whose cache holds its beginning.

    A ring on which each backend stands at many points, by its weight (Karger and others 1997): no table of conversations to
    keep, and when a server rests only its own conversations move, each to whoever comes next.
    """
    heaviest = max(candidate.place.backend.weight for candidate in candidates) or 1.0
    ring = sorted(
        (_point(f"{candidate.place.backend.name}\0{number}"), position)
        for position, candidate in enumerate(candidates)
        for number in range(math.ceil(POINTS * candidate.place.backend.weight / heaviest))
    )

    def around(ask: Ask) -> Iterator[Candidate]:
        start = bisect(ring, (_point(_opening(ask.fields)),))
        seen = set()
        for step in range(len(ring)):
            _, position = ring[(start + step) % len(ring)]
            if position not in seen:
                seen.add(position)
                yield candidates[position]
        yield from (candidate for position, candidate in enumerate(candidates) if position not in seen)  # weight 0

    return around


def cheapest(candidates: Sequence[Candidate]) -> Order:
    """Lowest price of a token in and a token out first; without a price it is your own, and free.

    Equals by whether the model is loaded there, then by how busy they are.
    """

    def price(candidate: Candidate) -> tuple[float, bool, int]:
        row = candidate.place.backend
        costs = (row.input_cost_per_token or 0.0) + (row.output_cost_per_token or 0.0)
        return costs, candidate.is_cold, candidate.place.in_flight

    ranking = Ranking(candidates, price)
    return lambda _: ranking


def by_difficulty(rule: Difficulty) -> Strategy:
    """Hard requests to backends tagged "hard" first, all others to those tagged "easy" first; within, loaded ones first."""

    def prepared(candidates: Sequence[Candidate]) -> Order:
        def those(tag: str) -> Ranking:
            def rank(candidate: Candidate) -> tuple[bool, bool]:
                return tag not in candidate.place.backend.tags | candidate.local.tags, candidate.is_cold

            return Ranking(candidates, rank)

        hard, easy = those("hard"), those("easy")
        return lambda ask: hard if rule(ask.fields) else easy

    return prepared


def is_hard(fields: Mapping[str, Any]) -> bool:
    """The rule behind "difficulty", meant to be read and replaced: long, long-running, with code, with tools or a schema."""
    messages = fields.get("messages") or []
    text = "".join(str(message.get("content") or "") for message in messages if isinstance(message, Mapping))
    return (
        len(text) > 2000 or len(messages) > 8 or "```" in text or bool(fields.get("tools")) or bool(fields.get("response_format"))
    )


def _users(function: UserStrategy) -> Strategy:
    def prepared(candidates: Sequence[Candidate]) -> Order:
        def asked(ask: Ask) -> list[Candidate]:
            left = {candidate.place.backend.name: candidate for candidate in candidates if ask.is_left(candidate)}
            return [left[row.name] for row in function(ask.model, [candidate.place.backend for candidate in left.values()])]

        return asked

    return prepared


def _expected_seconds(candidate: Candidate) -> float:
    place = candidate.place
    if place.ttft is None or not place.decode_tps:
        return -1.0
    return place.ttft + TYPICAL_ANSWER / place.decode_tps


def _point(text: str) -> int:
    """Where a text stands on the ring."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _opening(fields: Mapping[str, Any]) -> str:
    """What stays the same while a conversation grows: everything up to and with the first user message."""
    opening = []
    for message in fields.get("messages") or [fields.get("prompt") or fields.get("input")]:
        opening.append(message)
        if isinstance(message, Mapping) and message.get("role") == "user":
            break
    return json.dumps(opening, sort_keys=True, default=str)

"""In which order the candidates for a model are asked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ..errors import ConfigError
from .backend import Backend
from .pool import Place

__all__ = ["Ask", "Difficulty", "Strategy", "UserStrategy", "find_strategy", "is_hard"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a strategy may look at: the request's fields, the model, and its candidates in list order.

    `cold`: the names of those that are known not to have the model in memory.
    """

    fields: Mapping[str, Any]
    model: str
    places: Sequence[Place]
    cold: frozenset[str] = frozenset()


# Gives the same places in the order to ask them.
Strategy = Callable[[Ask], Sequence[Place]]
# What a user may give instead of a name: (model, backends in list order) -> backends in the order to ask them.
UserStrategy = Callable[[str, Sequence[Backend]], Sequence[Backend]]
Difficulty = Callable[[Mapping[str, Any]], bool]

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


def ordered(ask: Ask) -> Sequence[Place]:
    """List order: the first that can answer does, and loads the model if it must. It is the order that somebody wrote down."""
    return ask.places


def warm_first(strategy: Strategy) -> Strategy:
    """The strategy's order among those that have the model in memory, then among those that are known to be cold."""

    def ordered_by_warmth(ask: Ask) -> Sequence[Place]:
        return sorted(strategy(ask), key=lambda place: place.backend.name in ask.cold)

    return ordered_by_warmth


def shuffle(random: Random) -> Strategy:
    """A random order in which each position is drawn by weight; weight 0 comes last, for emergencies."""

    def shuffled(ask: Ask) -> Sequence[Place]:
        # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to w.
        def drawn(place: Place) -> float:
            weight = place.backend.weight
            return random.random() ** (1 / weight) if weight else -random.random()

        return sorted(ask.places, key=drawn, reverse=True)

    return shuffled


def least_busy(ask: Ask) -> Sequence[Place]:
    """Fewest requests in flight for its weight first; equals keep list order."""
    return sorted(ask.places, key=lambda place: place.in_flight / place.backend.weight if place.backend.weight else math.inf)


def fastest(random: Random) -> Strategy:
    """Shortest expected time for a typical answer, by what was measured here; those not measured yet come first."""

    def by_speed(ask: Ask) -> Sequence[Place]:
        order = sorted(ask.places, key=_expected_seconds)
        if len(order) > 1 and random.random() < EXPLORATION:
            order.insert(0, order.pop(random.randrange(1, len(order))))
        return order

    return by_speed


def sticky(ask: Ask) -> Sequence[Place]:
    """The same conversation to the same server, whose cache holds its beginning.

    Rendezvous hashing by weight: no table to keep, and when a server rests only its own conversations move.
    """
    opening = _opening(ask.fields)

    def score(place: Place) -> float:
        digest = hashlib.blake2b(f"{place.backend.name}\0{opening}".encode(), digest_size=8).digest()
        unit = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        return place.backend.weight / -math.log(unit)

    return sorted(ask.places, key=score, reverse=True)


def cheapest(ask: Ask) -> Sequence[Place]:
    """Lowest price of a token in and a token out first; without a price it is your own, and free.

    Equals by whether the model is loaded there, then by how busy they are.
    """

    def price(place: Place) -> tuple[float, bool, int]:
        row = place.backend
        return (row.input_cost_per_token or 0.0) + (row.output_cost_per_token or 0.0), row.name in ask.cold, place.in_flight

    return sorted(ask.places, key=price)


def by_difficulty(rule: Difficulty) -> Strategy:
    """Hard requests to backends tagged "hard" first, all others to those tagged "easy" first; within, loaded ones first."""

    def sorted_by_tag(ask: Ask) -> Sequence[Place]:
        wanted = "hard" if rule(ask.fields) else "easy"
        return sorted(
            ask.places, key=lambda place: (wanted not in place.backend.tags_of(ask.model), place.backend.name in ask.cold)
        )

    return sorted_by_tag


def is_hard(fields: Mapping[str, Any]) -> bool:
    """The rule behind "difficulty", meant to be read and replaced: long, long-running, with code, with tools or a schema."""
    messages = fields.get("messages") or []
    text = "".join(str(message.get("content") or "") for message in messages if isinstance(message, Mapping))
    return (
        len(text) > 2000 or len(messages) > 8 or "```" in text or bool(fields.get("tools")) or bool(fields.get("response_format"))
    )


def _users(function: UserStrategy) -> Strategy:
    def asked(ask: Ask) -> Sequence[Place]:
        by_name = {place.backend.name: place for place in ask.places}
        return [by_name[backend.name] for backend in function(ask.model, [place.backend for place in ask.places])]

    return asked


def _expected_seconds(place: Place) -> float:
    if place.ttft is None or not place.decode_tps:
        return -1.0
    return place.ttft + TYPICAL_ANSWER / place.decode_tps


def _opening(fields: Mapping[str, Any]) -> str:
    """What stays the same while a conversation grows: everything up to and with the first user message."""
    opening = []
    for message in fields.get("messages") or [fields.get("prompt") or fields.get("input")]:
        opening.append(message)
        if isinstance(message, Mapping) and message.get("role") == "user":
            break
    return json.dumps(opening, sort_keys=True, default=str)

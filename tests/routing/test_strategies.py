"""Strategies: each order, on facts made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from hydra_infer.errors import ConfigError
from hydra_infer.routing.backend import Backend, LocalModel
from hydra_infer.routing.place import Candidate, Place
from hydra_infer.routing.strategies import EXPLORATION, Ask, find_strategy, is_hard
from hydra_infer.wire.dialect import Look


def places(**options: dict[str, Any]) -> list[Place]:
    """Places by name; options of the Backend, and facts that begin with an underscore."""
    made = []
    for position, (name, given) in enumerate(options.items()):
        row = {key: value for key, value in given.items() if not key.startswith("_")}
        place = Place(Backend.openai(name, models=["m"], name=name, **row), position)
        for key, value in given.items():
            if key.startswith("_"):
                setattr(place, key[1:], value)
        made.append(place)
    return made


def order(strategy: Any, found: Sequence[Place], random: Random | None = None, **fields: Any) -> list[str]:
    candidates = [Candidate(place, LocalModel("m")) for place in found]
    return [place.backend.name for place, _ in find_strategy(strategy, random)(candidates)(Ask(fields, "m", lambda _: True))]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_ordered_and_a_function_and_an_unknown_name() -> None:
    found = places(a={}, b={}, c={})
    assert order("ordered", found) == ["a", "b", "c"]
    assert order(lambda model, backends: backends[::-1], found) == ["c", "b", "a"]
    assert order(lambda model, backends: [row for row in backends if row.name != "b"], found) == ["a", "c"]
    with pytest.raises(ConfigError, match="strategy='fatsest'"):
        find_strategy("fatsest")


def test_shuffle_draws_by_weight_and_keeps_weight_zero_for_the_end() -> None:
    found = places(none={"weight": 0}, one={"weight": 1}, three={"weight": 3})
    dice = Random(7)
    orders = [order("shuffle", found, dice) for _ in range(4000)]
    assert all(names[-1] == "none" for names in orders)
    share = sum(names[0] == "three" for names in orders) / len(orders)
    assert 0.72 < share < 0.78  # 3 of 4, standard deviation 0.7 %


def test_least_busy_counts_by_weight_and_keeps_list_order_among_equals() -> None:
    assert order("least-busy", places(a={"_in_flight": 2}, b={"_in_flight": 1}, c={"_in_flight": 1})) == ["b", "c", "a"]
    assert order("least-busy", places(small={"_in_flight": 1}, large={"_in_flight": 3, "weight": 4})) == ["large", "small"]


def test_fastest_goes_by_what_was_measured_and_tries_the_unmeasured_first() -> None:
    quick, slow = {"_ttft": 0.2, "_decode_tps": 100.0}, {"_ttft": 0.1, "_decode_tps": 20.0}
    dice = Random(1)
    orders = Counter(tuple(order("fastest", places(slow=slow, quick=quick), dice)) for _ in range(4000))
    assert orders["quick", "slow"] > orders["slow", "quick"] > 0
    assert 0.6 * EXPLORATION < orders["slow", "quick"] / 4000 < 1.4 * EXPLORATION
    assert order("fastest", places(quick=quick, new={}), Random(3)) == ["new", "quick"]


def test_sticky_keeps_a_conversation_and_moves_only_those_of_a_server_that_is_gone() -> None:
    found = places(a={}, b={}, c={})
    talks = [f"question {number}" for number in range(300)]
    first = {talk: order("sticky", found, messages=[user(talk)])[0] for talk in talks}
    longer = {
        talk: order("sticky", found, messages=[user(talk), {"role": "assistant", "content": "x"}, user("more")])[0]
        for talk in talks
    }
    assert longer == first
    shares = Counter(first.values())
    assert all(70 < shares[name] < 130 for name in "abc")  # 100 each, standard deviation 8
    without_b = {talk: order("sticky", [found[0], found[2]], messages=[user(talk)])[0] for talk in talks}
    assert all(without_b[talk] == name for talk, name in first.items() if name != "b")


def test_sticky_shares_by_weight() -> None:
    found = places(a={"weight": 1}, b={"weight": 3})
    shares = Counter(order("sticky", found, messages=[user(str(number))])[0] for number in range(1000))
    assert 690 < shares["b"] < 810


def test_cheapest_prefers_what_is_your_own() -> None:
    found = places(
        cloud={"input_cost_per_token": 1e-6, "output_cost_per_token": 3e-6},
        cheap={"output_cost_per_token": 1e-6},
        busy={"_in_flight": 2},
        own={},
    )
    assert order("cheapest", found) == ["own", "busy", "cheap", "cloud"]


def test_difficulty_sends_hard_requests_to_the_hard_ones() -> None:
    found = places(ollama={"tags": ["easy"]}, other={}, tabby={"tags": ["hard"]})
    assert order("difficulty", found, messages=[user("hi")]) == ["ollama", "other", "tabby"]
    assert order("difficulty", found, messages=[user("```python\nx\n```")]) == ["tabby", "ollama", "other"]


@pytest.mark.parametrize(
    ("fields", "hard"),
    [
        ({"messages": [user("What is the capital of France?")]}, False),
        ({"messages": [user("x" * 2001)]}, True),
        ({"messages": [user("x")] * 9}, True),
        ({"messages": [user("x")], "tools": [{}]}, True),
        ({"messages": [user("x")], "response_format": {"type": "json_object"}}, True),
        ({}, False),
    ],
)
def test_what_is_hard(fields: dict[str, Any], hard: bool) -> None:
    assert is_hard(fields) == hard


# ---- what is loaded --------------------------------------------------------------------------------------------------


def warm_order(strategy: str, found: Sequence[Place], *cold: str, **fields: Any) -> list[str]:
    for place in found:
        place.told = Look(["m"], {} if place.backend.name in cold else {"m": 4096})
    return order(strategy, found, Random(1), **fields)


@pytest.mark.parametrize("strategy", ["shuffle", "least-busy", "fastest", "sticky"])
def test_loaded_ones_come_before_known_cold_ones(strategy: str) -> None:
    found = places(a={"weight": 9}, b={"_in_flight": 5, "_ttft": 9.0, "_decode_tps": 1.0}, c={"_in_flight": 4})
    assert warm_order(strategy, found, "a", messages=[user("x")])[-1] == "a"


def test_a_written_order_a_price_and_a_tag_weigh_more_than_warmth() -> None:
    assert warm_order("ordered", places(a={}, b={}), "a") == ["a", "b"]
    prices = places(dear={"input_cost_per_token": 1.0}, cold={"_in_flight": 0}, warm={"_in_flight": 3})
    assert warm_order("cheapest", prices, "cold") == ["warm", "cold", "dear"]
    tagged = places(cold={"tags": "easy"}, warm={"tags": "easy"}, hard={"tags": "hard"})
    assert warm_order("difficulty", tagged, "cold", messages=[user("x")]) == ["warm", "cold", "hard"]

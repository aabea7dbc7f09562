"""Orders that are kept up to date: right after every change, and no dearer with a hundred backends than with four."""

from __future__ import annotations

import sys
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_infer.reply import Usage
from hydra_infer.routing.backend import Backend, LocalModel
from hydra_infer.routing.call import Call, Ended, Policy, Started
from hydra_infer.routing.flow import failover
from hydra_infer.routing.place import Candidate, Place
from hydra_infer.routing.pool import Pool
from hydra_infer.routing.roster import Ranking
from hydra_infer.routing.strategies import find_strategy
from hydra_infer.wire.dialect import Look
from hydra_infer.wire.question import Fields, Question

STRATEGIES = ["ordered", "shuffle", "least-busy", "fastest", "sticky", "cheapest", "difficulty"]


def places(count: int) -> list[Candidate]:
    return [Candidate(Place(Backend.openai(f"h{n}", name=f"h{n}"), n), LocalModel("m")) for n in range(count)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_a_ranking_is_what_sorting_would_give(changes: list[tuple[int, int]]) -> None:
    candidates = places(6)
    ranking = Ranking(candidates, lambda candidate: candidate.place.in_flight)
    for number, (position, load) in enumerate(changes):
        candidates[position].place.in_flight = load
        candidates[position].place.changed()
        if number % 3 == 0:  # several changes between two looks, too
            assert list(ranking) == sorted(candidates, key=lambda candidate: candidate.place.in_flight)


def pool_of(count: int) -> Pool:
    return Pool([Backend.openai(f"h{n}", models=["m"], name=f"h{n}") for n in range(count)], cooldown=30, clock=lambda: 1.0)


def calls_per_choice(strategy: str, backends: int) -> float:
    """How many Python functions run for one call, once everything is prepared: a measure that no busy machine changes."""
    pool, order, counted = pool_of(backends), find_strategy(strategy, Random(1)), 0

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal counted
        counted += event == "call"

    def ask(number: int) -> None:
        talk = [{"role": "user", "content": str(number)}]
        question = Question("/chat/completions", Fields({"model": "m", "messages": talk}), "m", True)
        flow = failover(Call(question, ("m",)), pool, Policy(), order, lambda: 1.0)
        flow.send(None)
        flow.send(Started())
        with pytest.raises(StopIteration):
            flow.send(Ended(None, False, 0.1 + number % 7, 9.0, Usage(1, 10, 11)))

    for number in range(2 * backends):  # each one measured, for "fastest"
        ask(number)
    before = sys.getprofile()
    sys.setprofile(count)
    for number in range(100):
        ask(number)
    sys.setprofile(before)
    return counted / 100


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_choice_among_a_hundred_costs_what_one_among_four_does(strategy: str) -> None:
    few, many = calls_per_choice(strategy, 4), calls_per_choice(strategy, 100)
    # "shuffle" and "fastest" now and then take one out of turn; the ring is walked for the first alone.
    assert many < few + 12, (few, many)


def test_rosters_follow_what_servers_tell_and_forget_what_nobody_serves() -> None:
    pool = Pool([Backend.ollama("o", name="o"), Backend.openai("h", models=["m"], name="h")], cooldown=30, clock=lambda: 1.0)
    for number in range(1000):
        assert pool.serving(f"nobody's {number}") == ()
    assert len(pool._rosters) == 0
    assert [place.backend.name for place, _ in pool.serving("m")] == ["h"]
    order = find_strategy("least-busy")
    for _ in range(5):
        for models in (["m"], ["n"]):
            pool.tell(pool.places[0].backend, Look(models, {}))
            names = [place.backend.name for place, _ in pool.serving("m")]
            assert names == (["o", "h"] if models == ["m"] else ["h"])
            list(pool.serving("m").prepared(order)(None))
    assert max(len(place.heard_by) for place in pool.places) == 1  # old orders are not told any more


def test_least_busy_knows_of_a_slot_given_back() -> None:
    pool, order = pool_of(3), find_strategy("least-busy")
    first = [pool.serving("m").prepared(order)]

    def names() -> list[str]:
        return [place.backend.name for place, _ in first[0](None)]

    assert names() == ["h0", "h1", "h2"]
    assert pool.reserve(pool.places[0])
    assert names() == ["h1", "h2", "h0"]
    pool.release(pool.places[0])
    assert names() == ["h0", "h1", "h2"]

"""A sweep over made-up speeds finds the acceptance and the cost they were made with."""

from __future__ import annotations

import json
import random

import pytest

from hydra_infer.ops.bench.speculation import Advice, advice, cost, per_token, share
from hydra_infer.planner.draft import speedup

COSTS = {1: 0.1, 2: 0.3, 4: 0.9}  # in steps, by streams at once: the more streams, the less arithmetic is to spare
CHANCE = 0.7


def swept(*, noise: float = 0.02, told: bool = True, costs: dict[int, float] = COSTS, seed: int = 0) -> Advice:
    """A sweep of 20 repetitions, whose drafts are accepted with CHANCE a token."""
    dice = random.Random(seed)
    measured = {}
    for streams, price in costs.items():
        for tokens in (0, 1, 2, 4, 6):
            accepted = share(tokens, CHANCE) if tokens else None
            times = speedup(tokens, accepted, price) if accepted else 1.0
            speeds = [40 * times * dice.lognormvariate(0, noise) for _ in range(20)]
            measured[tokens, streams] = [(speed, accepted if told else None) for speed in speeds]
    return advice(measured, 0.03)


@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_the_chance_of_a_token_is_found_from_the_share(tokens: int) -> None:
    for chance in (0.05, 0.5, 0.93):
        assert per_token(tokens, share(tokens, chance)) == pytest.approx(chance, abs=1e-6)
    assert cost(tokens, 0.6, speedup(tokens, 0.6, 0.25)) == pytest.approx(0.25)


def test_chance_cost_and_the_point_where_it_stops_paying_are_found() -> None:
    found = swept()
    assert found.per_token == pytest.approx(CHANCE)
    for load in found.loads:
        assert load.cost == pytest.approx(COSTS[load.parallel], abs=0.03)
        truth = max(range(1, 17), key=lambda tokens: speedup(tokens, share(tokens, CHANCE), COSTS[load.parallel]))
        assert load.fitted is not None
        assert abs(load.fitted - truth) <= 1
    assert [load.pays for load in found.loads] == [True, True, False]
    assert found.loads[0].best == 4
    assert found.stops_at == 4
    assert found.why.startswith("drafting pays: 4 tokens with 1 at once; ")
    assert found.why.endswith("; from 4 at once it does not pay")


def test_what_always_pays_and_what_never_does() -> None:
    assert swept(costs={1: 0.1, 2: 0.1}).stops_at is None
    never = swept(costs={1: 1.0, 2: 1.5})
    assert (never.stops_at, [load.pays for load in never.loads]) == (1, [False, False])
    assert "does not pay" in never.why


def test_too_few_measurements_are_no_advice() -> None:
    few = advice({(tokens, 1): [(40.0 + tokens, None)] * 7 for tokens in (0, 4)}, 0.03)
    assert few.why == "too few measurements to tell whether drafting pays: 8 of each are needed"
    assert few.to_dict()["why"] == few.why
    enough = advice({(tokens, 1): [(40.0 + 10 * tokens, None)] * 8 for tokens in (0, 4)}, 0.03)
    assert enough.why == "drafting pays: 4 tokens with 1 at once"


def test_what_cannot_be_timed_is_left_out() -> None:
    measured = {(0, 1): [(40.0, None)] * 9, (4, 1): [(None, 0.5), *[(60.0, 0.5)] * 8]}
    (row,) = advice(measured, 0.03).lengths
    assert (row.tps, row.speedup) == (60.0, pytest.approx(1.5))


def test_without_told_acceptance_the_speeds_still_speak() -> None:
    found = swept(told=False)
    assert (found.per_token, found.loads[0].cost, found.loads[0].fitted) == (None, None, None)
    assert [load.pays for load in found.loads] == [True, True, False]


def test_as_text_and_as_plain_data() -> None:
    found = swept()
    assert str(found).splitlines()[0].split() == ["at", "once", "drafted", "tokens/s", "times", "interval", "accepted", "cost"]
    assert str(found).splitlines()[-1] == found.why
    data = json.loads(json.dumps(found.to_dict()))
    assert (data["stops_at"], len(data["lengths"]), len(data["loads"])) == (4, 12, 3)

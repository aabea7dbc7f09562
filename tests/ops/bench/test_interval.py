"""Estimates hold what was put in, at the rate they promise; equals stay equals."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product

import pytest

from hydra_infer.ops.bench.interval import _cut, estimate, fewest_pairs, sign_test


@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.998])
@pytest.mark.parametrize("count", range(1, 11))
def test_the_cut_is_that_of_all_sign_patterns_counted_out(count: int, confidence: float) -> None:
    sums = Counter(sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in product((0, 1), repeat=count))
    outside = 0
    while sum(ways for total, ways in sums.items() if total <= outside) <= (1 - confidence) / 2 * 2**count:
        outside += 1
    assert _cut(count, 1 - confidence) == outside


def test_the_cut_is_that_of_the_printed_tables() -> None:
    """Critical values of the signed-rank test, two-sided 0.01: 0 for 8, 3 for 10, 15 for 15, 37 for 20, 109 for 30."""
    assert [_cut(count, 0.01) - 1 for count in (8, 10, 15, 20, 30)] == [0, 3, 15, 37, 109]


def test_few_pairs_have_a_centre_and_no_interval() -> None:
    assert estimate([0.5], 0.99).centre == 0.5
    seven, eight = (estimate([0.1 * k for k in range(count)], 0.99) for count in (7, 8))
    assert (seven.low, seven.high) == (None, None)
    assert eight.low == 0
    assert eight.high == pytest.approx(0.7)
    assert (fewest_pairs(0.99), fewest_pairs(0.998)) == (8, 10)


def test_one_wild_value_moves_little() -> None:
    calm = [0.01 * k for k in range(-10, 11)]
    wild = estimate([*calm, 50.0], 0.99)
    assert abs(wild.centre) < 0.02
    assert wild.high is not None
    assert wild.high < 0.2


NOISES = {
    "normal": lambda dice: dice.gauss(0, 0.1),
    "skewed": lambda dice: dice.expovariate(5),
    "with outliers": lambda dice: dice.gauss(0, 0.03) + (dice.expovariate(1) if dice.random() < 0.1 else 0),
}


@pytest.mark.parametrize("name", NOISES)
def test_equals_are_told_apart_as_seldom_as_promised_and_a_factor_is_held(name: str) -> None:
    runs, pairs, factor = 600, 12, math.log(1.5)
    apart = held = 0
    for seed in range(runs):
        dice = random.Random(seed)
        differences = [NOISES[name](dice) - NOISES[name](dice) for _ in range(pairs)]
        same, other = estimate(differences, 0.99), estimate([factor + value for value in differences], 0.99)
        assert same.low is not None
        assert same.high is not None
        assert other.low is not None
        assert other.high is not None
        apart += same.low > 0 or same.high < 0
        held += other.low <= factor <= other.high
    # 1 % of 600 is 6; 16 or more have a chance of 1 in 2,000 (binomial), and the seeds are fixed.
    assert apart < 16
    assert held > runs - 16


def test_the_sign_test_is_the_binomial() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(3, 3) == 1
    assert sign_test(0, 8) == sign_test(8, 0) == pytest.approx(2 / 256)
    assert sign_test(1, 9) == pytest.approx(2 * (1 + 10) / 1024)

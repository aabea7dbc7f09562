"""Rates of groups, by the rules of exllamav3's converter; whole models are compared in tests/golden."""

from __future__ import annotations

import pytest

from hydra_infer.planner.allocation import Group, rates


def test_whole_rates_are_kept() -> None:
    groups = [Group(layer, 100, 0) for layer in range(4)]
    assert rates(groups, 4.0) == [4.0] * 4
    assert rates(groups, 2.5) == [2.5] * 4
    assert rates([Group(0, 100, 0, half=False)], 2.5) == [2.0]


def test_what_is_left_goes_to_priority_then_to_the_ends() -> None:
    groups = [Group(layer, 100, priority) for layer in range(4) for priority in (0, 2)]
    assert rates(groups, 4.25) == [4.0, 5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 5.0]
    assert rates(groups, 4.5) == [4.0, 5.0] * 4
    assert rates(groups, 4.625) == [5.0, 5.0] + [4.0, 5.0] * 3


def test_a_group_too_large_for_the_rest_is_passed_over() -> None:
    assert rates([Group(0, 1000, 2), Group(0, 10, 0)], 4.02) == [4.0, 6.0]


@pytest.mark.parametrize(("bits", "rate"), [(0.5, 1.0), (1.0, 1.0), (8.0, 8.0), (16.0, 8.0)])
def test_rates_end_at_1_and_8(bits: float, rate: float) -> None:
    assert rates([Group(0, 100, 0)], bits) == [rate]


def test_nothing_to_spread() -> None:
    assert rates([], 4.0) == []

"""Bisection for the largest number that passes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hydra_infer.planner.solver import largest


@given(st.integers(-5, 300), st.integers(0, 50), st.integers(0, 300))
def test_it_is_the_largest_in_the_range(limit: int, low: int, high: int) -> None:
    found = largest(lambda value: value <= limit, low, high)
    passing = [value for value in range(low, high + 1) if value <= limit]
    assert found == (passing[-1] if passing else None)


def test_it_asks_few_questions() -> None:
    asked: list[int] = []
    assert largest(lambda value: bool(asked.append(value)) or value <= 77_000, 1, 2**20) == 77_000
    assert len(asked) <= 22

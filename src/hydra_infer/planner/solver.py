"""The largest whole number that still passes: bisection, for contexts and bits per weight."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest"]


def largest(passes: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number from `low` to `high` that passes, None where `low` does not: log2(high - low) + 2 questions.

    What passes must pass for every smaller number too, which holds for memory: more of anything never needs less.
    """
    if low > high or not passes(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if passes(middle):
            low = middle
        else:
            high = middle - 1
    return low

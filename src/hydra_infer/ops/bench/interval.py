"""What paired measurements say: an estimate with an exact interval, and the exact test of yes and no. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONFIDENCE", "Estimate", "estimate", "fewest_pairs", "sign_test", "span"]

CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Estimate:
    """The centre of some differences, and the interval that holds it; None where so few cannot give one."""

    centre: float
    low: float | None
    high: float | None


def estimate(differences: Sequence[float], confidence: float) -> Estimate:
    """The Hodges-Lehmann centre with Tukey's interval: order statistics of all pairwise means.

    They invert Wilcoxon's signed-rank test (Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3.1 to 3.3). With
    pairs in random order, two equal servers are exchangeable, so that the differences are symmetric about 0 whatever the noise
    looks like, and the confidence is exact.
    """
    count = len(differences)
    means = sorted((differences[i] + differences[j]) / 2 for i in range(count) for j in range(i, count))
    half = len(means) // 2
    centre = means[half] if len(means) % 2 else (means[half - 1] + means[half]) / 2
    inwards = _cut(count, 1 - confidence)
    return Estimate(centre, means[inwards - 1], means[-inwards]) if inwards else Estimate(centre, None, None)


def fewest_pairs(confidence: float) -> int:
    """How many pairs give an interval at all: the widest one misses with a chance of 2 in 2**pairs."""
    return math.ceil(1 - math.log2(1 - confidence))


def sign_test(a_only: int, b_only: int) -> float:
    """The chance of so one-sided a split, or a more one-sided one, when each side is as likely (McNemar's exact test)."""
    total = a_only + b_only
    tail = sum(math.comb(total, k) for k in range(min(a_only, b_only) + 1))
    return min(1.0, float(2 * tail / 2**total))


def _cut(count: int, missing: float) -> int:
    """How many of the sorted means lie outside at each end: the largest k with P(rank sum < k) <= missing / 2.

    `ways[s]` counts the sets of ranks 1..count whose sum is s; all 2**count of them are equally likely.
    """
    ways = [1]
    for rank in range(1, count + 1):
        ways = [(ways[s] if s < len(ways) else 0) + (ways[s - rank] if s >= rank else 0) for s in range(len(ways) + rank)]
    outside, below = 0, 0
    for number in ways:
        below += number
        if below > missing / 2 * 2**count:
            return outside
        outside += 1
    return outside


def span(low: float | None, high: float | None) -> str:
    """An interval as people read it; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"

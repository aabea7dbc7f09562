"""The tensor-parallel recurrence by itself: proportions, leftovers, limits, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_infer import ConfigError
from hydra_infer.planner.tensor import Experts, Unit, divide, largest_remainder

HEADS = Unit("attn", weights=800, shares=8, word="heads")


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (8, [32, 24], [5, 3]),
        (8, [24, 24, 12], [3, 3, 2]),
        (3, [1, 1], [2, 1]),
        (5, [1, 1, 1], [2, 2, 1]),
        (4, [1, 0], [4, 0]),
        (1, [10, 11], [0, 1]),
    ],
)
def test_the_largest_fractions_get_what_is_left(total: int, weights: list[int], parts: list[int]) -> None:
    assert largest_remainder(total, weights) == parts


@given(st.integers(1, 5000), st.lists(st.integers(0, 10**12), min_size=1, max_size=4).filter(any))
def test_nothing_is_lost_and_nothing_goes_where_there_is_no_room(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_each_module_is_split_by_what_the_ones_before_left() -> None:
    found = divide([HEADS] * 3, [2400, 800], tokens=1, outputs=1)
    assert found.shares == ((6, 2), (6, 2), (6, 2))
    assert found.stored == (1800, 600)
    # 2000 and 1000 are left, then 1500 and 700, then 1000 and 400.
    assert divide([HEADS] * 3, [2000, 1000], tokens=1, outputs=1).shares == ((5, 3), (5, 3), (6, 2))


def test_what_is_on_every_card_and_what_a_pass_takes() -> None:
    norm = Unit("norm", every=10, token_every=2)
    heads = Unit("attn", weights=800, cache=80, state=8, twice=8, shares=8, token_every=1, token_shared=16, dequantised=160)
    found = divide([norm, heads, norm], [10**6, 10**6], tokens=100, outputs=5)
    assert found.stored == (10 + 448 + 10, 10 + 448 + 10)
    assert found.working == (100 + 100 * 8 + 80, 100 + 100 * 8 + 80)
    assert divide([norm], [1000, 0], tokens=100, outputs=5).working == (5 * 2, 0)


def test_a_whole_module_goes_where_most_is_left_and_its_followers_with_it() -> None:
    leader = Unit("attn.0", weights=500, whole=True, together="group")
    follower = Unit("attn.1", weights=400, whole=True, together="group")
    alone = Unit("attn.2", weights=400, whole=True)
    assert divide([leader, follower, alone], [1000, 900], tokens=1, outputs=1).shares == ((1, 0), (1, 0), (0, 1))


def test_it_never_refuses_what_cannot_fit() -> None:
    found = divide([HEADS] * 4, [400, 100], tokens=1, outputs=1)
    assert sum(found.stored) == 3200
    assert all(sum(shares) == 8 for shares in found.shares)


def test_no_memory_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no card has any memory"):
        divide([HEADS], [0, -5], tokens=1, outputs=1)


def test_a_card_without_experts_holds_only_their_sum() -> None:
    mixture = Experts(hidden=2048, columns=768, per_token=8, fp32=False, fp16=True)
    assert mixture.working(2048, 0, 128) == 2048 * 2048 * 4
    assert mixture.working(2048, 64, 128) < mixture.working(2048, 128, 128)
    plain = Experts(hidden=2048, columns=768, per_token=8, fp32=False, fp16=True, batched=False)
    assert plain.working(2048, 128, 128) <= mixture.working(2048, 128, 128)

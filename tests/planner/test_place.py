"""The two rules of placement, on their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hydra_infer.planner.place import Piece, fill, share
from hydra_infer.units import Size


def pieces(*weights: int, transient: int = 0) -> list[Piece]:
    return [Piece(Size(one), transient=Size(transient), layers=1) for one in weights]


def test_in_order_and_never_back() -> None:
    # The 3 would still fit on the first card, but a loader that has moved on does not return.
    assert [pile.weights for pile in fill(pieces(6, 5, 3), [10, 10])] == [6, 8]


def test_what_fits_nowhere_shows_on_the_last_card() -> None:
    assert [pile.weights for pile in fill(pieces(6, 6, 6), [10, 10])] == [6, 12]


def test_a_card_without_room_is_passed_over() -> None:
    assert [pile.weights for pile in fill(pieces(6, 4), [5, 10])] == [0, 10]


def test_transients_do_not_add_up() -> None:
    (pile,) = fill([Piece(Size(1), transient=Size(5)), Piece(Size(1), transient=Size(7))], [100])
    assert (pile.weights, pile.transient, pile.total) == (2, 7, 9)


def test_a_large_transient_closes_a_card() -> None:
    late = [Piece(Size(4), transient=Size(1)), Piece(Size(1), transient=Size(6))]
    assert [pile.weights for pile in fill(late, [10, 10])] == [4, 1]


def test_shares_follow_the_proportions() -> None:
    assert [pile.layers for pile in share(pieces(*[1] * 10), [3, 1, 1])] == [6, 2, 2]
    assert [pile.layers for pile in share(pieces(*[1] * 10), [0, 1])] == [0, 10]
    assert [pile.layers for pile in share(pieces(*[1] * 3), [1, 1])] == [2, 1]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.lists(st.integers(0, 200), min_size=1, max_size=4))
def test_nothing_is_lost(weights: list[int], rooms: list[int]) -> None:
    piles = fill(pieces(*weights, transient=3), rooms)
    assert sum(pile.weights for pile in piles) == sum(weights)
    assert sum(pile.layers for pile in piles) == len(weights)
    for pile, room in zip(piles[:-1], rooms[:-1], strict=True):
        assert pile.layers == 0 or pile.total <= room


@given(st.integers(1, 200), st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any))
def test_every_piece_gets_a_card_that_takes_part(count: int, proportions: list[int]) -> None:
    piles = share(pieces(*[1] * count), proportions)
    assert sum(pile.layers for pile in piles) == count
    assert all(pile.layers == 0 for pile, part in zip(piles, proportions, strict=True) if part == 0)

"""Where the pieces of a model go when they are loaded one after the other: the rules of the loaders, without memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..units import Size
from .usage import ZERO

__all__ = ["Piece", "Pile", "fill", "share"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is loaded in one go: its weights, its part of the cache, the working memory of its forward pass, its states."""

    weights: Size
    cache: Size = ZERO
    transient: Size = ZERO
    layers: int = 0
    state: Size = ZERO


@dataclass(frozen=True, slots=True)
class Pile:
    """The pieces that lie on one card: weights, cache and states add up, of the transients only the largest counts."""

    weights: Size = ZERO
    cache: Size = ZERO
    transient: Size = ZERO
    layers: int = 0
    state: Size = ZERO

    def plus(self, piece: Piece) -> Pile:
        return Pile(
            Size(self.weights + piece.weights),
            Size(self.cache + piece.cache),
            max(self.transient, piece.transient),
            self.layers + piece.layers,
            Size(self.state + piece.state),
        )

    @property
    def total(self) -> Size:
        return Size(self.weights + self.cache + self.transient + self.state)


def fill(pieces: Sequence[Piece], rooms: Sequence[int]) -> list[Pile]:
    """ExLlama's rule: in order, each on the current card while it has room, then on to the next and never back.

    `rooms` are bytes per card. What no card has room for is put on the last one, so that the shortage shows there.
    Source: exllamav3 1.6.5 model/model_ls.py (_load_autosplit), exllamav2 0.3.2 model.py (load_autosplit_gen).
    """
    piles, card = [Pile() for _ in rooms], 0
    for piece in pieces:
        while card < len(rooms) - 1 and piles[card].plus(piece).total > rooms[card]:
            card += 1
        piles[card] = piles[card].plus(piece)
    return piles


def share(pieces: Sequence[Piece], weights: Sequence[float]) -> list[Pile]:
    """llama.cpp's rule: piece number i of n goes to the first card whose share of the sum reaches beyond i / n.

    `weights` are the cards' proportions (free memory, or --tensor-split). Source: llama.cpp, llama-model.cpp
    (load_tensors: upper_bound over the running sums).
    """
    sums = list(accumulate(weights))
    piles = [Pile() for _ in weights]
    for number, piece in enumerate(pieces):
        card = bisect_right([part / sums[-1] for part in sums], number / len(pieces))
        piles[card] = piles[card].plus(piece)
    return piles

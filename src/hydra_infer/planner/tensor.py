"""ExLlamaV3's tensor parallel: how much of every module each card gets, and what it takes there.

Source: exllamav3 1.6.5, model/model_tp_alloc.py (TPAllocator.initial_split) and util/misc.py (ratio_split). Module after
module is divided in proportion to the memory each card has left. The loader never refuses: where nothing is left it
pretends that every card had a tenth more, and runs out of memory later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..units import Size

__all__ = ["Division", "Unit", "divide"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A module as the allocator sees it. Weights in `every`, `cache_every` and `state_every` are on each card that takes part.

    Divided are `weights`, `cache` and `state`, and `twice`: weights that the allocator counts once more than there are.
    It is divided into `shares` equal ones, each `width` channels of `word` ("heads", "experts", "channels"); a norm has one
    share and no word. Working memory is `token_every` and `token_shared` bytes per token and `dequantised` bytes of a weight
    turned back into 16 bit. `whole` keeps it on one card, and all that have the same `together` on the same one.
    """

    key: str
    every: int = 0
    cache_every: int = 0
    state_every: int = 0
    weights: int = 0
    cache: int = 0
    state: int = 0
    twice: int = 0
    shares: int = 1
    width: int = 1
    word: str = ""
    token_every: int = 0
    token_shared: int = 0
    dequantised: int = 0
    experts: Experts | None = None
    whole: bool = False
    together: str = ""

    def stored(self, shares: int) -> int:
        """Bytes on a card that holds so many shares, as the allocator counts them."""
        divided = self.weights + self.cache + self.state + self.twice
        return self.every + self.cache_every + self.state_every + divided * shares // self.shares

    def working(self, tokens: int, shares: int) -> int:
        """Bytes of working memory of a pass of `tokens` tokens on a card that holds so many shares."""
        plain = tokens * self.token_every + tokens * self.token_shared * shares // self.shares
        plain += self.dequantised * shares // self.shares
        return plain if self.experts is None else plain + self.experts.working(tokens, shares, self.shares)


@dataclass(frozen=True, slots=True)
class Experts:
    """The working memory of a card's share of a mixture (modules/block_sparse_mlp.py, tp_prefill_bound and _prefill_bound).

    `hidden` is the width the experts work in, `columns` the padded one inside them; `fp32` and `fp16` say what the columns
    are held in, neither being the default (32 bit without the batched kernels' extra copy). `batched`: EXL3 weights, which
    are dequantised several experts at a time (moe_batch_recon.py).
    """

    hidden: int
    columns: int
    per_token: int
    fp32: bool
    fp16: bool
    gated: bool = True
    batched: bool = True

    def working(self, tokens: int, shares: int, of: int) -> int:
        if shares == 0:
            return tokens * self.hidden * 4
        hidden, columns = self.hidden, self.columns
        assigned = -(-tokens * self.per_token * shares // of)
        fixed = (tokens + 1) * hidden * 4 + tokens * hidden * 2 + (int(assigned * PADDING) + 1) * hidden * 4
        one = min(tokens, assigned) * (columns * (4 if self.fp16 else 8 + 2) + 8 * hidden)
        return fixed + max(one, self._batch(assigned) if self.batched else 0)

    def _batch(self, assigned: int) -> int:
        """Weights, gathered rows and columns of one batch of experts."""
        weight = self.hidden * self.columns
        together = max(1, min(BATCH_EXPERTS, BATCH_BYTES // (4 * weight)))
        most = min(BATCH_ROWS, assigned)
        rows = min(together * most, BATCH_ROWS, int(assigned * PADDING) + most)
        held = (2 if self.gated else 1) * (4 if self.fp32 else 2) + (2 if self.fp32 else 0)
        return 4 * together * weight + rows * (2 * self.hidden + held * self.columns)


# exllamav3 1.6.5, modules/moe_batch_recon.py: experts, rows and bytes dequantised at once, and the padding of their rows.
BATCH_EXPERTS = 16
BATCH_ROWS = 16384
BATCH_BYTES = 256 * 2**20
PADDING = 1.1


@dataclass(frozen=True, slots=True)
class Division:
    """The shares of every unit per card, and per card the bytes stored and the largest working memory."""

    shares: tuple[tuple[int, ...], ...]
    stored: tuple[Size, ...]
    working: tuple[Size, ...]


def divide(units: Sequence[Unit], memory: Sequence[int], *, tokens: int, outputs: int) -> Division:
    """Split `units` over cards with `memory` bytes each; the last unit works on `outputs` tokens, the others on `tokens`.

    Raises ConfigError where no card has any memory.
    """
    if not any(size > 0 for size in memory):
        raise ConfigError("no card has any memory to split a model over", hint="lower reserve=, or free the cards")
    limit, cards = list(memory), len(memory)
    stored, working, leader, found = [0] * cards, [0] * cards, dict[str, int](), []
    for unit in units:
        while not any(left := _left(limit, stored, working)):
            limit = [size * 11 // 10 for size in limit]
        left = _allowed(unit, left, leader)
        shares = largest_remainder(unit.shares, left)
        if unit.together and unit.together not in leader and sum(map(bool, shares)) == 1:
            leader[unit.together] = max(range(cards), key=shares.__getitem__)
        rows = outputs if unit is units[-1] else tokens
        for card, share in enumerate(shares):
            if left[card] > 0:
                stored[card] += unit.stored(share)
                working[card] = max(working[card], unit.working(rows, share))
        found.append(tuple(shares))
    return Division(tuple(found), tuple(map(Size, stored)), tuple(map(Size, working)))


def _left(limit: Sequence[int], stored: Sequence[int], working: Sequence[int]) -> list[int]:
    return [max(0, size - more - most) for size, more, most in zip(limit, stored, working, strict=True)]


def _allowed(unit: Unit, left: list[int], leader: dict[str, int]) -> list[int]:
    """What is left on the cards a unit may lie on, 0 on the others."""
    if unit.together in leader:
        return [max(size, 1) if card == leader[unit.together] else 0 for card, size in enumerate(left)]
    if unit.whole:
        best = max(range(len(left)), key=left.__getitem__)
        return [size if card == best else 0 for card, size in enumerate(left)]
    return left


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole parts proportional to `weights`; what is left over goes to the largest fractions, first ones first."""
    whole = sum(weights)
    ideal = [total * weight / whole for weight in weights]
    parts = [int(part) for part in ideal]
    order = sorted(range(len(parts)), key=lambda i: int(ideal[i]) - ideal[i])
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return parts

"""EXL3's code in torch: 256 weights are a ring of bits, and each is the codebook's value of the 16 bits that end with its own.

The codebook is "mul1", the converter's default, to the bit; the layout is exllamav3 1.6.5's (quant/codebook.cuh, pack.cu,
frac.cu). Its search is exact, over all 65,536 windows; this one keeps the best few at each weight, so what it finds is a little
further from the weights, and is decoded by the same rules.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

__all__ = ["TILE", "codebook", "decode", "encode", "pack", "unpack", "widths"]

TILE, WINDOW = 256, 16

# How many beginnings are kept at each weight; and how many weights a search reads to find what a ring is to end with.
KEPT, CLOSING = 8, 32


@functools.cache
def codebook() -> torch.Tensor:
    """The value of every window: the four bytes of a product, summed, as a half-precision number in steps of 1 / 147.7."""
    product = torch.arange(1 << WINDOW) * 0x83DCD12D & 0xFFFFFFFF
    total = sum(product >> shift & 0xFF for shift in (0, 8, 16, 24))
    step, bias = torch.tensor([0x1EEE, 0xC931 - 0x10000], dtype=torch.int16).view(torch.half).double()
    # One fused operation in half precision: exact in double, rounded once.
    return ((1024 + total).double() * step + bias).half().float()


def widths(rate: float) -> list[int]:
    """The bits that each weight of a tile adds; a half rate takes turns."""
    whole = int(rate)
    return [whole + (rate != whole) * (place % 2) for place in range(TILE)]


def encode(tiles: torch.Tensor, rate: float) -> torch.Tensor:
    """Windows (tiles, 256) whose values are near to `tiles` (tiles, 256), and that close to a ring."""
    adds = widths(rate)
    # What the ring ends with is taken from a search of its last weights alone, which may begin anywhere.
    last = _search(tiles[:, -CLOSING:], adds[-CLOSING:], None)[:, -1]
    return _search(tiles, adds, last)


def decode(windows: torch.Tensor) -> torch.Tensor:
    """The weights of windows."""
    return codebook()[windows]


def pack(windows: torch.Tensor, rate: float) -> torch.Tensor:
    """Windows (…, 256) as they are stored: 16-bit words (…, 16 times the rate), each pair of them one number of 32 bits."""
    adds = widths(rate)
    bits = [windows[..., place] >> shift & 1 for place, width in enumerate(adds) for shift in reversed(range(width))]
    words = torch.stack(bits, -1).unflatten(-1, (-1, 16)) @ (1 << torch.arange(15, -1, -1))
    return _swapped(words).to(torch.uint16).view(torch.int16)


def unpack(words: torch.Tensor, rate: float) -> torch.Tensor:
    """The windows (…, 256) of stored words."""
    stream = _swapped(words.view(torch.uint16).long())
    bits = (stream.unsqueeze(-1) >> torch.arange(15, -1, -1) & 1).flatten(-2)
    ends = torch.tensor(widths(rate)).cumsum(0)
    places = (ends.unsqueeze(-1) + torch.arange(-WINDOW, 0)) % bits.shape[-1]
    return bits[..., places] @ (1 << torch.arange(15, -1, -1))


def _swapped(words: torch.Tensor) -> torch.Tensor:
    """The first of two words is the number's upper half, which a small-endian machine stores last."""
    return words.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def _search(tiles: torch.Tensor, adds: Sequence[int], closing: torch.Tensor | None) -> torch.Tensor:
    """The best windows found from first to last; with `closing` they follow upon it and end with it."""
    count, rows = len(tiles), torch.arange(len(tiles)).unsqueeze(1)
    costs = torch.zeros((count, 1))
    windows = torch.arange(0, 1 << WINDOW, 61).expand(count, -1) if closing is None else closing.unsqueeze(1)
    left, met, came = sum(adds), [], []
    for place, width in enumerate(adds):
        left -= width
        if closing is not None or place:
            windows = ((windows << width & 0xFFFF).unsqueeze(-1) + torch.arange(1 << width)).flatten(1)
            costs = costs.repeat_interleave(1 << width, 1)
        costs = costs + (codebook()[windows] - tiles[:, place : place + 1]).square()
        if closing is not None and left < WINDOW:
            wrong = (windows ^ (closing >> left).unsqueeze(1)) & ((1 << (WINDOW - left)) - 1)
            costs = costs.masked_fill(wrong != 0, float("inf"))
        costs, kept = costs.topk(min(KEPT, costs.shape[1]), largest=False, sorted=False)
        windows = windows[rows, kept]
        met.append(windows)
        came.append(kept >> width)  # whose successor it is; meaningless for a first one that follows upon nothing
    found, at = torch.empty((count, len(adds)), dtype=torch.long), costs.argmin(1, keepdim=True)
    for place in reversed(range(len(adds))):
        found[:, place : place + 1] = met[place][rows, at]
        at = came[place][rows, at]
    return found

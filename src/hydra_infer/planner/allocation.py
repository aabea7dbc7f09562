"""Which bit rate every group of matrices gets from ExLlamaV3's converter when a model is made at so many bits per weight.

Source: exllamav3 1.6.5 conversion/allocation.py (create_q_strategy) with the converter's defaults: codebook mul1, which has
the half rates below 4 bits, a head of 6 bits, no --hq.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEAD_BITS", "Group", "rates"]

# Bits per weight of the output head that both converters, this and exllamav2's, use unless told otherwise.
HEAD_BITS = 6.0
LOWEST, HIGHEST = 1.0, 8.0
WHOLE_FROM = 4.0  # from here on rates are whole bits


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices that always have the same rate: `elements` weights in block `layer`; `half` where half rates are allowed.

    Groups of a higher `priority` are promoted first, and of equal ones those nearer to either end of the model.
    """

    layer: int
    elements: int
    priority: int
    half: bool = True


def rates(groups: Sequence[Group], bits: float) -> list[float]:
    """Bits per weight of each group, so that all together stay within `bits` on average."""
    found = [_floor(bits, group.half) for group in groups]
    spent = sum(group.elements * rate for group, rate in zip(groups, found, strict=True))
    budget = int(bits * float(sum(group.elements for group in groups)))
    order = _order(groups)
    promoted = True
    while promoted and spent < budget:
        promoted = False
        for index in order:
            group = groups[index]
            cost = (_next(found[index], group.half) - found[index]) * group.elements
            if cost > 0 and spent + cost <= budget:
                found[index] = _next(found[index], group.half)
                spent += cost
                promoted = True
    return found


def _order(groups: Sequence[Group]) -> list[int]:
    last = max((group.layer for group in groups), default=0)

    def rank(index: int) -> tuple[int, int, int, int]:
        group = groups[index]
        return -group.priority, min(group.layer, last - group.layer), group.layer, index

    return sorted(range(len(groups)), key=rank)


def _floor(bits: float, half: bool) -> float:
    rate = math.floor(bits * 2) / 2 if half and bits < WHOLE_FROM else float(math.floor(bits))
    return max(LOWEST, min(HIGHEST, rate))


def _next(rate: float, half: bool) -> float:
    return min(HIGHEST, rate + (0.5 if half and rate < WHOLE_FROM else 1.0))

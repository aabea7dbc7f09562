"""A faster division among unequal cards than the loader's own: the slower a card, the less lies on it.

ExLlama fills cards in PCI order, or divides by capacity; the speed of a card enters nowhere. For every token each weight is
read once where it lies, so a card's share costs its bytes over its bandwidth: cards that take turns add up, cards that work
together wait for the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..units import GIB
from .solver import largest
from .speed import speed

if TYPE_CHECKING:
    from .report import Plan

__all__ = ["change_to", "fastest_split", "token_time"]

# gpu_split is searched, and written, in steps of this many bytes: 0.01 GiB.
STEP = GIB // 100

# Sums of the shares that are tried for tensor parallel; each plan of one costs some milliseconds.
SUMS = 12

# Bandwidths are known to about 2 % (hardware/catalogue.py): a smaller gain is not one.
LEAST_GAIN = 0.02


def token_time(plan: Plan) -> float | None:
    """Seconds per token of one stream, the likely figure of planner/speed.py; None where a bandwidth is not known."""
    rate = speed(plan.request, plan.outcome).decode_tps
    return None if rate is None else 1 / rate[1]


def change_to(found: Plan) -> dict[str, Any]:
    """What to say to plan() to get this split."""
    change: dict[str, Any] = {"split": "tensor"} if found.split == "tensor" else {}
    shares = found.request.gpu_split
    return change if shares is None else change | {"gpu_split": [round(share.gib, 2) for share in shares]}


def fastest_split(plan: Plan) -> Plan | None:
    """The same model with the split and `gpu_split` that decode fastest and fit, None where the plan's own are as good.

    Where the plan itself does not fit, any that does is better. A split that was asked for by name is kept to. ExLlamaV2's
    shares are not planned, so they are not searched.
    """
    request = plan.request
    now = token_time(plan) if plan.fits else math.inf
    if now is None or request.spec.format == "exl2" or len(request.gpus) < 2:
        return None
    best, limit = None, now * (1 - LEAST_GAIN)
    for candidate in _candidates(plan):
        time = token_time(candidate)
        if time is not None and time < limit:
            best, limit = candidate, time
    return best


def _candidates(plan: Plan) -> Iterator[Plan]:
    asked, llamacpp = plan.request.split, plan.request.spec.format == "gguf"
    if asked in ("auto", "layers") and (found := _proportioned(plan) if llamacpp else _layered(plan)):
        yield found
    if asked in ("auto", "tensor") and not llamacpp:
        yield from _divided(plan)


def _divided(plan: Plan) -> Iterator[Plan]:
    """Tensor parallel: as the loader divides, and with shares in proportion to the bandwidths, as far as the cards hold them.

    The larger the sum of the shares, the more of them is cut off at what a card has: a few sums between the least that
    fits and all there is are tried.
    """
    rates = [gpu.bandwidth for gpu in plan.request.gpus]
    try:
        own = plan.replan(split="tensor")
    except ConfigError:
        return  # a model that ExLlamaV3 cannot divide
    yield from [own] if own.fits else []
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return
    most = max(gpu.free / rate for gpu, rate in zip(plan.request.gpus, known, strict=True))
    for part in range(SUMS, 0, -1):
        shares = [min(gpu.free, most * part / SUMS * rate) for gpu, rate in zip(plan.request.gpus, known, strict=True)]
        tried = plan.replan(split="tensor", gpu_split=[math.floor(share / GIB * 100) / 100 for share in shares])
        if not tried.fits:
            return
        yield tried


def _layered(plan: Plan) -> Plan | None:
    """Layer after layer: from the slowest card on, each is left out, or given as little as the others leave over.

    Of equal layers that is the fastest division there is, for moving one to a faster card always gains.
    """
    shares = [gpu.free // STEP for gpu in plan.request.gpus]
    if _try(plan, shares) is None:
        return None
    for card in sorted(range(len(shares)), key=lambda index: plan.request.gpus[index].bandwidth or 0.0):
        whole = shares[card]

        def fits(saved: int, card: int = card, whole: int = whole) -> bool:
            return _try(plan, [whole - saved if index == card else share for index, share in enumerate(shares)]) is not None

        # Leaving the card out comes first: a share too small for one layer fails where none at all succeeds.
        shares[card] = 0 if fits(whole) else whole - (largest(fits, 0, whole - 1) or 0)
    found = _try(plan, shares)
    return None if found is None else found.replan(gpu_split=found.gpu_split)


def _proportioned(plan: Plan) -> Plan | None:
    """llama.cpp, whose shares are proportions: from its own division on, as many layers as fit move to a faster card."""
    found = plan.replan(split="layers")
    if not found.fits:
        return None
    counts = [use.layers for use in found.devices]
    order = sorted(range(len(counts)), key=lambda index: plan.request.gpus[index].bandwidth or 0.0)
    for place, slow in enumerate(order):
        for fast in reversed(order[place + 1 :]):
            most = largest(partial(_movable, plan, counts, slow, fast), 0, counts[slow])
            counts = _moved(counts, slow, fast, most or 0)
    return _counted(plan, counts)


def _moved(counts: list[int], slow: int, fast: int, layers: int) -> list[int]:
    change = {slow: -layers, fast: layers}
    return [count + change.get(index, 0) for index, count in enumerate(counts)]


def _movable(plan: Plan, counts: list[int], slow: int, fast: int, layers: int) -> bool:
    return _counted(plan, _moved(counts, slow, fast, layers)).fits


def _counted(plan: Plan, counts: list[int]) -> Plan:
    """The plan with so many layers on each card; the head follows the last one (planner/place.py, share).

    A card ends half a layer before its last one would be the next card's, so that rounding moves none.
    """
    total = sum(counts) + 1
    ends = [max(0.0, end - 0.5) for end in accumulate(counts)]
    last = max(index for index, count in enumerate(counts) if count)
    ends = [total if index >= last else end for index, end in enumerate(ends)]
    parts = [end - start for start, end in pairwise([0.0, *ends])]
    # Only proportions count; written as GiB that every card has, they look like what they stand for.
    unit = min(gpu.memory.gib / part for gpu, part in zip(plan.request.gpus, parts, strict=True) if part)
    return plan.replan(gpu_split=[part * unit for part in parts])


def _try(plan: Plan, shares: list[int]) -> Plan | None:
    """The plan with these shares (in steps), None where it does not fit or no card is left."""
    if not any(shares):
        return None
    tried = plan.replan(gpu_split=[share * STEP / GIB for share in shares])
    return tried if tried.fits else None

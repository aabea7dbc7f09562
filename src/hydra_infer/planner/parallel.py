"""A model over several cards at once: ExLlamaV3's tensor-parallel loader, and the refusals it does not make itself.

Source: exllamav3 1.6.5, model/model_tp.py (_load_tp), model_tp_shared.py and model_tp_backend.py for what is kept in RAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ConfigError
from ..units import GIB, MIB, Size
from . import overhead
from .request import Request
from .slices import cannot, units_of
from .tensor import Division, Unit, divide
from .transient import OUTPUT_ROWS
from .usage import DeviceUse, HostUse, Outcome

__all__ = ["lay_out", "refusal"]

# Shared memory for as long as the model is loaded: the arena for inputs, and the buffers of the native backend.
SHARED_KEPT = Size(64 * MIB + 16 * MIB + 17 * 8 * 256 * 1024 + 160 * 1024)

# The arena that modules travel through while they are loaded; what does not fit gets a segment of its own.
SHARED_LOADING = Size(2 * GIB)


def refusal(request: Request) -> ConfigError | None:
    """Why a model cannot run tensor parallel on these cards; None where it can."""
    if len(request.gpus) < 2:
        return ConfigError("split='tensor' needs two cards or more", hint="leave split= out")
    return cannot(request.spec.geometry)


def lay_out(request: Request, *, tokens: int, rows: int, kept: Sequence[Size], history: int = 0) -> Outcome:
    """Where every share lies, with `tokens` tokens of cache, passes of `rows` tokens and `kept` bytes left free per card.

    Raises ConfigError, with the reason, for what the engine does not run or this planner does not cover.
    """
    if (error := refusal(request)) is not None:
        raise error
    modules, geometry = request.weights.modules, request.spec.geometry
    units = units_of(modules, geometry, request.rate, tokens=tokens, slots=request.slots, history=history)
    memory = _memory(request, kept)
    division = divide(units, memory, tokens=rows, outputs=min(OUTPUT_ROWS, rows))
    # What no unit divides lies on every card: small norms, sinks, a router's corrections.
    loose = sum(module.weights for module in modules) - sum(unit.weights + unit.every for unit in units)
    devices = [_device(request, card, units, division, max(0, loose), rows) for card in range(len(request.gpus))]
    used = sum(use.used for use in devices)
    paste = tuple(math.floor(size / GIB * 100) / 100 if size > 0 else 0.0 for size in memory)
    return Outcome("tensor", tuple(devices), _host(request, used), tokens, paste)


def _memory(request: Request, kept: Sequence[Size]) -> list[int]:
    """What the loader believes there is: gpu_split as it is, else what is free beside two CUDA contexts and the reserve."""
    if request.gpu_split is not None:
        return [*request.gpu_split, *[0] * (len(request.gpus) - len(request.gpu_split))]
    memory = [gpu.free - 2 * overhead.CONTEXT.likely - size for gpu, size in zip(request.gpus, kept, strict=True)]
    # A vision tower is loaded before, whole, on the first card.
    return [memory[0] - request.weights.vision, *memory[1:]]


def _device(request: Request, card: int, units: Sequence[Unit], division: Division, loose: int, rows: int) -> DeviceUse:
    gpu = request.gpus[card]
    tower = 0 if card else request.weights.vision
    if not division.stored[card] and not tower:
        return DeviceUse(gpu)
    weights, cache, state, working = loose + tower, 0, 0, 0
    for unit, shares in zip(units, division.shares, strict=True):
        weights += unit.every + _part(unit.weights, shares, card)
        cache += unit.cache_every + _part(unit.cache, shares, card)
        state += unit.state_every + _part(unit.state, shares, card)
        # The allocator keeps room to turn the whole head into 16 bit, which so few rows never do.
        last = unit is units[-1]
        most = min(OUTPUT_ROWS, rows) if last else rows
        working = max(working, unit.working(most, shares[card]) - last * (unit.dequantised * shares[card] // unit.shares))
    return DeviceUse(
        gpu,
        weights=Size(weights),
        cache=Size(cache),
        state=Size(state),
        transient=Size(working),
        overhead_range=overhead.exllamav3_parallel(gpu, request.spec.geometry, request.spec.format == "exl3"),
        reserve=request.reserved(card) or Size(0),
        allowed=None if request.gpu_split is None else request.gpu_split[card],
        layers=len(request.spec.geometry.layers),
    )


def _part(total: int, shares: Sequence[int], card: int) -> int:
    """A card's part in whole bytes, so that all parts add up to the total."""
    whole, before = sum(shares), sum(shares[:card])
    return total * (before + shares[card]) // whole - total * before // whole


def _host(request: Request, ranks: int) -> HostUse:
    """Every rank has the embedding, and while it is loaded each module exists in RAM and in shared memory."""
    largest = max(module.nbytes for module in request.weights.modules)
    shared = Size(SHARED_KEPT + SHARED_LOADING + (largest if largest > SHARED_LOADING else 0))
    return HostUse(
        weights=Size(request.weights.embedding * ranks),
        transient=Size(largest + shared),
        shared=shared,
        available=request.ram,
    )

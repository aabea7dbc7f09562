"""How llama.cpp lays a GGUF model out: all layers on the cards, or everything in system RAM where there is no card."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError, UnknownModel
from ..models.spec import Attention, Layer
from ..units import MIB, Size
from . import overhead, transient
from .cache import cache_bytes, pages
from .place import Piece, Pile, fill, share
from .request import Request
from .state import llamacpp_state
from .usage import DeviceUse, HostUse, Outcome

__all__ = ["lay_out"]

# llama.cpp's default n_ubatch: a chunk is computed in micro-batches of this size.
MICRO_BATCH = 512

# With several cards llama.cpp pipelines: the inputs of a graph, above all its mask, exist this often
# (GGML_SCHED_MAX_COPIES, ggml-backend.cpp).
PIPELINE_COPIES = 4

# llama_params_fit leaves this much free per card unless told otherwise (llama.cpp PR 16653).
MARGIN = Size(1024 * MIB)


def lay_out(request: Request) -> Outcome:
    """Where everything lies. The embedding is in RAM; what llama.cpp would spill there is not planned: all or nothing.

    Raises ConfigError for a cache type the heads do not divide by, UnknownModel for layers with a window.
    """
    _check(request)
    weights, per_slot = request.weights, pages(request.context)
    tokens = per_slot * request.slots
    if not request.gpus:
        return Outcome("cpu", (), _on_cpu(request, per_slot, tokens), tokens)
    geometry, rate = request.spec.geometry, request.rate
    pieces = [
        Piece(loaded.total, cache_bytes(layer.attention, rate, tokens), layers=1, state=_state(request, layer))
        for layer, loaded in zip(geometry.layers, weights.layers, strict=True)
    ]
    pieces.append(Piece(Size(weights.norm + weights.head)))
    outcome = _place(request, pieces, per_slot)
    host = HostUse(weights.embedding, overhead_range=overhead.llamacpp_host(), available=request.ram)
    return replace(outcome, host=host, cache_tokens=tokens)


def _check(request: Request) -> None:
    for layer in request.spec.geometry.layers:
        attention = layer.attention
        if not isinstance(attention, Attention):
            continue
        if attention.window is not None:
            raise UnknownModel(f"{request.spec.path}: layers with a sliding window are not covered yet for gguf")
        if attention.head_dim % request.rate.block:
            raise ConfigError(
                f"cache={request.rate.name!r} stores blocks of {request.rate.block}, heads have {attention.head_dim}",
                hint="cache='f16' fits any head",
            )


def _state(request: Request, layer: Layer) -> Size:
    drafted = request.drafter.tokens if request.drafter else 0
    return llamacpp_state(layer.attention, request.slots, drafted)


def _rows(request: Request) -> int:
    return min(MICRO_BATCH, request.chunk, pages(request.context))


def _on_cpu(request: Request, per_slot: int, tokens: int) -> HostUse:
    geometry, weights = request.spec.geometry, request.weights
    # In RAM a tied head is the embedding itself, not a second copy.
    head = Size(0) if geometry.tied else weights.head
    return HostUse(
        weights=Size(weights.embedding + sum(layer.total for layer in weights.layers) + weights.norm + head),
        cache=Size(sum(cache_bytes(each.attention, request.rate, tokens) + _state(request, each) for each in geometry.layers)),
        transient=transient.llamacpp(geometry, _rows(request), request.slots, per_slot, request.rate, on_gpu=False),
        overhead_range=overhead.llamacpp_host(),
        available=request.ram,
    )


def _place(request: Request, pieces: list[Piece], per_slot: int) -> Outcome:
    cards = range(len(request.gpus))
    if request.split != "layers":
        whole = fill(pieces, [0])[0]
        alone = [_device(request, i, whole, per_slot, copies=1) for i in cards]
        fitting = [i for i in cards if alone[i].fits]
        if fitting or request.split == "single" or len(cards) == 1:
            best = max(fitting or cards, key=lambda i: (request.gpus[i].bandwidth or 0.0) if fitting else alone[i].left)
            devices = tuple(alone[i] if i == best else DeviceUse(request.gpus[i]) for i in cards)
            return Outcome("single", devices, HostUse(), 0, tuple(float(i == best) for i in cards))
    proportions = [gpu.free.gib for gpu in request.gpus]
    if request.gpu_split is not None:
        proportions = [size.gib for size in request.gpu_split] + [0.0] * (len(cards) - len(request.gpu_split))
    if not any(proportions):
        raise ConfigError("no card has any memory free", hint="unload what is on them, or plan with gpus(empty=True)")
    piles = share(pieces, proportions)
    copies = PIPELINE_COPIES if sum(pile.total > 0 for pile in piles) > 1 else 1
    devices = tuple(_device(request, i, piles[i], per_slot, copies) for i in cards)
    return Outcome("layers", devices, HostUse(), 0, tuple(round(part, 2) for part in proportions))


def _device(request: Request, index: int, pile: Pile, per_slot: int, copies: int) -> DeviceUse:
    gpu, geometry, rows = request.gpus[index], request.spec.geometry, _rows(request)
    if pile.total == 0:
        return DeviceUse(gpu)
    working = transient.llamacpp(geometry, rows, request.slots, per_slot, request.rate, on_gpu=True)
    asked = request.reserved(index)
    return DeviceUse(
        gpu,
        weights=pile.weights,
        cache=pile.cache,
        state=pile.state,
        transient=Size(working + (copies - 1) * rows * per_slot * 2),
        overhead_range=overhead.llamacpp_gpu(gpu),
        reserve=MARGIN if asked is None else asked,
        layers=pile.layers,
    )

"""How ExLlamaV3 and ExLlamaV2 lay a model out: on one card, or layer by layer over several."""

from __future__ import annotations

import math
from dataclasses import replace

from ..errors import UnknownModel
from ..units import GIB, MIB, Size
from . import overhead, transient
from .cache import pages
from .place import Piece, Pile, fill
from .request import Request
from .usage import DeviceUse, HostUse, Outcome

__all__ = ["lay_out"]

# exllamav3 1.6.5: reserve_per_device where nothing is said (model/model.py), and what must stay physically free beyond
# the largest transient (EXL3_AUTOSPLIT_MARGIN_MB, model/model_ls.py).
V3_RESERVE = Size(512 * MIB)
V3_MARGIN = Size(256 * MIB)

# exllamav2 0.3.2, model.py: the reserve on the first card and on the others, and a block held while a card is filled.
V2_RESERVE = (Size(192 * MIB), Size(64 * MIB))
V2_MARGIN = Size(256 * MIB)

# TabbyAPI's autosplit_reserve: 96 MB on the first card, the engine's own on the others.
TABBY_RESERVE = Size(96 * MIB)

# exllamav2 falls back to reading an unknown architecture as Llama; those it really knows, of the ones covered here.
V2_ARCHITECTURES = {
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
}


def lay_out(request: Request) -> Outcome:
    """Where everything lies. "auto" takes the fastest single card that holds it all, else the loader's own order.

    Raises UnknownModel for an architecture the engine does not load.
    """
    _refuse_unknown(request)
    tokens, pieces = _tokens(request), _pieces(request)
    if request.split != "layers":
        outcome = _single(request, pieces)
        if request.split == "single" or outcome.fits or len(request.gpus) == 1:
            return replace(outcome, host=_host(request), cache_tokens=tokens)
    return replace(_layers(request, pieces), host=_host(request), cache_tokens=tokens)


def _is_v2(request: Request) -> bool:
    return request.spec.format == "exl2"


def _refuse_unknown(request: Request) -> None:
    architecture = request.spec.geometry.architecture
    known = V2_ARCHITECTURES if _is_v2(request) else transient.INTERMEDIATE_BYTES
    if architecture not in known:
        raise UnknownModel(f"{'exllamav2' if _is_v2(request) else 'exllamav3'} does not load {architecture!r}")


def _host(request: Request) -> HostUse:
    return HostUse(weights=request.weights.embedding, available=request.ram)


def _tokens(request: Request) -> int:
    """The cache: one pool for all slots, and behind a server one chunk beyond the context."""
    return pages(request.context + (request.chunk if request.engine == "tabby" else 0))


def _rows(request: Request) -> int:
    return min(request.chunk, _tokens(request))


def _pieces(request: Request) -> list[Piece]:
    geometry, rate, rows, tokens = request.spec.geometry, request.rate, _rows(request), _tokens(request)
    quantised = request.spec.format == "exl3"
    pieces: list[Piece] = []
    scratch = transient.exllamav2(geometry, rows, rate, tokens) if _is_v2(request) else Size(0)
    for layer, loaded in zip(geometry.layers, request.weights.layers, strict=True):
        cache = rate.nbytes(layer.attention.kv_width, tokens)
        if _is_v2(request):
            pieces += [Piece(loaded.attention, cache, scratch, 1), Piece(loaded.mlp, transient=scratch)]
        else:
            peak = transient.exllamav3_layer(geometry, layer, rows, rate, quantised)
            pieces.append(Piece(loaded.total, cache, peak, 1))
    last = scratch if _is_v2(request) else transient.exllamav3_head(geometry, rows)
    return [*pieces, Piece(request.weights.norm, transient=last), Piece(request.weights.head, transient=last)]


def _device(request: Request, index: int, pile: Pile, reserve: Size, allowed: Size | None = None) -> DeviceUse:
    gpu, geometry = request.gpus[index], request.spec.geometry
    if pile.total == 0:
        return DeviceUse(gpu)
    if _is_v2(request):
        extra = overhead.exllamav2(gpu, geometry, _rows(request))
    else:
        extra = overhead.exllamav3(gpu, geometry, request.spec.format == "exl3")
    return DeviceUse(
        gpu,
        weights=pile.weights,
        cache=pile.cache,
        transient=pile.transient,
        overhead_range=extra,
        reserve=reserve,
        allowed=allowed,
        layers=pile.layers,
    )


def _single(request: Request, pieces: list[Piece]) -> Outcome:
    """Everything on one card: of those that hold it the fastest, else the one with the most room."""
    whole = fill(pieces, [0])[0]
    alone = [_device(request, i, whole, request.reserved(i) or Size(0)) for i in range(len(request.gpus))]
    fitting = [i for i, use in enumerate(alone) if use.fits]
    if fitting:
        best = max(fitting, key=lambda i: (request.gpus[i].bandwidth or 0.0, -i))
    else:
        best = max(range(len(alone)), key=lambda i: alone[i].left - alone[i].reserve)
    devices = [use if i == best else DeviceUse(request.gpus[i]) for i, use in enumerate(alone)]
    return Outcome("single", tuple(devices), HostUse(), 0, _to_paste(request, devices))


def _layers(request: Request, pieces: list[Piece]) -> Outcome:
    """The loader's autosplit, or its manual split. Overheads are taken at their high end."""
    reserves = [_kept(request, index) for index in range(len(request.gpus))]
    # One piece stands for any: overhead does not depend on what lies there, only on the card being used at all.
    extras = [_device(request, i, Pile(weights=Size(1)), Size(0)).overhead for i in range(len(request.gpus))]
    rooms = [gpu.free - extra - kept for gpu, extra, kept in zip(request.gpus, extras, reserves, strict=True)]
    allowed: list[Size | None] = [None] * len(rooms)
    active = list(range(len(rooms)))
    if request.gpu_split is not None:
        active = [index for index, size in enumerate(request.gpu_split) if size > 0]
        for index in active:
            allowed[index] = request.gpu_split[index]
            rooms[index] = min(rooms[index], request.gpu_split[index])
    piles = dict(zip(active, fill(pieces, [rooms[i] for i in active]), strict=True))
    devices = [_device(request, i, piles.get(i, Pile()), reserves[i], allowed[i]) for i in range(len(rooms))]
    return Outcome("layers", tuple(devices), HostUse(), 0, _to_paste(request, devices))


def _kept(request: Request, index: int) -> Size:
    """What the loader leaves free on one card besides the transient."""
    asked = request.reserved(index)
    tabby = request.engine == "tabby"
    if _is_v2(request):
        default = (TABBY_RESERVE if index == 0 else Size(0)) if tabby else V2_RESERVE[min(index, 1)]
        return Size((default if asked is None else asked) + V2_MARGIN)
    if request.gpu_split is not None:
        return V3_MARGIN
    default = TABBY_RESERVE if tabby and index == 0 else V3_RESERVE
    return max(V3_MARGIN, default if asked is None else asked)


def _to_paste(request: Request, devices: list[DeviceUse]) -> tuple[float, ...] | None:
    """gpu_split that makes the loader do this again: what lies on a card, its transient and one slab, in GiB."""
    if _is_v2(request):
        return None  # its manual split counts other things (weights and scratch, not the cache)
    return tuple(math.ceil((use.loaded + overhead.SLAB) / GIB * 100) / 100 if use.used else 0.0 for use in devices)

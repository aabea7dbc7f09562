"""How ExLlamaV3 and ExLlamaV2 lay a model out: on one card, or layer by layer over several."""

from __future__ import annotations

import math
from dataclasses import replace

from ..errors import ConfigError, UnknownModel
from ..models.architectures import KNOWN_TO_EXLLAMAV3
from ..units import GIB, MIB, Size
from . import exl2_parallel, overhead, parallel, transient
from .cache import cache_bytes, pages
from .device_map import device_map
from .place import Piece, Pile, fill
from .request import Request
from .speed import speed
from .state import state_bytes
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
    """Where everything lies. "auto" takes the fastest single card that holds it all, else the faster split that fits.

    Raises UnknownModel for an architecture the engine does not load, ConfigError for one it cannot split as asked.
    """
    _refuse_unknown(request)
    if request.split == "tensor":
        return _tensor(request)
    tokens, pieces = _tokens(request), _pieces(request)
    if request.split != "layers":
        outcome = _single(request, pieces)
        if request.split == "single" or outcome.fits or len(request.gpus) == 1:
            return replace(outcome, host=_host(request), cache_tokens=tokens)
    layers = replace(_layers(request, pieces), host=_host(request), cache_tokens=tokens)
    return layers if request.split == "layers" else _faster(request, layers)


def _tensor(request: Request) -> Outcome:
    if _is_v2(request):
        return exl2_parallel.lay_out(request, tokens=_tokens(request), rows=_rows(request))
    history = request.drafter.tokens if request.drafter else 0
    kept = [_reserve(request, index) for index in range(len(request.gpus))]
    return parallel.lay_out(request, tokens=_tokens(request), rows=_rows(request), kept=kept, history=history)


def _faster(request: Request, layers: Outcome) -> Outcome:
    """The tensor split where the engine does it, it fits, and the layer split does not or is known to be slower.

    Known is what measurements of this engine and these cards say; an assumed efficiency does not change the loader's default.
    """
    if _is_v2(request) or parallel.refusal(request) is not None:
        return layers
    theirs = speed(request, layers)
    if layers.fits and not theirs.judged:
        return layers  # before the recurrence of a tensor split, which takes ten times as long as all the rest
    try:
        tensor = _tensor(request)
    except ConfigError:  # the reserves leave nothing to split over, and the layer split says by how much
        return layers
    if not tensor.fits or not layers.fits:
        return tensor if tensor.fits else layers
    ours = speed(request, tensor)
    if not (ours.judged and ours.decode_tps and theirs.decode_tps):
        return layers
    return tensor if ours.decode_tps[1] > theirs.decode_tps[1] else layers


def _is_v2(request: Request) -> bool:
    return request.spec.format == "exl2"


def _refuse_unknown(request: Request) -> None:
    architecture = request.spec.geometry.architecture
    known = V2_ARCHITECTURES if _is_v2(request) else KNOWN_TO_EXLLAMAV3
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
    pieces = [Piece(request.weights.vision)] if request.weights.vision else []
    scratch = transient.exllamav2(geometry, rows, rate, tokens) if _is_v2(request) else Size(0)
    for layer, loaded in zip(geometry.layers, request.weights.layers, strict=True):
        cache = cache_bytes(layer.attention, rate, tokens)
        if _is_v2(request):
            pieces += [Piece(loaded.attention, cache, scratch, 1), Piece(loaded.mlp, transient=scratch)]
        else:
            peak = transient.exllamav3_layer(geometry, layer, rows, rate, quantised)
            state = state_bytes(layer.attention, request.slots, request.drafter.tokens if request.drafter else 0)
            pieces.append(Piece(Size(loaded.total + loaded.copies), cache, peak, 1, state))
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
        state=pile.state,
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
    if _is_v2(request) and request.gpu_split is not None:
        return _mapped(request, pieces, request.gpu_split)
    reserves = [_kept(request, index) for index in range(len(request.gpus))]
    # One piece stands for any: overhead does not depend on what lies there, only on the card being used at all.
    empty = [replace(_device(request, i, Pile(weights=Size(1)), kept), weights=Size(0)) for i, kept in enumerate(reserves)]
    rooms = [int(use.left - use.reserve) for use in empty]
    allowed: list[Size | None] = [None] * len(rooms)
    active = list(range(len(rooms)))
    if request.gpu_split is not None:
        active = [index for index, size in enumerate(request.gpu_split) if size > 0]
        for index in active:
            allowed[index] = request.gpu_split[index]
            rooms[index] = min(rooms[index], request.gpu_split[index])
    piles = dict(zip(active, fill(pieces, [rooms[i] for i in active]), strict=True))
    devices = [_device(request, i, piles.get(i, Pile()), reserves[i], allowed[i]) for i in range(len(rooms))]
    if _is_v2(request):
        devices = _touched(devices, rooms, empty)
    return Outcome("layers", tuple(devices), HostUse(), 0, _to_paste(request, devices))


def _touched(devices: list[DeviceUse], rooms: list[int], empty: list[DeviceUse]) -> list[DeviceUse]:
    """ExLlamaV2 allocates its reserve on every card it comes to, and ends where that fails instead of going on to the next."""
    last = max(index for index, use in enumerate(devices) if use.used)
    return [empty[index] if index < last and not use.used and rooms[index] < 0 else use for index, use in enumerate(devices)]


def _mapped(request: Request, pieces: list[Piece], split: tuple[Size, ...]) -> Outcome:
    """ExLlamaV2's manual split: where it puts the modules by its own count, and what they and the cache take there."""
    rows, tokens = _rows(request), _tokens(request)
    cards, enough = device_map(request.spec.geometry, request.weights, split, rows=rows, tokens=tokens)
    piles = [Pile() for _ in request.gpus]
    for piece, card in zip(pieces, cards, strict=True):
        piles[card] = piles[card].plus(piece)
    # The cache is not in its count, so only a card it found too small is held to what it was granted.
    allowed = [None if enough or index != len(split) - 1 else split[index] for index in range(len(piles))]
    devices = [_device(request, index, pile, Size(0), allowed[index]) for index, pile in enumerate(piles)]
    return Outcome("layers", tuple(devices), HostUse(), 0, tuple(size.gib for size in split))


def _kept(request: Request, index: int) -> Size:
    """What the loader leaves free on one card besides the transient."""
    asked = request.reserved(index)
    tabby = request.engine == "tabby"
    if _is_v2(request):
        default = (TABBY_RESERVE if index == 0 else Size(0)) if tabby else V2_RESERVE[min(index, 1)]
        return Size((default if asked is None else asked) + V2_MARGIN)
    return V3_MARGIN if request.gpu_split is not None else max(V3_MARGIN, _reserve(request, index))


def _reserve(request: Request, index: int) -> Size:
    """exllamav3's reserve_per_device on one card."""
    asked = request.reserved(index)
    default = TABBY_RESERVE if request.engine == "tabby" and index == 0 else V3_RESERVE
    return default if asked is None else asked


def _to_paste(request: Request, devices: list[DeviceUse]) -> tuple[float, ...] | None:
    """gpu_split that makes the loader do this again: what lies on a card, its transient and one slab, in GiB."""
    if _is_v2(request):
        return None  # its manual split counts other things (weights and scratch, not the cache)
    return tuple(math.ceil((use.loaded + overhead.SLAB) / GIB * 100) / 100 if use.used else 0.0 for use in devices)

"""Where a draft lies and what it takes: the main model's own loader, with less room on one card.

Sources: exllamav3 1.6.5 generator.py (the draft's cache is as long as the main one), TabbyAPI (a draft is loaded before the
main model, never tensor parallel), llama.cpp's draft context (f16 cache unless told otherwise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..hardware.gpu import Gpu
from ..units import MIB, Size
from .cache import CacheRate, cache_bytes, pages, rate_of
from .drafter import Drafter
from .request import Request
from .usage import ZERO, DeviceUse, Outcome

__all__ = ["draft_rate", "lay_out"]

LayOut = Callable[[Request], Outcome]

# llama.cpp's MTP context beside its cache and mask: 85 to 139 MiB were left of six published pairs (docs/accuracy_measured.md).
MTP_GRAPH = Size(100 * MIB)

# llama.cpp's default n_ubatch: rows of the attention mask.
MICRO_BATCH = 512


def lay_out(request: Request, main: LayOut) -> Outcome:
    """The outcome of `main` with the draft on the cards.

    A draft lies on the first card with room, where one card holds everything on that one.
    """
    drafter = request.drafter
    if drafter is None or not drafter.takes_room:
        return main(request)
    own = _own_use(request, drafter, main)
    taken = _kept(request, own)
    if request.split in ("auto", "single"):
        outcome = main(replace(request, gpus=tuple(_less(gpu, taken) for gpu in request.gpus)))
        if outcome.split == "single":
            where = next((index for index, use in enumerate(outcome.devices) if use.used), 0)
            return _joined(request, outcome, own, where)
    where = next((index for index, gpu in enumerate(request.gpus) if own.needed <= gpu.free), 0)
    shadow = tuple(_less(gpu, taken) if index == where else gpu for index, gpu in enumerate(request.gpus))
    return _joined(request, main(replace(request, gpus=shadow)), own, where)


def _own_use(request: Request, drafter: Drafter, main: LayOut) -> DeviceUse:
    """The draft alone on the first card: its bytes are the same on every one."""
    if drafter.spec is None or drafter.weights is None:
        return _mtp_use(request, drafter)
    own = replace(
        request,
        spec=drafter.spec,
        weights=drafter.weights,
        drafter=None,
        gpus=request.gpus[:1],
        split="single",
        gpu_split=None,
        reserve=None,
        rate=draft_rate(request),
    )
    return main(own).devices[0]


def draft_rate(request: Request) -> CacheRate:
    """ExLlama's draft cache as the main one; llama.cpp's is f16 unless told otherwise."""
    return rate_of("f16", "gguf") if request.spec.format == "gguf" else request.rate


def _mtp_use(request: Request, drafter: Drafter) -> DeviceUse:
    """The head's weights and the cache of its layers, whose attention is the main model's last."""
    context = pages(request.context + (request.chunk if request.engine == "tabby" else 0))
    llamacpp = request.spec.format == "gguf"
    mixer = next(
        layer.attention for layer in reversed(request.spec.geometry.layers) if layer.attention and layer.attention.kv_width
    )
    cache = cache_bytes(mixer, draft_rate(request), context * (request.slots if llamacpp else 1))
    graph = Size(MTP_GRAPH + 2 * MICRO_BATCH * context) if llamacpp else ZERO
    return DeviceUse(request.gpus[0], weights=drafter.mtp, cache=Size(drafter.layers * cache), transient=graph)


def _kept(request: Request, own: DeviceUse) -> Size:
    """What the draft holds for good: ExLlamaV3's passes share one pool, the scratch of the other engines is each model's own."""
    return Size(own.loaded - own.transient) if request.spec.format in ("exl3", "hf") else own.loaded


def _less(gpu: Gpu, taken: int) -> Gpu:
    """The card with that much less free."""
    return Gpu(
        gpu.name,
        memory=gpu.memory,
        free=Size(max(0, gpu.free - taken)),
        bandwidth=gpu.bandwidth,
        capability=gpu.capability,
        overhead=gpu.overhead,
        processes=gpu.processes,
        index=gpu.index,
        uuid=gpu.uuid,
    )


def _joined(request: Request, outcome: Outcome, own: DeviceUse, where: int) -> Outcome:
    """The main model's outcome on the real cards, with the draft's bytes on one of them."""
    devices = [replace(use, gpu=gpu) for use, gpu in zip(outcome.devices, request.gpus, strict=True)]
    use, kept = devices[where], _kept(request, own)
    devices[where] = replace(
        use,
        draft=kept,
        transient=max(use.transient, Size(own.loaded - kept)),
        overhead_range=use.overhead_range if use.used else own.overhead_range,
    )
    words = request.drafter.weights.embedding if request.drafter and request.drafter.weights else ZERO
    host = replace(outcome.host, weights=Size(outcome.host.weights + words))
    return replace(outcome, devices=tuple(devices), host=host)

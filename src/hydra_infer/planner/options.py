"""A plan as the arguments of the engine that runs it, so that it loads what was counted.

Names: exllamav3 1.6.5 (model/model.py load_gen, cache/cache.py and cache/quant.py), exllamav2 0.3.2 (model.py
load_autosplit_gen and cache.py), llama.cpp (common/common.h, whose command line says the same with dashes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import Plan

__all__ = ["engine_options"]

# What exllamav2 0.3.2, model.py, itself grants to a card that is to take everything, in GiB.
WHOLE_CARD = 99999.0


def engine_options(plan: Plan) -> dict[str, Any]:
    """Arguments by the engine's own names: of its cache (`cache`) and its loader (`load`); llama.cpp has one set."""
    form = plan.request.spec.format
    return _llamacpp(plan) if form == "gguf" else _exllamav2(plan) if form == "exl2" else _exllamav3(plan)


def _exllamav3(plan: Plan) -> dict[str, Any]:
    """`k_bits` and `v_bits` belong to CacheLayer_quant; without them it is CacheLayer_fp16. Sizes are GiB.

    What was not asked for is left to the loader's defaults, which are what was counted.
    """
    request = plan.request
    cache: dict[str, Any] = {"max_num_tokens": plan.cache_tokens, "max_batch_size": request.slots}
    if not request.rate.plain:
        cache |= {"k_bits": int(request.rate.k_bits), "v_bits": int(request.rate.v_bits)}
    load: dict[str, Any] = {"max_chunk_size": request.chunk}
    if plan.split == "tensor":
        load["tensor_p"] = True
    if plan.split == "single":
        load["device"] = f"cuda:{_only(plan)}"
    elif request.gpu_split is not None:
        load["use_per_device"] = [size.gib for size in request.gpu_split]
    elif request.reserve is not None:
        load["reserve_per_device"] = [size.gib for size in request.reserve]
    return {"cache": cache, "load": load}


def _exllamav2(plan: Plan) -> dict[str, Any]:
    """`class` is the cache's. `gpu_split` is GiB by card, `reserve_vram` bytes; a `lazy` cache is made before the weights.

    One card, or a split by hand, is load(gpu_split=…), and layers by room load_autosplit(reserve_vram=…); tensor parallel has
    a loader of its own (load_tp), and its cache, ExLlamaV2Cache_TP of that class, is made afterwards.
    """
    request = plan.request
    names = {"fp16": "ExLlamaV2Cache", "fp8": "ExLlamaV2Cache_8bit"}
    kind = names.get(request.rate.name, f"ExLlamaV2Cache_{request.rate.name.upper()}")
    if plan.split == "tensor":
        load: dict[str, Any] = {"expect_cache_tokens": plan.cache_tokens, "expect_cache_base": kind}
        load |= {} if plan.gpu_split is None else {"gpu_split": plan.gpu_split}
        return {"cache": {"class": "ExLlamaV2Cache_TP", "base": kind, "max_seq_len": plan.cache_tokens}, "load": load}
    cache = {"class": kind, "max_seq_len": plan.cache_tokens}
    if plan.split == "single":
        return {"cache": cache, "load": {"gpu_split": [0.0] * _only(plan) + [WHOLE_CARD]}}
    if request.gpu_split is not None:
        return {"cache": cache, "load": {"gpu_split": [size.gib for size in request.gpu_split]}}
    asked = request.reserve
    return {"cache": cache | {"lazy": True}, "load": {} if asked is None else {"reserve_vram": [int(size) for size in asked]}}


def _llamacpp(plan: Plan) -> dict[str, Any]:
    request, used = plan.request, [use for use in plan.devices if use.used]
    k_type, _, v_type = request.rate.name.partition(",")
    found = {
        "n_ctx": plan.cache_tokens,
        "n_parallel": request.slots,
        "n_batch": request.chunk,
        "cache_type_k": k_type,
        "cache_type_v": v_type or k_type,
        "n_gpu_layers": sum(use.layers for use in used) + bool(used),
    }
    if plan.split == "single":
        found |= {"split_mode": "none", "main_gpu": _only(plan)}
    elif plan.split == "layers":
        found |= {"split_mode": "layer", "tensor_split": plan.gpu_split}
    return found


def _only(plan: Plan) -> int:
    return next(index for index, use in enumerate(plan.devices) if use.used)

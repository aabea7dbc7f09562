"""A plan as TabbyAPI's config.yml: the keys that make it load exactly what was counted, and no others.

Keys and their meaning: TabbyAPI e632af4 (August 2026), config_sample.yml and common/config_models.py. Sizes of gpu_split are
GiB, those of autosplit_reserve MiB. A key it does not know it drops without a word, so none is invented here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DoesNotFit
from ..units import MIB
from .cache import CacheRate
from .verdict import verdict

if TYPE_CHECKING:
    from .drafter import Drafter
    from .report import Plan
    from .request import Request

__all__ = ["tabby_config", "tabby_load"]

# The caches a draft can have; the main model may have any "k,v" bits.
_DRAFT_MODES = ("fp16", "q8", "q6", "q4")


def tabby_config(plan: Plan) -> str:
    """The YAML text, with the cards in comments. TabbyAPI needs one chunk of cache beyond the context: it is counted first.

    Raises ConfigError for GGUF, which TabbyAPI does not load, and DoesNotFit where the plan, with that chunk, does not fit.
    """
    request = plan.request
    if request.spec.format == "gguf":
        raise ConfigError(f"{request.spec.path} is gguf, which TabbyAPI does not load", hint="llama.cpp's server does")
    served = plan if request.engine == "tabby" else plan.replan(engine="tabby")
    if plan.fits and not served.fits:
        raise DoesNotFit(
            f"{request.spec.name} fits, but not with the chunk of {request.chunk} tokens that TabbyAPI's cache needs beyond the "
            f"context: {verdict(served)}",
            hint=f"context={served.max_context} or a smaller chunk",
            plan=served,
        )
    served.raise_if_unfit()
    lines = [*_head(served), *_block("model", _model(served))]
    if request.drafter is not None:
        lines += _block("draft_model", _draft(request, request.drafter))
    return "\n".join(lines) + "\n"


def tabby_load(plan: Plan) -> dict[str, Any]:
    """The settings that POST /v1/model/load takes of a plan made with engine="tabby". Raises DoesNotFit where it does not fit."""
    chosen = _model(plan.raise_if_unfit())
    return {key: value for key, value in chosen.items() if key not in ("model_dir", "model_name", "max_batch_size")}


def _block(name: str, values: dict[str, Any]) -> list[str]:
    return [f"{name}:", *(f"  {key}: {_yaml(value)}" for key, value in values.items())]


def _draft(request: Request, drafter: Drafter) -> dict[str, Any]:
    """The draft's cache was counted at the main model's rate, and here there are words for the even ones only."""
    found: dict[str, Any] = {"draft_mode": drafter.kind, "draft_num_tokens": drafter.tokens}
    if drafter.kind == "ngram":
        return found
    if request.rate.name not in _DRAFT_MODES:
        raise ConfigError(
            f"cache={request.rate.name!r}: TabbyAPI has no such cache for a draft", hint=f"one of {', '.join(_DRAFT_MODES)}"
        )
    if drafter.spec is not None:
        folder = _folder(drafter.spec.path)
        found |= {"draft_model_dir": str(folder.parent), "draft_model_name": folder.name}
    return found | {"draft_cache_mode": request.rate.name.upper()}


def _folder(path: Path) -> Path:
    """The model's folder. A configuration alone has none: one of another name than config.json is named for its model."""
    if path.suffix != ".json":
        return path
    return path.parent if path.name == "config.json" else path.with_suffix("")


def _head(plan: Plan) -> Iterator[str]:
    request = plan.request
    yield f"# {request.spec.name}: planned by hydra_infer for these cards, in PCI order. Start TabbyAPI with"
    yield "#   CUDA_DEVICE_ORDER=PCI_BUS_ID"
    yield "# in its environment, or the numbers below may reach the wrong cards."
    for number, use in enumerate(plan.devices):
        share = f"{use.needed} of {use.free}, {use.left} left" if use.used else "not used"
        yield f"#   {number}: {use.gpu.name}: {share}"
    yield f"# system RAM: {plan.host}. The longest prompt is {plan.longest_prompt} tokens."
    if request.spec.format == "exl2":
        yield "# TabbyAPI dropped ExLlamaV2 in July 2026: EXL2 needs its branch exl2-checkpoint."


def _model(plan: Plan) -> dict[str, Any]:
    request = plan.request
    folder = _folder(request.spec.path)
    values: dict[str, Any] = {
        "model_dir": str(folder.parent),
        "model_name": folder.name,
        "max_seq_len": request.context,
        "cache_size": plan.cache_tokens,
        "cache_mode": _mode(request.rate, request.spec.format),
        "chunk_size": request.chunk,
    }
    # 1 would make TabbyAPI answer one request after the other; where every slot costs state it must be what was counted.
    if request.slots > 1 or any(use.state for use in plan.devices):
        values["max_batch_size"] = request.slots
    return values | _split(plan)


def _mode(rate: CacheRate, form: str) -> str:
    if form == "exl2" or rate.plain:
        return rate.name.upper()
    return rate.name if "," in rate.name else f"{rate.name[1:]},{rate.name[1:]}"


def _split(plan: Plan) -> dict[str, Any]:
    """Which cards, and how much of each. With a single card TabbyAPI has nothing to split."""
    request, tensor = plan.request, plan.split == "tensor"
    if len(request.gpus) == 1:
        return {}
    found: dict[str, Any] = {"tensor_parallel": True, "tensor_parallel_backend": "native"} if tensor else {}
    if request.gpu_split is not None:
        return found | {"gpu_split_auto": False, "gpu_split": [round(share.gib, 4) for share in request.gpu_split]}
    if plan.split == "single":
        return found | _alone(plan)
    # Tensor parallelism splits by itself. The reserve left out, TabbyAPI's default counts: 96 MB on the first card.
    return found | ({} if tensor else {"gpu_split_auto": True}) | _reserve(request)


def _alone(plan: Plan) -> dict[str, Any]:
    """One card of several. ExLlamaV2's shares mean something else; its autosplit takes the first card first."""
    if plan.gpu_split is not None:
        return {"gpu_split_auto": False, "gpu_split": plan.gpu_split}
    if not plan.devices[0].used:
        only = next(use.gpu.name for use in plan.devices if use.used)
        raise ConfigError(
            f"TabbyAPI fills {plan.devices[0].gpu.name} first, and this plan wants {only} alone",
            hint="plan with gpus= that card only, and start TabbyAPI with CUDA_VISIBLE_DEVICES",
        )
    return {"gpu_split_auto": True} | _reserve(plan.request)


def _reserve(request: Request) -> dict[str, Any]:
    return {} if request.reserve is None else {"autosplit_reserve": [round(size / MIB) for size in request.reserve]}


def _yaml(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are YAML's as well.
    return json.dumps(value, ensure_ascii=False)

"""V2 models: what exllamav2 loads for a plan (the model, its cache, a draft model), and how it is freed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, IncompatibleDraft, LoadError
from ...planner.options import WHOLE_CARD
from ...units import MIB
from . import signature
from .advance import Told, draft_share, part
from .cuda import per_device

if TYPE_CHECKING:
    from pathlib import Path

    from ...planner.report import Plan
    from ..progress import Report
    from .seam import Extras

__all__ = ["Models", "Shape", "load"]

PAGE = 256  # tokens, exllamav2 0.3.2 generator/dynamic.py

# Rows that one request may have in a pass, where drafts ask for no more (generator/dynamic.py, max_q_size).
ROWS = 8

# model.py load_autosplit_gen: bytes kept free on a card beyond the first where nothing is said.
RESERVE = 64 * MIB


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a pass: `chunk` rows of a prompt at once, `rows` of one request and `outputs` of all in decoding."""

    chunk: int
    rows: int
    outputs: int

    @classmethod
    def of(cls, plan: Plan) -> Shape:
        """Raises ConfigError where a chunk has no room for all slots, which share its buffers (generator/dynamic.py)."""
        slots, drafter = plan.request.slots, plan.request.drafter
        chunk = max(PAGE, min(plan.request.chunk, plan.cache_tokens) // PAGE * PAGE)
        # The tokens drafted and the one before them; the generator itself forgets to count that one.
        rows = max(ROWS, 1 + (drafter.tokens if drafter else 0))
        if slots * rows > chunk:
            raise ConfigError(
                f"slots={slots}: exllamav2 decodes {slots} x {rows} rows in the buffers of one chunk, which has {chunk}",
                hint=f"chunk={-(-slots * rows // PAGE) * PAGE}, or fewer slots",
            )
        return cls(chunk, rows, slots * rows)


@dataclass(frozen=True, slots=True)
class Models:
    """`draft` and its cache are None unless a model drafts. `paged`: requests share the cache by pages."""

    model: Any
    cache: Any
    tokenizer: Any
    draft: Any
    draft_cache: Any
    paged: bool


def load(plan: Plan, extras: Extras, shape: Shape, report: Report, undo: ExitStack) -> Models:
    """Load everything; `undo` frees what was loaded, also when this raises in the middle.

    The draft comes first: the main model's loader measures what is left.
    """
    import exllamav2

    spec, drafter, cache = plan.request.spec, plan.request.drafter, plan.engine_options()["cache"]
    _refuse(plan, extras, cache["class"])
    undo.callback(_release)
    config, draft_config = _config(spec.path, plan, shape), None
    if drafter is not None and drafter.spec is not None:
        draft_config = _config(drafter.spec.path, plan, shape)
    paged = _paged(plan, [one for one in (config, draft_config) if one is not None])
    tokenizer = signature.call(exllamav2.ExLlamaV2Tokenizer, config=config)
    draft = draft_cache = None
    share = draft_share(plan)
    if draft_config is not None:
        draft = _model(draft_config, undo)
        where = next(number for number, use in zip(extras.ordinals, plan.devices, strict=True) if use.draft)
        told = part(report, 0.0, share, f"loading the draft of {spec.name}")
        kind = getattr(exllamav2, cache.get("base", cache["class"]))
        draft_cache = _by_hand(draft, kind, plan.cache_tokens, [0.0] * where + [WHOLE_CARD], told)
    model = _model(config, undo)
    main_cache = _main(model, plan, extras, part(report, share, 1.0, f"loading {spec.name}"))
    return Models(model, main_cache, tokenizer, draft, draft_cache, paged)


def _refuse(plan: Plan, extras: Extras, cache: str) -> None:
    """What exllamav2 lacks, or lacks here, by the name of load()'s argument."""
    drafter = plan.request.drafter
    if extras.vision:
        raise ConfigError(
            "vision=True: pictures are not read by exllamav2 here", hint="an EXL3 folder of the model, by exllamav3"
        )
    if extras.backend != "native":
        raise ConfigError(f"backend={extras.backend!r}: exllamav2 has one tensor parallel, its own", hint="leave backend= out")
    if extras.dynamic_draft:
        raise ConfigError("exllamav2 cannot shorten its drafts as it goes", hint="draft_tokens= says how long they are")
    if drafter is not None and drafter.kind == "mtp":
        raise IncompatibleDraft("exllamav2 has no MTP heads", hint="draft='ngram', or a folder of a small model")
    if cache == "ExLlamaV2Cache_8bit":
        raise ConfigError("cache='fp8': exllamav2's batching generator does not take it", hint="cache='q8' is as small")
    if plan.split == "layers" and plan.request.gpu_split is None and extras.ordinals != tuple(range(len(extras.ordinals))):
        cards = ", ".join(f"cuda:{number}" for number in extras.ordinals)
        raise LoadError(
            f"exllamav2 fills CUDA's cards in order from cuda:0, and the plan has {cards}",
            hint="gpu_split= places layers by hand, CUDA_VISIBLE_DEVICES= hides the other cards",
        )


def _config(folder: Path, plan: Plan, shape: Shape) -> Any:
    import exllamav2

    config = signature.call(exllamav2.ExLlamaV2Config, model_dir=str(folder))
    config.max_seq_len, config.max_output_len = plan.cache_tokens, shape.outputs
    config.max_input_len, config.max_attention_size = shape.chunk, shape.chunk**2
    signature.call(config.arch_compat_overrides, quiet=True)
    return config


def _paged(plan: Plan, configs: list[Any]) -> bool:
    """Whether requests can share the cache, which paged attention does. Raises LoadError where the plan needs that."""
    from exllamav2 import attn

    eager = [config.architecture for config in configs if config.no_flash_attn]
    if attn.has_flash_attn_with_paged and not eager:
        return True
    wanted = "split='tensor'" if plan.split == "tensor" else f"slots={plan.request.slots}" if plan.request.slots > 1 else None
    if wanted is None:
        return False
    if attn.has_flash_attn_with_paged:
        raise LoadError(
            f"{wanted} needs flash-attn, with which exllamav2 does not run {eager[0]}", hint="slots=1 and split='layers' work"
        )
    raise LoadError(
        f"{wanted}: exllamav2 does that only with flash-attn 2.5.7 or later, which is not installed",
        hint="pip install flash-attn --no-build-isolation; without it slots=1 and split='layers' work",
    )


def _model(config: Any, undo: ExitStack) -> Any:
    import exllamav2

    model = exllamav2.ExLlamaV2(config)
    undo.callback(model.unload)
    return model


def _main(model: Any, plan: Plan, extras: Extras, told: Told) -> Any:
    """Load the main model as the plan says; returns its cache. The loader decides whether that is made before or after."""
    import exllamav2
    import torch

    options, count = plan.engine_options(), torch.cuda.device_count()
    cache, split = options["cache"], options["load"]
    tokens, kind = cache["max_seq_len"], getattr(exllamav2, cache["class"])
    if plan.split == "tensor":
        base = getattr(exllamav2, cache["base"])
        shares = split.get("gpu_split") or [int(use.free - use.draft) // MIB / 1024 for use in plan.devices]
        split |= {"gpu_split": _spread(shares, extras, count), "expect_cache_base": base}
        signature.call(model.load_tp, callback=told, **split)
        return signature.call(kind, model=model, base=base, max_seq_len=tokens)
    if "gpu_split" in split:
        return _by_hand(model, kind, tokens, _spread(split["gpu_split"], extras, count), told)
    lazy = signature.call(kind, model=model, max_seq_len=tokens, lazy=cache["lazy"])
    if "reserve_vram" in split:
        split["reserve_vram"] = per_device(split["reserve_vram"], extras.ordinals, count, RESERVE)
    signature.call(model.load_autosplit, cache=lazy, callback=told, **split)
    beyond = {module.device_idx for module in model.modules} - {-1, *extras.ordinals}  # -1: system memory
    if beyond:
        raise LoadError(
            f"exllamav2 found the plan's cards full and went on to cuda:{min(beyond)}, which is not one of them",
            hint="gpus= with that card too, less reserve, or a smaller context",
        )
    return lazy


def _by_hand(model: Any, kind: Any, tokens: int, split: list[float], told: Told) -> Any:
    """Load onto the cards that `split` says; returns the cache, which goes where the layers went."""
    signature.call(model.load, gpu_split=split, callback=told)
    return signature.call(kind, model=model, max_seq_len=tokens)


def _spread(sizes: list[float], extras: Extras, count: int) -> list[float]:
    """GiB for each of CUDA's cards, from those of the plan's first cards."""
    return per_device([*sizes, *[0.0] * (len(extras.ordinals) - len(sizes))], extras.ordinals, count, 0.0)


def _release() -> None:
    """After the models: files that a failed load left open, the sampler's word lists by tokenizer, memory of the cards."""
    import gc

    import torch
    from exllamav2 import stloader
    from exllamav2.generator import ExLlamaV2Sampler

    stloader.cleanup_stfiles()
    ExLlamaV2Sampler.get_dry_default_sequence_breaker_tokens.cache_clear()
    ExLlamaV2Sampler.get_default_xtc_mask_tokens.cache_clear()
    ExLlamaV2Sampler.get_xtc_mask_tensor.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()

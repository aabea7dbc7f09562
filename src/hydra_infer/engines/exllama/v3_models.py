"""V3 models: what exllamav3 loads for a plan (the model, its caches, a drafter, a vision tower), and how it is freed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, IncompatibleDraft, LoadError
from . import signature
from .advance import Told, draft_share, part
from .cuda import per_device
from .v3_pictures import Pictures

if TYPE_CHECKING:
    from ...planner.drafter import Drafter
    from ...planner.report import Plan
    from ..progress import Report
    from .seam import Extras

__all__ = ["Models", "load", "warm_up"]

# exllamav3 1.6.5, model.py load_gen: GiB kept free on each card where nothing is said.
RESERVE = 0.5

# The longest decoding step that warming up tries where nothing is drafted (model.py warmup's own default).
WARM_ROWS = 16


@dataclass(frozen=True, slots=True)
class Models:
    """`drafter` and its cache are None unless a model or an MTP head drafts, `pictures` unless it reads them.

    `draft_tokens` is how many are drafted at most, whoever drafts.
    """

    config: Any
    model: Any
    cache: Any
    tokenizer: Any
    drafter: Any
    draft_cache: Any
    draft_tokens: int
    pictures: Pictures | None


def load(plan: Plan, extras: Extras, report: Report, undo: ExitStack) -> Models:
    """Load everything; `undo` frees what was loaded, also when this raises in the middle.

    Caches come before the weights, whose loader allocates them, and the drafter before the main model, whose loader then
    counts what is left.
    """
    import exllamav3
    from exllamav3.util import memory

    undo.callback(memory.free_mem)
    spec, options = plan.request.spec, plan.engine_options()
    config = exllamav3.Config.from_directory(str(spec.path))
    tokenizer = exllamav3.Tokenizer.from_config(config)
    model = exllamav3.Model.from_config(config)
    drafter = _drafter(plan.request.drafter, config)
    tokens = _draft_tokens(plan.request.drafter, drafter)
    _refuse(plan, extras, config, drafter)
    cache = _cache(model, options["cache"], tokens)
    draft_cache = None if drafter is None else _cache(drafter, options["cache"], tokens)
    split = _split(options["load"], extras, plan.cache_tokens)
    share = draft_share(plan)
    if drafter is not None:
        where = _card(extras, [use.draft for use in plan.devices])
        _load(drafter, {"device": where}, part(report, 0.0, share, f"loading the draft of {spec.name}"), undo)
    pictures = None
    if extras.vision:
        where = _card(extras, [use.weights for use in plan.devices])
        tower = exllamav3.Model.from_config(config, component="vision")
        _load(tower, {"device": where}, part(report, share, share, f"loading the picture encoder of {spec.name}"), undo)
        pictures = Pictures(tower, tokenizer)
        undo.callback(pictures.embedding.cache_clear)
    if drafter is not None and "device" not in split and "tensor_p" not in split:
        split["draft_model"] = drafter  # the split leaves room for the states that it taps
    _load(model, split, part(report, share, 1.0, f"loading {spec.name}"), undo)
    return Models(config, model, cache, tokenizer, drafter, draft_cache, tokens, pictures)


def warm_up(models: Models, *, slots: int, chunk: int, report: Report) -> None:
    """Compile and tune every kernel now, not in the first requests; in tensor parallel no rank then waits for another's.

    Raises LoadError where a pass fails: a request of that shape would fail too.
    """
    failed = signature.call(
        models.model.warmup,
        cache=models.cache,
        max_chunk_size=chunk,
        max_batch_size=slots,
        max_q_len=models.draft_tokens + 1 if models.draft_tokens else WARM_ROWS,
        callback=lambda _done, _all: report(1.0, "warming up"),
    )
    if failed:
        raise LoadError(
            f"exllamav3 loaded the model, but cannot run it: {'; '.join(failed)} failed",
            hint="more reserve or a smaller chunk leaves room to run; warmup=False loads without trying",
        )


def _refuse(plan: Plan, extras: Extras, config: Any, drafter: Any) -> None:
    if extras.vision and "vision" not in config.model_classes:
        raise ConfigError(f"{plan.request.spec.name} sees no pictures: exllamav3 has no vision tower for {config.architecture}")
    if extras.dynamic_draft and drafter is None:
        raise ConfigError("a dynamic draft without a draft model", hint="draft= a folder, or 'mtp'; n-grams adapt by themselves")


def _drafter(drafter: Drafter | None, config: Any) -> Any:
    """The model that drafts, not loaded yet; None where none does."""
    import exllamav3

    if drafter is None or drafter.kind == "ngram":
        return None
    if drafter.kind == "mtp":
        if "mtp" not in config.model_classes:
            raise IncompatibleDraft(f"exllamav3 has no MTP head for {config.architecture}", hint="draft='ngram' needs none")
        return exllamav3.Model.from_config(config, component="mtp")
    if drafter.spec is None:
        raise IncompatibleDraft("the plan's draft has no folder to load it from", hint="plan(draft=folder)")
    return exllamav3.Model.from_config(exllamav3.Config.from_directory(str(drafter.spec.path)))


def _draft_tokens(asked: Drafter | None, drafter: Any) -> int:
    """A drafter that fills a whole block at once (DFlash) drafts as many as its block has."""
    if asked is None:
        return 0
    block = drafter is not None and drafter.caps.get("dflash_draft")
    return int(drafter.caps["default_draft_size"] if block else asked.tokens)


def _cache(model: Any, options: dict[str, Any], history: int) -> Any:
    """A model's cache; `history` lets recurrent layers take back that many drafted tokens."""
    import exllamav3

    bits = {name: options[name] for name in ("k_bits", "v_bits") if name in options}
    plain = {name: options[name] for name in options if name not in bits}
    kind = exllamav3.CacheLayer_quant if bits else exllamav3.CacheLayer_fp16
    signature.check(kind, bits)  # Cache hands them on unseen
    signature.check(exllamav3.Cache, plain)
    return exllamav3.Cache(model, layer_type=kind, max_history=history, **plain, **bits)


def _split(options: dict[str, Any], extras: Extras, cache_tokens: int) -> dict[str, Any]:
    """The plan's loader arguments, spread over CUDA's cards; those that the plan does not have stay empty."""
    import torch

    count = torch.cuda.device_count()
    split = dict(options)
    # The measuring pass asserts that a chunk fits into the cache (cache.py).
    split["max_chunk_size"] = min(split["max_chunk_size"], cache_tokens)
    if split.pop("tensor_p", False):
        split |= {"tensor_p": True, "tp_backend": extras.backend}
    if "device" in split:
        split["device"] = f"cuda:{extras.ordinals[int(split['device'].rpartition(':')[2])]}"
    elif "use_per_device" in split:
        split["use_per_device"] = per_device(split["use_per_device"], extras.ordinals, count, 0.0)
    else:
        kept = split.get("reserve_per_device", [RESERVE] * len(extras.ordinals))
        split["reserve_per_device"] = per_device(kept, extras.ordinals, count, -1.0)
    return split


def _card(extras: Extras, sizes: list[Any]) -> str:
    """The first card of the plan on which something of these sizes lies."""
    return f"cuda:{extras.ordinals[next((index for index, size in enumerate(sizes) if size), 0)]}"


def _load(model: Any, split: dict[str, Any], told: Told, undo: ExitStack) -> None:
    undo.callback(_free, model)
    signature.check(model.load_gen, split)  # load() hands its arguments on to it
    if "device" in split:
        _load_single(model, split, told)
        return
    try:
        model.load(**split, callback=told)
    except BaseException:
        _lift_limits(split)
        raise


def _load_single(model: Any, split: dict[str, Any], told: Told) -> None:
    """The loader onto one device takes no callback, but walks the list of modules."""
    import torch

    modules = model.modules
    model.modules = _Walked(modules, told)
    try:
        model.load(**{**split, "device": torch.device(split["device"])})
    finally:
        model.modules = modules


def _lift_limits(split: dict[str, Any]) -> None:
    """A failed split by layers leaves its limit on this process's memory (model_ls.py lifts it at the end)."""
    from exllamav3.util import memory

    if "use_per_device" in split:
        used = [size > 0 for size in split["use_per_device"]]
    else:
        used = [kept >= 0 for kept in split["reserve_per_device"]]
    memory.unset_memory_fraction([card for card, one in enumerate(used) if one])


def _free(model: Any) -> None:
    """Also what a failed load has left: open files, and workers that unload() does not know of (loaded_tp comes last)."""
    model.config.stc.abort_deferred_load()
    model.unload()
    if model.mp_children:
        model.destroy_tp_context()
    model.config.stc.close()


class _Walked(list[Any]):
    """A model's modules, telling how many a loader has walked past."""

    def __init__(self, modules: list[Any], told: Told) -> None:
        super().__init__(modules)
        self._told = told

    def __iter__(self) -> Iterator[Any]:
        for index, module in enumerate(super().__iter__()):
            self._told(index, len(self))
            yield module

"""plan() and survey(): read the headers, look at the machine, ask the planner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError, HydraError
from .hardware import host, nvml
from .hardware.gpu import Gpu
from .models.bundled import model_file
from .models.folder import read_model
from .models.spec import ModelSpec
from .models.tokenizer import compare
from .planner.drafter import Drafter, model_drafter
from .planner.report import Plan
from .planner.request import Request, cards_of
from .planner.survey import Survey, row_of, row_of_error

__all__ = ["plan", "survey"]


def plan(
    model: str | Path,
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None = None,
    context: int | str = 8192,
    cache: str = "fp16",
    draft: str | Path | None = None,
    draft_tokens: int | None = None,
    split: str = "auto",
    gpu_split: Sequence[float] | None = None,
    reserve: float | Sequence[float] | None = None,
    slots: int = 1,
    chunk: int = 2048,
    bpw: float | None = None,
    format: str | None = None,  # noqa: A002 - the public word
    engine: str | None = None,
) -> Plan:
    """Will this model fit, and how? Nothing is loaded: only file headers are read.

    `model` is a folder (EXL3, EXL2, plain safetensors), a .gguf file, "smollm2" (the bundled small one), or a config.json
    together with `bpw` (bits per weight) and `format` ("exl3", "exl2", "hf", "gguf"). `gpus` are Gpus or names in PCI
    order, one name is one card; left out they are this machine's. `context` is tokens (or "32k"); `cache` is "fp16",
    "q8", "q6", "q4", "8,4" (bits of keys and values) or a cache type of llama.cpp. `draft` is the folder or .gguf file of a
    small model, "mtp" or "ngram". `gpu_split` and `reserve` are GiB per card.

    Raises UnknownModel, UnknownGpu, and ConfigError naming the argument, or the file and field, that is impossible.
    """
    spec = read_model(model_file(model), bpw=bpw, format=format)
    cards = nvml.gpus() if gpus is None else cards_of(gpus)
    # Cards that were named, not found, may be in another machine, whose RAM is not this one's: it is not judged then.
    found_here = all(card.uuid is not None for card in cards)
    return Plan.of(
        Request.of(
            spec,
            gpus=cards,
            ram=host.host_memory().available if found_here else None,
            context=context,
            cache=cache,
            draft=_drafter(spec, draft),
            draft_tokens=draft_tokens,
            split=split,
            gpu_split=gpu_split,
            reserve=reserve,
            slots=slots,
            chunk=chunk,
            engine=engine,
        )
    )


def _drafter(spec: ModelSpec, draft: str | Path | None) -> Drafter | str | None:
    """A draft model's files are read here; the other kinds need none. One that is a config.json alone is taken at the main
    model's rate and format."""
    if draft is None or draft in ("mtp", "ngram"):
        return draft if draft is None else str(draft)
    small = read_model(draft, bpw=spec.bpw, format=spec.format) if _is_config_alone(Path(draft)) else read_model(draft)
    return model_drafter(spec, small, compare(spec, small))


def _is_config_alone(path: Path) -> bool:
    return path.suffix == ".json" or ((path / "config.json").is_file() and not any(path.glob("*.safetensors")))


def survey(
    models: str | Path | Iterable[str | Path],
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None = None,
    contexts: int | str | Iterable[int | str] = (8192,),
    caches: str | Iterable[str] = ("fp16",),
    bpws: float | Iterable[float | None] | None = None,
    **options: Any,
) -> Survey:
    """Which of these models fit, at which rate, with which cache and context: plan() for every combination.

    `bpws` are for a config.json alone, with `format=`; `options` are plan()'s other arguments. What cannot be planned, a
    broken folder or a cache that a format lacks, is a row with its error.
    """
    if "bpw" in options:
        raise ConfigError(f"bpw={options['bpw']!r}: a survey takes several", hint="bpws=[3.0, 4.0]")
    cards = nvml.gpus() if gpus is None else cards_of(gpus)
    lengths, rates, bits = _several(contexts), _several(caches), _several(bpws)
    rows: list[dict[str, Any]] = []
    for model in _several(models):
        for bpw in bits:
            try:
                first = plan(model, gpus=cards, bpw=bpw, **options)
            except HydraError as error:
                rows.append(row_of_error(str(model), error, bpw=bpw))
            else:
                rows += [row for cache in rates for row in _rows(first, cache, lengths)]
    return Survey(tuple(rows))


def _several(values: Any) -> list[Any]:
    """One value is a list of one."""
    return [values] if values is None or isinstance(values, str | Path | int | float) else list(values)


def _rows(first: Plan, cache: str, contexts: Iterable[int | str]) -> Iterator[dict[str, Any]]:
    """One model with one cache at every context."""
    known = {"format": first.request.spec.format, "bpw": first.request.spec.bpw, "cache": cache}
    try:
        base = first.replan(cache=cache)
        longest = base.max_context
    except HydraError as error:
        yield row_of_error(first.request.spec.name, error, **known)
        return
    for context in contexts:
        try:
            yield row_of(base.replan(context=context), longest)
        except HydraError as error:
            yield row_of_error(first.request.spec.name, error, **known)

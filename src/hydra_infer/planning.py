"""plan(): read the headers, look at the machine, ask the planner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .hardware import host, nvml
from .hardware.gpu import Gpu
from .models.bundled import model_file
from .models.folder import read_model
from .planner.report import Plan
from .planner.request import Request, cards_of

__all__ = ["plan"]


def plan(
    model: str | Path,
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None = None,
    context: int | str = 8192,
    cache: str = "fp16",
    draft: str | None = None,
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
    together with `bpw` (bits per weight) and `format` ("exl3", "exl2", "hf", "gguf"). `gpus` are Gpus or names in PCI order, one name is one card;
    left out they are this machine's. `context` is tokens (or "32k"); `cache` is "fp16", "q8", "q6", "q4", "8,4" (bits of
    keys and values) or a cache type of llama.cpp. `gpu_split` and `reserve` are GiB per card.

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
            draft=draft,
            draft_tokens=draft_tokens,
            split=split,
            gpu_split=gpu_split,
            reserve=reserve,
            slots=slots,
            chunk=chunk,
            engine=engine,
        )
    )

"""Parallel: ExLlamaV3's tensor-parallel loader on one card, by the engine's own API.

One rank in this process and its CPU helper beside it run the same code as several would: export, import, plan, collectives.
hydra_infer refuses tensor parallel on one card, where it has no use, so the raw API is used; sizes are those of the plan for
the one card, with the overhead of a parallel split.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra_infer
from hydra_infer.hardware.host import shared_memory
from hydra_infer.planner import overhead, parallel

from . import meter, words
from .memory import ANSWER, compared, whole
from .raw3 import Raw

if TYPE_CHECKING:
    from hydra_infer.planner.report import Plan

__all__ = ["measure"]


def measure(state: Path, *, model: str, context: int, cache: str, slots: int) -> dict[str, Any]:
    """Load, read the longest prompt, compare; the workers must be gone after unloading."""
    shm, needed = shared_memory(), parallel.SHARED_KEPT + parallel.SHARED_LOADING
    if shm is not None and shm < needed:
        raise meter.Lacking(f"/dev/shm has {shm} free, the tensor-parallel loader takes {needed} (docker: --shm-size)")
    before = meter.used()
    folder = words.folder_of(state, model)
    plan = hydra_infer.plan(folder, gpus=[meter.card()], context=context, cache=cache, split="single", slots=slots)
    began = time.perf_counter()
    with Raw(plan, tensor=True) as raw:
        load_s, after_load = time.perf_counter() - began, meter.used() - before
        meter.reset_peak()
        told = raw.run([words.letters(whole(plan), seed=1)], ANSWER)
        torch_bytes, everything = meter.torch_bytes(), meter.used() - before
        decode_tps = raw.run([words.letters(64, seed=2)], 128)["decode_tps"]
    judged = [*_rows(plan, torch_bytes, everything), _helpers_gone()]
    facts = {
        "load_s": round(load_s, 1),
        "after_load_bytes": after_load,
        "after_close_bytes": meter.used() - before,
        **torch_bytes,
    }
    facts |= {"prefill_tps": told["prefill_tps"], "decode_tps": decode_tps}
    return {"judged": judged, "facts": facts, "plan": plan.to_dict()}


def _rows(plan: Plan, torch_bytes: dict[str, int], everything: int) -> list[dict[str, Any]]:
    """The modules live in the rank's own context, so the engine's accounts cannot tell weights from cache."""
    (use,) = plan.devices
    spec = plan.request.spec
    beside = overhead.exllamav3_parallel(use.gpu, spec.geometry, spec.format == "exl3")
    return compared(use, beside, None, torch_bytes, everything)


def _helpers_gone() -> dict[str, Any]:
    """The processes that this one has started and that outlive the model by more than a moment."""
    for child in multiprocessing.active_children():
        child.join(timeout=5)
    left = [child.name for child in multiprocessing.active_children()]
    return {"term": "workers left after unloading", "expected": "none", "found": ", ".join(left) or "none", "within": not left}

"""Memory: what a plan predicts for a load and a prompt as long as the context, and what both take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra_infer

from . import judge, meter, words

if TYPE_CHECKING:
    from hydra_infer.planner.report import Plan
    from hydra_infer.planner.usage import DeviceUse, Range

__all__ = ["compared", "measure", "whole", "words_of"]

# Tokens of the answer after the longest prompt: enough that decoding has run.
ANSWER = 8


def measure(
    state: Path, *, model: str, context: int, cache: str, split: str, gpu_split: Sequence[float] | None, slots: int
) -> dict[str, Any]:
    """Load through hydra_infer, read the longest prompt, and compare term by term."""
    folder, before = words.folder_of(state, model), meter.used()
    plan = hydra_infer.plan(
        folder, gpus=[meter.card()], context=context, cache=cache, split=split, gpu_split=gpu_split, slots=slots
    )
    began = time.perf_counter()
    with hydra_infer.load(plan, progress=False) as engine:
        load_s = time.perf_counter() - began
        devices = engine.load_report.devices if engine.load_report else ()
        after_load = meter.used() - before
        meter.reset_peak()
        told = words.answer(engine, words.letters(whole(plan), seed=1), ANSWER)
        torch_bytes, everything = meter.torch_bytes(), meter.used() - before
        parts = meter.accounting() if plan.request.engine == "exllamav3" else None
    (use,) = plan.devices
    judged = compared(use, use.overhead_range, parts, torch_bytes, everything)
    judged += [
        judge.bytes_row("after loading (LoadReport)", int(one.predicted), int(one.actual))
        for one in devices
        if one.predicted is not None and one.actual is not None
    ]
    facts = {"load_s": round(load_s, 1), "prompt_tokens": whole(plan), "after_load_bytes": after_load, **torch_bytes}
    facts |= {f"{name}_bytes": size for name, size in (parts or {}).items()}
    facts |= {"after_close_bytes": meter.used() - before, **{name: told[name] for name in ("prefill_tps", "decode_tps")}}
    return {"judged": judged, "facts": facts, "plan": plan.to_dict()}


def whole(plan: Plan) -> int:
    """The longest prompt of a plan that leaves room for the answer."""
    return plan.longest_prompt - 2 * ANSWER


def compared(
    use: DeviceUse, overhead: Range, parts: Mapping[str, int] | None, torch_bytes: Mapping[str, int], everything: int
) -> list[dict[str, Any]]:
    """Rows of predicted and actual bytes.

    `parts` are ExLlamaV3's own accounts; without them only sums can be told apart. What is neither weights, cache, state nor
    working memory is overhead, whoever allocated it.
    """
    peak = torch_bytes["peak_allocated_bytes"]
    rows = []
    if parts is None:
        rows.append(judge.bytes_row("weights, cache and working memory", int(use.loaded), peak))
        actual_overhead = everything - peak
    else:
        working = peak - torch_bytes["allocated_bytes"]
        terms = {"weights": use.weights, "cache": use.cache, "state": use.state}
        rows += [judge.bytes_row(term, int(size), parts[term]) for term, size in terms.items() if size or parts[term]]
        rows.append(judge.bytes_row("working memory of the longest prompt", int(use.transient), working))
        actual_overhead = everything - parts["weights"] - parts["cache"] - parts["state"] - working
    rows.append(judge.bytes_row("everything", int(use.loaded + overhead.likely), everything))
    rows.append(judge.bracket("overhead", int(overhead.low), int(overhead.likely), int(overhead.high), actual_overhead))
    return rows


def words_of(state: Path, *, model: str) -> dict[str, Any]:
    """What a real model says, for a person to read; an empty answer is a fault."""
    folder = words.folder_of(state, model)
    prompts = ("The capital of France is", "Once upon a time,", "def fibonacci(n):")
    plan = hydra_infer.plan(folder, gpus=[meter.card()], context=2048)
    with hydra_infer.load(plan, progress=False) as engine:
        said = {prompt: engine.generate(prompt, max_tokens=48, temperature=0).text for prompt in prompts}
    full = all(text.strip() for text in said.values())
    return {
        "judged": [{"term": "answers", "expected": "text", "found": "text" if full else "nothing", "within": full}],
        "facts": said,
    }

"""Speed: the same work through the raw generator and through the Engine, in turns, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import hydra_infer
from hydra_infer.planner.speed import stages
from hydra_infer.reply import usage_of

from . import judge, meter, words

if TYPE_CHECKING:
    from hydra_infer import Engine
    from hydra_infer.planner.report import Plan

__all__ = ["compare", "compare2", "through_engine"]

# Tokens of each answer, and how often each side takes its turn after one round that only warms up.
TOKENS, ROUNDS = 256, 5

Run = Callable[[Sequence[list[int]], int], dict[str, Any]]


def compare(state: Path, *, model: str, batch: int, prompts: Sequence[int]) -> dict[str, Any]:
    """exllamav3, `batch` requests at once, for each length of prompt."""
    from .raw3 import Raw

    plan = _plan(words.folder_of(state, model), batch * (max(prompts) + TOKENS + 256), batch)
    with Raw(plan) as raw, hydra_infer.load(plan, progress=False) as engine:
        found = [_turns(raw.run, engine, batch, length) for length in prompts]
    return _told(plan, found, batch)


def compare2(state: Path, *, model: str) -> dict[str, Any]:
    """exllamav2, one request at a time: without flash-attn it runs no more."""
    from .raw2 import Raw

    plan = _plan(words.folder_of(state, model), 4096, 1)
    with Raw(plan) as raw, hydra_infer.load(plan, progress=False) as engine:
        found = [_turns(raw.run, engine, 1, 512)]
    return _told(plan, found, 1)


def through_engine(engine: Engine, prompts: Sequence[list[int]], tokens: int) -> dict[str, Any]:
    """All prompts at once through the Engine, greedy; as Raw.run tells it."""
    began = time.perf_counter()
    jobs = [engine.submit({"prompt": ids, "max_tokens": tokens, "temperature": 0}) for ids in prompts]
    for job in jobs:
        while job.take() is not None:
            pass
    seconds = time.perf_counter() - began
    made = sum(usage_of(job.answer.body()).completion_tokens or 0 for job in jobs)
    return {"seconds": seconds, "tokens": made, "text": "".join(job.answer.text for job in jobs)}


def _plan(folder: Path, context: int, slots: int) -> Plan:
    return hydra_infer.plan(folder, gpus=[meter.card()], context=context, slots=slots, split="single")


def _turns(raw: Run, engine: Engine, batch: int, length: int) -> dict[str, Any]:
    """Rounds in which either goes first in turn; every prompt is new to both, so that no cached page helps one of them."""

    def ours(prompts: Sequence[list[int]], tokens: int) -> dict[str, Any]:
        return through_engine(engine, prompts, tokens)

    tps: dict[str, list[float]] = {"raw": [], "engine": []}
    decode, made = [], []
    for turn in range(ROUNDS + 1):
        sides: list[tuple[str, Run]] = [("raw", raw), ("engine", ours)]
        for name, run in sides if turn % 2 else sides[::-1]:
            told = run([words.letters(length, seed=1000 * turn + number) for number in range(batch)], TOKENS)
            made.append(told["tokens"])
            if turn:
                tps[name].append(told["tokens"] / told["seconds"])
                decode += [told["decode_tps"]] if name == "raw" else []
    return {
        "row": judge.speeds(f"batch {batch}, prompt {length}", tps["raw"], tps["engine"]),
        "decode_tps": median(decode),
        "tokens": sorted(set(made)),
        "tps": tps,
    }


def _told(plan: Plan, found: Sequence[dict[str, Any]], batch: int) -> dict[str, Any]:
    counts = {"expected": f"{batch * TOKENS} tokens each", "found": str(found[0]["tokens"])}
    same = all(one["tokens"] == found[0]["tokens"] and len(one["tokens"]) == 1 for one in found)
    facts: dict[str, Any] = {"rounds": [one["tps"] for one in found]}
    if batch == 1:
        facts |= _pace(plan, found[0]["decode_tps"])
    return {"judged": [*(one["row"] for one in found), {"term": "nothing lost", **counts, "within": same}], "facts": facts}


def _pace(plan: Plan, tps: float) -> dict[str, Any]:
    """The planner's prediction beside what one stream decodes at, and what a fit of its constants needs."""
    (stage,) = stages(plan.request, plan.outcome)
    predicted = plan.speed.decode_tps
    row = {
        "seconds": 1 / tps,
        "layers": stage.layers,
        "bytes": stage.weights + stage.state,
        "bandwidth": stage.bandwidth * 1e9,
        "format": plan.request.spec.format,
    }
    return {"decode_tps": round(tps, 2), "predicted_tps": None if predicted is None else list(predicted), "pace": row}

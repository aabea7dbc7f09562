"""Failures: memory that runs out while loading, while reading a prompt and while answering, and what is left afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra_infer
from hydra_infer import DoesNotFit, HydraError, OutOfMemory

from . import judge, meter, words

if TYPE_CHECKING:
    from hydra_infer import Engine
    from hydra_infer.planner.report import Plan

__all__ = ["answering", "loading", "reloading"]

LOADS = 5


def loading(state: Path, *, model: str) -> dict[str, Any]:
    """A budget that is too small is refused; forced, it ends in OutOfMemory, and what it had loaded is gone."""
    small, good = _plan(state, model, 8192, split="layers", gpu_split=[2]), _plan(state, model, 8192)
    used = [meter.used()]
    judged = [_raises("a budget that is too small", DoesNotFit, lambda: hydra_infer.load(small, progress=False))]
    with hydra_infer.load(good, progress=False) as engine:
        judged.append(_answers("a load before it", engine))
    used.append(meter.used())
    forced = _raises("the same, forced", OutOfMemory, lambda: hydra_infer.load(small, progress=False, force=True), "loading")
    used.append(meter.used())
    with hydra_infer.load(good, progress=False) as engine:
        judged += [forced, _answers("a load after it", engine)]
    used.append(meter.used())
    judged.append(judge.returned("bytes after a good, a failed and a good load", used))
    return {"judged": judged, "facts": {}}


def answering(state: Path, *, model: str) -> dict[str, Any]:
    """With the rest of the card taken away: a long prompt, and an answer in the middle."""
    with hydra_infer.load(_plan(state, model, 32768, slots=2), progress=False) as engine:
        judged = [_answers("before", engine)]
        with meter.filled(left=64 * 2**20):
            read = _raises("a long prompt", OutOfMemory, lambda: words.answer(engine, words.letters(16384, 2), 8), "prefill")
        judged += [read, _answers("after it", engine)]
        found = _starved(engine)
        judged.append(_answers("after an answer whose memory was taken away", engine))
        stats = engine.stats()
    return {"judged": judged, "facts": {"an answer whose memory was taken away": found, "rebuilds": stats["rebuilds"]}}


def reloading(state: Path, *, model: str) -> dict[str, Any]:
    """Load, answer and close, over and over: the card and this process are as before."""
    used = [meter.used()]
    judged = []
    for number in range(LOADS):
        with hydra_infer.load(_plan(state, model, 8192), progress=False) as engine:
            judged.append(_answers(f"load {number + 1}", engine))
        used.append(meter.used())
    judged.append(judge.returned("bytes after each unloading", used))
    return {"judged": judged, "facts": {}}


def _plan(state: Path, model: str, context: int, **options: Any) -> Plan:
    return hydra_infer.plan(words.folder_of(state, model), gpus=[meter.card()], context=context, **options)


def _starved(engine: Engine) -> str:
    """Take all memory away once an answer has begun. Decoding allocates little, so it may well go on: both are told."""
    job = engine.submit({"prompt": words.letters(64, 3), "max_tokens": 512, "temperature": 0})
    for _ in range(8):
        job.take()
    with meter.filled(left=0):
        try:
            while job.take() is not None:
                pass
        except OutOfMemory as error:
            return f"OutOfMemory while {error.stage}: {error.message}"
    return "it went on to its end: nothing had to be allocated"


def _answers(term: str, engine: Engine) -> dict[str, Any]:
    """The synthetic model repeats one character; anything else is a fault."""
    text = words.answer(engine, words.letters(300, 1), 16)["text"]
    return {"term": term, "expected": "a" * 16, "found": text, "within": text == "a" * 16}


def _raises(term: str, kind: type[HydraError], attempt: Any, stage: str | None = None) -> dict[str, Any]:
    expected = kind.__name__ + (f" while {stage}" if stage else "")
    try:
        attempt()
    except HydraError as error:
        found = type(error).__name__ + (f" while {error.stage}" if isinstance(error, OutOfMemory) else "")
        return {"term": term, "expected": expected, "found": found, "within": found == expected, "said": str(error)}
    return {"term": term, "expected": expected, "found": "no error", "within": False}

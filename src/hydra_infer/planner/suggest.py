"""What to change so that a plan fits: each remedy tried on the plan itself, the cheapest first.

Cheapest means least lost to whoever reads the answers, in this order (`RANKS`):
1. another split or a smaller reserve: the same answers, as fast or nearly so;
2. a smaller chunk: the same answers, prompts are read more slowly;
3. an 8-bit cache: the step nearest to the fp16 it replaces;
4. fewer slots, or no draft: the same answers, fewer or slower;
5. a 6-bit cache; then a shorter context, only as far as needed, for it loses only what does not fit in; then a 4-bit
   cache, which blurs all of it;
6. fewer bits per weight, where no files bind them: another, weaker model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, UnknownModel
from ..units import Size, gib
from .cache import PAGE, pages, rate_of
from .request import Request
from .solver import largest
from .splits import change_to, fastest_split, token_time

if TYPE_CHECKING:
    from .report import Plan

__all__ = ["Suggestion", "better_split", "suggestions"]

# A context below this is no remedy: it holds a question and no document.
SHORTEST_CONTEXT = 2048

# Where one change is not enough, so many pairs are listed.
MOST_PAIRS = 4

RESERVES = (0.5, 0.25)  # GiB; 0.25 is the margin that exllamav3 1.6.5 keeps whatever is asked (model/model_ls.py)
CHUNKS = (1024, 512, 256)
CACHES = {"gguf": ("q8_0", "q4_0")}
OTHER_CACHES = ("q8", "q6", "q4")
# Bits per weight are tried in tenths, down to the least an EXL3 tensor has.
LEAST_TENTHS = 10
# Fewer than half the bits that were asked for is no remedy: by then a smaller model answers better.
LEAST_SHARE = 0.5

RANKS = ("split", "reserve", "chunk", "q8", "slots", "draft", "q6", "context", "q4", "bpw")

_COSTS = {
    "split": "the answers stay the same",
    "reserve": "less stays free for other programs",
    "chunk": "prompts are read more slowly",
    "q8": "the cache keeps 8 bits",
    "slots": "fewer requests at once",
    "draft": "slower, the same answers",
    "q6": "the cache keeps 6 bits",
    "context": "less text at once",
    "q4": "the cache keeps 4 bits",
    "bpw": "a smaller file of the same model",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One remedy. `change` are plan()'s arguments, `plan` is what they give; it fits.

    `saves` is how much less is needed on all cards and in RAM together (bytes; 0 or less where it only lies elsewhere).
    """

    change: Mapping[str, Any]
    saves: Size
    why: str
    plan: Plan

    def __str__(self) -> str:
        return self.why

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the plan."""
        return {"change": dict(self.change), "saves_bytes": int(self.saves), "why": self.why}


@dataclass(frozen=True, slots=True)
class _Option:
    """One change; `change` is None where the amount is searched for (context, bpw)."""

    kind: str
    change: Mapping[str, Any] | None = None

    @property
    def group(self) -> str:
        """Of one group only the mildest that is enough is of interest, and two exclude each other."""
        return "cache" if self.kind.startswith("q") else self.kind


def suggestions(plan: Plan) -> Iterator[Suggestion]:
    """Remedies for a plan that does not fit, cheapest first: single changes, and pairs where no single one suffices.

    For a plan that fits, the faster split where there is one.
    """
    if plan.fits:
        if faster := better_split(plan):
            yield faster
        return
    options = sorted(_options(plan), key=lambda option: RANKS.index(option.kind))
    if _hopeless(plan, options):
        return
    found: set[str] = set()
    for option in options:
        if option.group not in found and (done := _fitting(plan, option)):
            found.add(option.group)
            yield _suggestion(plan, (option,), *done)
    if not found:
        yield from islice(_pairs(plan, options), MOST_PAIRS)


def better_split(plan: Plan) -> Suggestion | None:
    """The fastest `gpu_split` that fits, where it is faster than the plan's own, or the plan does not fit."""
    found = fastest_split(plan)
    if found is None:
        return None
    change, time = change_to(found), token_time(found)
    if time is None or not plan.fits:
        return _suggestion(plan, (_Option("split", change),), change, found)
    before = token_time(plan) or time
    shares = ", ".join(f"{use.gpu.name} {use.weights}" for use in found.devices if use.used)
    basis = "" if found.speed.judged else ", by assumed efficiencies"
    why = (
        f"{_said(change)} decodes some {1 / time:.1f} tokens/s instead of {1 / before:.1f} "
        f"({before / time - 1:.0%} more{basis}): weights {shares}, the slower the card the less"
    )
    return Suggestion(change, Size(_needed(plan) - _needed(found)), why, found)


def _pairs(plan: Plan, options: list[_Option]) -> Iterator[Suggestion]:
    """Fitting pairs, ordered by the dearer of the two; of each two groups the first found."""
    seen: set[tuple[str, str]] = set()
    for dearer, cheaper in ((two, one) for i, two in enumerate(options) for one in options[:i]):
        groups = (cheaper.group, dearer.group)
        if groups in seen or cheaper.group == dearer.group:
            continue
        # A search comes last: how far it has to go depends on the other change.
        first, last = (dearer, cheaper) if cheaper.change is None else (cheaper, dearer)
        if first.change is None or (half := _replanned(plan, first.change)) is None:
            continue
        if done := _fitting(half, last):
            seen.add(groups)
            yield _suggestion(plan, (cheaper, dearer), dict(first.change) | done[0], done[1])


# ---- what could be changed -------------------------------------------------------------------------------------------


def _options(plan: Plan) -> Iterator[_Option]:
    request = plan.request
    if len(request.gpus) > 1:
        yield from _splits(plan)
    kept = max((use.reserve for use in plan.devices if use.used), default=Size(0))
    if request.gpu_split is None:
        yield from (_Option("reserve", {"reserve": value}) for value in RESERVES if kept > gib(value))
    yield from (_Option("chunk", {"chunk": chunk}) for chunk in CHUNKS if chunk < request.chunk)
    bits = request.rate.k_bits + request.rate.v_bits
    for name in CACHES.get(request.spec.format, OTHER_CACHES):
        rate = rate_of(name, request.spec.format)
        if rate.k_bits + rate.v_bits < bits:
            yield _Option(name[:2], {"cache": name})
    if request.slots > 1:
        yield from (_Option("slots", {"slots": slots}) for slots in dict.fromkeys((request.slots // 2, 1)))
    if request.drafter is not None:
        yield _Option("draft", {"draft": None, "draft_tokens": None})
    yield _Option("context")
    if not request.spec.tensors:
        yield _Option("bpw")


def _hopeless(plan: Plan, options: Sequence[_Option]) -> bool:
    """Whether all changes together, each as far as it goes, are too few: then none and no pair has to be tried."""
    change: dict[str, Any] = {"split": "auto", "gpu_split": None} if len(plan.request.gpus) > 1 else {}
    for option in options:
        change |= option.change if option.change is not None and option.kind != "split" else {}
    change["context"] = min(plan.request.context, SHORTEST_CONTEXT)
    least = _replanned(plan, change)
    if least is not None and not least.fits and not plan.request.spec.tensors:
        least = _at_rate(least, max(LEAST_TENTHS / 10, LEAST_SHARE * (plan.request.spec.bpw or 0.0)))
    return least is not None and not least.fits


def _splits(plan: Plan) -> Iterator[_Option]:
    request = plan.request
    if request.gpu_split is not None:
        yield _Option("split", {"gpu_split": None})
    yield from (_Option("split", {"split": split}) for split in ("auto", "tensor") if split != request.split)
    if found := fastest_split(plan):
        yield _Option("split", change_to(found))


def _replanned(plan: Plan, change: Mapping[str, Any]) -> Plan | None:
    """The plan with a change, None where the engine or the model does not allow it."""
    try:
        return _at_rate(plan, change["bpw"]) if "bpw" in change else plan.replan(**change)
    except (ConfigError, UnknownModel):
        return None


def _at_rate(plan: Plan, bpw: float) -> Plan:
    request = plan.request
    again = Request.of(replace(request.spec, bpw=bpw), ram=request.ram, **request.arguments())
    return type(plan).of(again)


def _fitting(plan: Plan, option: _Option) -> tuple[dict[str, Any], Plan] | None:
    change = dict(option.change) if option.change is not None else _searched(plan, option.kind)
    changed = None if change is None else _replanned(plan, change)
    return (change, changed) if change is not None and changed is not None and changed.fits else None


def _searched(plan: Plan, kind: str) -> dict[str, Any] | None:
    """The smallest reduction of the context (in pages) or of the bits per weight (in tenths) that fits."""

    def fits(change: Mapping[str, Any]) -> bool:
        changed = _replanned(plan, change)
        return changed is not None and changed.fits

    if kind == "context":
        trained = plan.request.spec.geometry.trained_context or plan.request.context  # beyond it a longer one is worth nothing
        most = min(pages(plan.request.context) // PAGE - 1, trained // PAGE)
        page = largest(lambda count: fits({"context": count * PAGE}), SHORTEST_CONTEXT // PAGE, most)
        return None if page is None else {"context": page * PAGE}
    asked = plan.request.spec.bpw or 0.0
    least, most = max(LEAST_TENTHS, math.ceil(asked * 10 * LEAST_SHARE)), math.ceil(asked * 10) - 1
    tenth = largest(lambda count: fits({"bpw": count / 10}), least, most)
    return None if tenth is None else {"bpw": tenth / 10}


# ---- how to say it ---------------------------------------------------------------------------------------------------


def _suggestion(plan: Plan, options: Sequence[_Option], change: dict[str, Any], fitting: Plan) -> Suggestion:
    saves = Size(_needed(plan) - _needed(fitting))
    saved = f" saves {saves}" if saves > 0 else " is enough"
    costs = ", ".join(_COSTS[option.kind] for option in options)
    tightest = min((use for use in fitting.devices if use.used), key=lambda use: use.left - use.reserve, default=None)
    rest = "" if tightest is None else f": {tightest.gpu.name} then needs {tightest.needed} of {tightest.free}"
    return Suggestion(change, saves, f"{_said(change)}{saved}{rest} ({costs})", fitting)


def _said(change: Mapping[str, Any]) -> str:
    return " and ".join(f"{name}={value!r}" for name, value in change.items())


def _needed(plan: Plan) -> int:
    return sum(use.needed for use in plan.devices) + plan.host

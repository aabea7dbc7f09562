"""What holds for every plan: more of anything never needs less, cards add up to totals, suggestions fit."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B

from hydra_infer import Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request

MODELS = {"70b": LLAMA_70B, "1b": LLAMA_1B, "235b": QWEN3_235B}
FORMATS = ("exl3", "exl2", "hf", "gguf")
CACHES = {"exl3": ("q2", "q4", "q6", "8,4", "q8", "fp16"), "exl2": ("q4", "q6", "q8", "fp16"), "gguf": ("q4_0", "q8_0", "f16")}

names = st.sampled_from(["RTX 5090", "RTX 4090", "RTX 3090", "RTX 3060", "RTX 5070 Ti", "RTX PRO 6000"])
cards = st.lists(names, min_size=1, max_size=4)
contexts = st.integers(1, 131072)


def plan(model: str = "70b", form: str = "exl3", bpw: float = 4.0, **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(MODELS[model], Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **arguments))


def needed(p: Plan) -> int:
    """On one card too large to be full, so that what is compared is the need and not the placement."""
    return sum(use.needed for use in p.devices) + p.host


HUGE = [Gpu("huge", memory=2000, bandwidth=1000.0)]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(FORMATS), contexts, contexts)
def test_more_context_never_needs_less(model: str, form: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert needed(plan(model, form, gpus=HUGE, context=low)) <= needed(plan(model, form, gpus=HUGE, context=high))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(FORMATS), st.integers(10, 80), st.integers(10, 80))
def test_more_bits_per_weight_never_need_less(model: str, form: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    made = [needed(plan(model, form, bits / 10, gpus=HUGE)) for bits in (low, high)]
    assert made[0] <= made[1]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(CACHES)), contexts)
def test_more_bits_of_cache_never_need_less(model: str, form: str, context: int) -> None:
    caches = [plan(model, form, gpus=HUGE, context=context, cache=cache).devices[0].cache for cache in CACHES[form]]
    assert all(one <= other for one, other in pairwise(caches))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(FORMATS), st.integers(1, 64), st.integers(1, 64), st.integers(256, 16384))
def test_more_slots_and_larger_chunks_never_need_less(model: str, form: str, one: int, other: int, chunk: int) -> None:
    low, high = sorted((one, other))
    base = plan(model, form, gpus=HUGE, chunk=chunk, slots=low)
    assert needed(base) <= needed(base.replan(slots=high))
    assert needed(base) <= needed(base.replan(chunk=2 * chunk))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(FORMATS), cards, contexts)
def test_cards_add_up_to_the_model(model: str, form: str, gpus: list[str], context: int) -> None:
    p = plan(model, form, gpus=gpus, context=context, split="layers")
    whole = plan(model, form, gpus=HUGE, context=context)
    for term in ("weights", "cache", "state", "layers"):
        assert sum(getattr(use, term) for use in p.devices) == getattr(whole.devices[0], term)
    for use in p.devices:
        assert use.needed == use.weights + use.cache + use.state + use.draft + use.transient + use.overhead
        assert use.left == use.free - use.needed
    assert p.fits == all(use.fits for use in p.devices)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["70b", "1b"]), st.sampled_from(FORMATS), cards, contexts, st.integers(20, 60))
def test_suggestions_fit_and_so_does_the_longest_context(
    model: str, form: str, gpus: list[str], context: int, tenths: int
) -> None:
    p = plan(model, form, tenths / 10, gpus=gpus, context=context)
    for one in p.suggestions:
        assert one.plan.fits
    if longest := p.max_context:
        assert p.replan(context=longest).fits
        assert p.fits == (math.ceil(context / 256) * 256 <= longest) or context > 131072

"""Remedies: each fits when applied, the cheapest first, as little as needed, and pairs only where one is not enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B, exl3

import hydra_infer as hydra
from hydra_infer import DoesNotFit, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.drafter import model_drafter
from hydra_infer.planner.request import Request
from hydra_infer.planner.suggest import RANKS
from hydra_infer.units import Size


def plan(config: dict[str, Any], bpw: float = 4.0, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments)))


def kind(change: Any) -> str:
    (name, value) = next(iter(change.items()))
    return {"cache": str(value)[:2], "gpu_split": "split"}.get(name, name)


CASES: dict[str, tuple[dict[str, Any], float, str, dict[str, Any]]] = {
    "a little too long": (LLAMA_70B, 4.0, "exl3", {"context": 65536}),
    "far too long": (LLAMA_70B, 4.0, "exl3", {"context": 131072}),
    "one small card": (LLAMA_70B, 4.0, "exl3", {"gpus": ["RTX 4090"], "context": 32768}),
    "a mixture": (QWEN3_235B, 3.0, "exl3", {"context": 16384}),
    "many slots": (LLAMA_70B, 4.5, "gguf", {"context": 32768, "slots": 4}),
    "exl2": (LLAMA_70B, 4.0, "exl2", {"context": 65536}),
    "a split too small": (LLAMA_70B, 4.0, "exl3", {"gpu_split": [20, 10]}),
    "a reserve too large": (LLAMA_70B, 4.0, "exl3", {"reserve": [8, 8], "context": 16384}),
    "hopeless": (LLAMA_70B, 8.0, "exl3", {"gpus": ["RTX 3060"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_suggested_fits_when_applied(case: str) -> None:
    config, bpw, form, arguments = CASES[case]
    p = plan(config, bpw, form, **arguments)
    assert not p.fits
    found = p.suggestions
    assert bool(found) is (case != "hopeless")
    for one in found:
        assert one.plan.fits
        again = {name: value for name, value in one.change.items() if name != "bpw"}
        applied = plan(config, one.change.get("bpw", bpw), form, **arguments).replan(**again)
        assert applied == one.plan
        assert all(repr(value) in one.why for value in one.change.values())
        before, after = (sum(use.needed for use in made.devices) + made.host for made in (p, one.plan))
        assert one.saves == before - after
    ranks = [RANKS.index(kind(one.change)) for one in found if len(one.change) == 1]
    assert ranks == sorted(ranks)


def test_a_context_only_as_far_as_needed() -> None:
    p = plan(LLAMA_70B, context=65536)
    shorter = next(one for one in p.suggestions if "context" in one.change)
    assert shorter.change["context"] == p.max_context
    assert not p.replan(context=shorter.change["context"] + 256).fits


def test_bits_per_weight_only_as_far_as_needed_and_only_without_files(tmp_path: Path) -> None:
    p = plan(LLAMA_70B, context=65536)
    fewer = next(one for one in p.suggestions if "bpw" in one.change)
    assert not plan(LLAMA_70B, fewer.change["bpw"] + 0.1, context=65536).fits
    real = hydra.plan(exl3(tmp_path / "m", LLAMA_70B, 4.0), gpus=["RTX 5090", "RTX 4090"], context=65536)
    assert [next(iter(one.change)) for one in real.suggestions] == ["cache", "context"]


def test_the_mildest_of_a_kind_alone_is_listed() -> None:
    p = plan(LLAMA_70B, context=65536)
    assert [one.change for one in p.suggestions if "cache" in one.change] == [{"cache": "q8"}]
    assert next(one.change for one in plan(LLAMA_70B, context=131072).suggestions) == {"cache": "q6"}


def test_pairs_where_no_single_change_is_enough() -> None:
    p = plan(LLAMA_70B, 4.0, gpus=["RTX 4090"], context=32768)
    pairs = p.suggestions
    assert pairs[0].change == {"cache": "q6", "bpw": 2.0}
    assert all(len(one.change) == 2 for one in pairs)
    for one in pairs:
        for name, value in one.change.items():
            assert name == "bpw" or not p.replan(**{name: value}).fits
    assert p.why.endswith("; cache='q6' and bpw=2.0 fit")
    assert plan(LLAMA_70B, 2.0, gpus=["RTX 4090"], context=32768).why.endswith("; cache='q6' fits")


def test_a_draft_that_takes_too_much_can_go() -> None:
    small = ModelSpec("small", Path("s"), "exl3", geometry_of(LLAMA_1B, Path("m")), bpw=8.0)
    bare = plan(LLAMA_70B, split="layers")
    p = bare.replan(context=bare.max_context, draft=model_drafter(bare.request.spec, small, (None, True)))
    assert not p.fits
    dropped = next(one for one in p.suggestions if "draft" in one.change)
    assert dropped.plan.draft is None
    assert dropped.plan.fits


def test_system_ram_alone() -> None:
    p = plan(LLAMA_1B, form="gguf", gpus=[], context=65536)
    tight = plan(LLAMA_1B, form="gguf", gpus=[], context=65536, ram=Size(p.host - 1))
    first = tight.suggestions[0]
    assert (first.change, first.plan.fits) == ({"chunk": 256}, True)
    assert tight.why.startswith(f"needs {p.host} of system RAM, ")
    assert plan(LLAMA_1B, form="gguf", gpus=[], ram=Size(2**28)).suggestions == ()


def test_a_model_that_fits_needs_nothing() -> None:
    assert plan(LLAMA_1B).suggestions == ()


def test_a_refusal_carries_the_two_cheapest_remedies() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(LLAMA_70B, context=65536).raise_if_unfit()
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("cache='q8' saves ")
    assert ", or context=" in caught.value.hint


def test_plain_data() -> None:
    one = plan(LLAMA_70B, context=65536).suggestions[0]
    assert one.to_dict() == {"change": {"cache": "q8"}, "saves_bytes": int(one.saves), "why": one.why}
    assert str(one) == one.why


def test_no_context_is_suggested_beyond_what_the_model_was_trained_for() -> None:
    p = plan(LLAMA_1B | {"max_position_embeddings": 8192}, gpus=["RTX 3060"], context=10**6)
    shorter = [remedy.change["context"] for remedy in p.suggestions if "context" in remedy.change]
    assert shorter == [8192]

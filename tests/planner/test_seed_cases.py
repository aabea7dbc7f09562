"""The questions this planner was built to answer, on an RTX 5090 and an RTX 4090; docs/plan.md shows the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pages
import pytest

import hydra_infer as hydra
from hydra_infer import Gpu, Plan
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.units import GIB, Size, gib

CARDS = ("RTX 5090", "RTX 4090")
PAIR = ("RTX 5070 Ti", "RTX 3060")


def plan(name: str, bpw: float, **arguments: object) -> Plan:
    config = pages.CONFIGS / f"{name}.json"
    return hydra.plan(config, **({"bpw": bpw, "format": "exl3", "gpus": CARDS} | arguments))


@pytest.mark.parametrize(("name", "bpw"), [("Llama-3.1-70B", 3.5), ("Llama-3.1-70B", 4.0), ("Qwen2.5-72B-Instruct", 3.5)])
def test_a_dense_70b_fits_with_32k(name: str, bpw: float) -> None:
    p = plan(name, bpw, context="32k")
    assert p.fits
    assert all(use.used and use.left >= use.reserve for use in p.devices)
    # Weights and cache as exllamav3's own code counts them (GiB): 28.65, 32.64 and 29.51, and 10 of fp16 cache.
    weights = {3.5: 28.65 if name.startswith("Llama") else 29.51, 4.0: 32.64}[bpw]
    alone = plan(name, bpw, context="32k", gpus=[Gpu("large", memory=80)]).devices[0]
    assert alone.weights / GIB == pytest.approx(weights, abs=0.01)
    assert alone.cache / GIB == pytest.approx(10.0)


def test_a_235b_does_not_fit_and_says_what_would() -> None:
    p = plan("Qwen3-235B-A22B", 3.0, context="16k")
    assert not p.fits
    # 82.57 GiB as stored, and what the engine copies of the routers.
    assert 82.57 <= sum(use.weights for use in p.devices) / GIB <= 82.8
    (fewer,) = p.suggestions
    assert 1.5 <= fewer.change["bpw"] <= 1.9  # its weights fit 54 GiB below about 1.8
    assert not plan("Qwen3-235B-A22B", fewer.change["bpw"] + 0.1, context="16k").fits
    moved = p.cpu_experts()
    assert moved is not None
    assert 38 <= moved.layers <= 46
    assert moved.size / moved.layers == pytest.approx(910.3e6, rel=0.01)  # one layer's experts at 3.0 bits
    assert moved.plan.fits
    assert moved.plan.host == p.replan(split="layers").host + moved.size
    assert f"moe_cpu_offload={moved.layers}" in moved.why


def test_experts_in_ram_are_no_answer_for_what_fits_or_has_none() -> None:
    assert plan("Qwen3-235B-A22B", 1.5, context="4k").cpu_experts() is None
    assert plan("Llama-3.1-70B", 8.0).cpu_experts() is None
    assert plan("Qwen3-235B-A22B", 3.0, gpus=[Gpu("small", memory=5)]).cpu_experts() is None
    small = plan("Qwen3-235B-A22B", 3.0, gpus="RTX 3060")
    assert small.suggestions == ()
    assert small.why.endswith(str(getattr(small.cpu_experts(), "why", None)))


@pytest.mark.parametrize("split", ["layers", "tensor"])
def test_28_and_24_is_unsafe_on_the_4090(split: str) -> None:
    p = plan("Llama-3.1-70B", 4.0, context="32k", gpu_split=[28, 24], split=split)
    (unsafe,) = (warning for warning in p.warnings if "gpu_split" in warning)
    assert unsafe.startswith("gpu_split grants 24.0 GiB on RTX 4090, ")
    assert "unsafe" in unsafe


def test_a_process_on_the_card_is_named_as_the_cause() -> None:
    busy = Gpu("RTX 5090", free=9.5, processes=[GpuProcess(4242, "python", gib(21.5))])
    p = plan("Llama-3.1-70B", 4.0, context="32k", gpus=[busy, "RTX 4090"])
    assert not p.fits
    assert p.why.endswith("; it fits without python (pid 4242) 21.5 GiB on RTX 5090")


def test_do_not_pair_a_5070_ti_with_a_3060_for_what_fits_the_first() -> None:
    def tokens_per_second(**arguments: object) -> float:
        p = plan("Llama-3.1-8B", 6.0, gpus=PAIR, **arguments)
        assert p.fits
        assert p.speed.decode_tps is not None
        return p.speed.decode_tps[1]

    alone = tokens_per_second(split="single")
    assert plan("Llama-3.1-8B", 6.0, gpus=PAIR).split == "single"
    assert tokens_per_second(gpu_split=[4.2, 3.8]) < 0.75 * alone
    assert tokens_per_second(split="tensor") < alone


def test_pair_them_for_what_fits_neither() -> None:
    p = plan("Llama-3.1-70B", 2.0, gpus=PAIR)
    assert p.fits
    assert not p.replan(split="single").fits


def test_plain_data_of_a_case_is_json() -> None:
    p = plan("Llama-3.1-70B", 4.0, context="32k")
    data = json.loads(p.to_json())
    assert sum(card["weights_bytes"] for card in data["devices"]) == sum(use.weights for use in p.devices)
    assert Size(data["host"]["needed_bytes"]) == p.host
    assert Path(p.request.spec.path).name == "Llama-3.1-70B.json"

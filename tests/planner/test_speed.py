"""Decode speed: sums and maxima, ceilings, what raises and what lowers it, and what is not predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B

from hydra_infer import Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.planner.speed import PACES, Pace, Speed, Stage, active_share, ceiling, seconds

PLAIN = Pace({"8.9": 0.5}, 0.25, layer=1e-3, sync=1e-4, cache=(0.5, 0.25))


def plan(config: dict[str, Any] = LLAMA_70B, bpw: float = 3.5, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments)))


def decode(speed: Speed) -> tuple[float, float, float]:
    assert speed.decode_tps is not None
    return speed.decode_tps


def test_one_card() -> None:
    stage = Stage(1000.0, "8.9", weights=10e9, cache=4e9, state=1e9, layers=10)
    assert seconds([stage], PLAIN, "single", 0.0) == pytest.approx(0.010 + 11 / 500)
    assert seconds([stage], PLAIN, "single", 0.5) == pytest.approx(0.010 + 11 / 500 + 2 / 500)
    assert ceiling([stage], "single") == pytest.approx(100)


def test_layers_add_and_tensor_takes_the_slowest() -> None:
    fast, slow = Stage(1000.0, "8.9", 10e9, layers=10), Stage(500.0, "8.9", 10e9, layers=10)
    assert seconds([fast, slow], PLAIN, "layers", 0.0) == pytest.approx(0.020 + 10 / 500 + 10 / 250)
    assert seconds([fast, slow], PLAIN, "tensor", 0.0) == pytest.approx(0.010 + 10 / 250 + 2 * 10 * 1e-4)
    assert ceiling([fast, slow], "layers") == pytest.approx(1 / 0.03)
    assert ceiling([fast, slow], "tensor") == pytest.approx(1 / 0.02)


def test_an_unmeasured_generation_is_taken_as_slow() -> None:
    known, unknown = Stage(1000.0, "8.9", 10e9), Stage(1000.0, None, 10e9)
    assert seconds([unknown], PLAIN, "single", 0.0) == pytest.approx(2 * seconds([known], PLAIN, "single", 0.0))


def test_a_quantised_cache_is_read_slower_than_its_bytes_say() -> None:
    plain, quantised = (Stage(1000.0, "8.9", 0.0, cache=4e9, plain=plain) for plain in (True, False))
    assert seconds([quantised], PLAIN, "single", 1.0) == 2 * seconds([plain], PLAIN, "single", 1.0)


def test_few_bits_are_slower_where_the_kernels_are_bound_by_arithmetic() -> None:
    thick, thin = Stage(1000.0, "8.9", 10e9, bits=4.5), Stage(1000.0, "8.9", 10e9, bits=2.5)
    assert seconds([thin], PACES["gguf"], "single", 0.0) > seconds([thick], PACES["gguf"], "single", 0.0)
    assert seconds([thin], PACES["exl2"], "single", 0.0) == seconds([thick], PACES["exl2"], "single", 0.0)


@settings(max_examples=60, deadline=None)
@given(
    bpw=st.sampled_from([1.5, 2.5, 4.0, 8.0]),
    form=st.sampled_from(["exl3", "exl2", "gguf", "hf"]),
    context=st.sampled_from([256, 8192, 131072]),
    gpus=st.lists(st.sampled_from(["RTX 5090", "RTX 4090", "RTX 3060", "V100", "H200"]), min_size=1, max_size=3),
    config=st.sampled_from([LLAMA_70B, LLAMA_1B, QWEN3_235B]),
)
def test_never_above_the_ceiling(bpw: float, form: str, context: int, gpus: list[str], config: dict[str, Any]) -> None:
    speed = plan(config, bpw, form, gpus=gpus, context=context).speed
    low, likely, high = decode(speed)
    assert speed.ceiling is not None
    assert 0 < low <= likely <= high <= speed.ceiling


def test_more_context_is_slower_and_an_empty_one_is_not() -> None:
    short, long = (plan(gpus=["H200"], context=context).speed for context in (1024, 131072))
    assert decode(short)[1] > decode(long)[1]
    assert decode(short)[2] == pytest.approx(decode(long)[2], rel=0.05)


def test_of_the_experts_only_those_chosen_are_read() -> None:
    geometry = geometry_of(QWEN3_235B, Path("m"))
    assert active_share(geometry) == pytest.approx(22 / 235, abs=0.01)  # A22B of 235B
    assert active_share(geometry) < active_share(geometry, 5) < active_share(geometry, 1000) <= 1
    assert active_share(geometry_of(LLAMA_70B, Path("m"))) == 1


def test_what_is_not_known_is_not_said() -> None:
    unknown = plan(LLAMA_1B, gpus=[Gpu("anything", memory=24)]).speed
    assert unknown.decode_tps is None
    assert "bandwidth of anything" in unknown.why
    on_cpu = plan(LLAMA_1B, form="gguf", gpus=[]).speed
    assert on_cpu.decode_tps is None
    assert "system RAM" in on_cpu.why


def test_where_nothing_was_measured_the_speed_is_not_judged() -> None:
    assert not plan(LLAMA_1B, form="exl3", gpus=["RTX 4090"]).speed.judged
    assert plan(LLAMA_1B, form="exl2", gpus=["RTX 4090"]).speed.judged
    assert not plan(LLAMA_1B, form="exl2", gpus=["H200"]).speed.judged
    assert not plan(LLAMA_1B, bpw=2.5, form="gguf", gpus=["RTX 4090"]).speed.judged


def test_plain_data() -> None:
    assert plan().to_dict()["speed"].keys() == {"decode_tps", "ceiling_tps", "judged", "why"}

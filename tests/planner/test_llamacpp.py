"""llama.cpp's placements: RAM alone, one card, several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B, LLAMA_70B

from hydra_infer import ConfigError, Gpu, Plan, UnknownModel
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.units import GIB, MIB, Size


def plan(config: dict[str, Any], bpw: float = 4.5, **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), "gguf", geometry_of(config, Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **({"gpus": []} | arguments)))


def test_without_a_card_everything_is_in_ram() -> None:
    p = plan(LLAMA_1B, ram=Size(8 * GIB), context=4000)
    assert (p.split, p.devices, p.gpu_split, p.fits) == ("cpu", (), None, True)
    host = p.host_use
    assert host.cache == 32768 * 4096
    assert p.host == host.needed == host.weights + host.cache + host.transient + host.overhead
    assert p.why == f"fits in system RAM: needs {p.host} of 8.0 GiB"


def test_ram_can_be_too_little() -> None:
    needed = plan(LLAMA_1B).host
    assert plan(LLAMA_1B, ram=needed).fits
    short = plan(LLAMA_1B, ram=Size(needed - 1))
    assert not short.fits
    assert short.why.startswith("needs ")
    assert plan(LLAMA_1B).fits  # unknown RAM is not judged


def test_a_tied_head_is_a_copy_only_on_a_card() -> None:
    in_ram = plan(LLAMA_1B).host_use.weights
    untied = plan(LLAMA_1B | {"tie_word_embeddings": False}).host_use.weights
    on_card = plan(LLAMA_1B, gpus="RTX 4090")
    assert untied - in_ram == on_card.host_use.weights == round(2048 * 128256 * 4.5 / 8)
    assert on_card.devices[0].weights + on_card.host_use.weights == untied


def test_every_slot_has_its_own_context() -> None:
    one, four = plan(LLAMA_1B, context=1000), plan(LLAMA_1B, context=1000, slots=4)
    assert (one.cache_tokens, four.cache_tokens) == (1024, 4096)
    assert four.host_use.cache == 4 * one.host_use.cache
    assert one.longest_prompt == four.longest_prompt == 1023


def test_one_card_takes_it_all() -> None:
    p = plan(LLAMA_1B, gpus=["RTX 3060", "RTX 4090"])
    assert (p.split, p.gpu_split, p.fits) == ("single", [0.0, 1.0], True)
    assert p.devices[1].layers == 16
    assert p.devices[1].reserve == 1024 * MIB


def test_several_cards_share_by_what_is_free() -> None:
    p = plan(LLAMA_70B, gpus=[Gpu("RTX 5090", free=30), Gpu("RTX 4090", free=20)])
    assert (p.split, p.gpu_split, p.fits) == ("layers", [30.0, 20.0], True)
    # 81 pieces, the last being the head: number i goes to the first card while i / 81 < 0.6.
    assert [device.layers for device in p.devices] == [49, 31]
    again = p.replan(gpu_split=[1, 1])
    assert [device.layers for device in again.devices] == [41, 39]


def test_several_cards_hold_several_masks() -> None:
    alone = plan(LLAMA_70B, gpus=[Gpu("big", memory=96)]).devices[0].transient
    shared = plan(LLAMA_70B, gpus=["RTX 5090", "RTX 4090"]).devices[0].transient
    assert shared - alone == 3 * 512 * 8192 * 2


def test_too_large_for_the_cards() -> None:
    p = plan(LLAMA_70B, gpus=["RTX 4090"])
    assert not p.fits
    assert p.why.endswith("too little; bpw=2.3 fits")
    with pytest.raises(ConfigError, match="no card has any memory free"):
        plan(LLAMA_70B, gpus=[Gpu("RTX 4090", free=0), Gpu("RTX 3060", free=0)])


def test_a_cache_type_the_heads_do_not_divide_by() -> None:
    odd = LLAMA_1B | {"head_dim": 80}
    assert plan(odd).fits
    with pytest.raises(ConfigError, match="blocks of 32, heads have 80"):
        plan(odd, cache="q8_0")


def test_windows_are_not_covered_here() -> None:
    with pytest.raises(UnknownModel, match="sliding window"):
        plan(LLAMA_1B | {"architectures": ["Gemma2ForCausalLM"], "sliding_window": 512})

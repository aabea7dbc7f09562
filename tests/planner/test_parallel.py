"""Plans over several cards at once: what lies where, what RAM it takes, and what is refused before the loader runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B

from hydra_infer import ConfigError, Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.units import GIB, MIB

CARDS = [Gpu("RTX 5090", free=31.0), Gpu("RTX 4090", free=23.0)]


def plan(config: dict[str, Any], bpw: float, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **({"gpus": CARDS, "split": "tensor"} | arguments)))


def test_the_sums() -> None:
    p = plan(LLAMA_70B, 4.0, context=32768)
    first, second = p.devices
    assert (p.fits, p.split, p.cache_tokens) == (True, "tensor", 32768)
    assert first.cache + second.cache == 327680 * 32768
    # 161 norms are on both cards.
    assert first.weights + second.weights == p.request.weights.on_device + 161 * 2 * 8192
    assert first.weights / second.weights == pytest.approx(31 / 23, abs=0.05)
    assert (first.layers, second.layers) == (80, 80)
    assert p.gpu_split == [29.95, 21.95]


def test_every_card_has_two_contexts() -> None:
    tensor, layers = plan(LLAMA_70B, 4.0), plan(LLAMA_70B, 4.0, split="layers")
    for ours, theirs in zip(tensor.devices, layers.devices, strict=True):
        assert 256 * MIB <= ours.overhead - theirs.overhead <= 0.3 * GIB + 1


def test_gpu_split_is_taken_as_it_is() -> None:
    believed = plan(LLAMA_70B, 4.0, gpu_split=[28, 24])
    busy = plan(LLAMA_70B, 4.0, gpu_split=[28, 24], gpus=[Gpu("RTX 5090", free=31.0), Gpu("RTX 4090", free=10.0)])
    assert believed.gpu_split == busy.gpu_split == [28.0, 24.0]
    assert [use.weights for use in believed.devices] == [use.weights for use in busy.devices]
    assert (believed.fits, busy.fits) == (True, False)
    assert "RTX 4090" in busy.why
    assert not plan(LLAMA_70B, 8.0, gpu_split=[28, 24]).fits


def test_a_card_left_out_has_nothing() -> None:
    cards = [*CARDS, Gpu("RTX 3060")]
    p = plan(LLAMA_70B, 4.0, gpus=cards, gpu_split=[28, 24])
    assert [use.used for use in p.devices] == [True, True, False]


def test_a_reserve_moves_the_shares() -> None:
    even, moved = plan(LLAMA_70B, 4.0), plan(LLAMA_70B, 4.0, reserve=[8, 0.5])
    assert moved.devices[0].weights < even.devices[0].weights
    assert moved.devices[0].reserve == 8 * GIB


def test_ram_has_the_embedding_for_every_card() -> None:
    host = plan(LLAMA_70B, 4.0).host_use
    embedding = 2 * 8192 * 128256
    assert host.weights == 2 * embedding
    assert 2 * GIB < host.shared < 2.2 * GIB
    assert host.transient == embedding + host.shared
    # Beyond 2 GiB a module travels in a segment of its own: the embedding of a 72B.
    large = plan(LLAMA_70B | {"vocab_size": 152064}, 4.0).host_use
    assert large.shared == host.shared + 2 * 8192 * 152064


def test_too_much_is_refused_here_not_while_loading() -> None:
    p = plan(QWEN3_235B, 3.0, context=16384)
    assert not p.fits
    assert all(not use.fits for use in p.devices)


def test_four_heads_are_halved_whatever_the_cards() -> None:
    first, second = plan(QWEN3_235B, 1.5, context=16384).devices
    assert first.cache == second.cache


def test_what_does_not_run() -> None:
    with pytest.raises(ConfigError, match="needs two cards"):
        plan(LLAMA_70B, 4.0, gpus="RTX 5090")
    odd = LLAMA_1B | {"num_key_value_heads": 1, "num_attention_heads": 32}
    with pytest.raises(ConfigError, match="its 1 heads of keys and values do not divide into multiples of 128 columns"):
        plan(odd, 4.0)
    with pytest.raises(ConfigError, match="tensor parallel: it is not implemented for this architecture"):
        plan(LLAMA_70B | {"architectures": ["Olmo3ForCausalLM"], "sliding_window": 4096}, 4.0)


def test_auto_splits_over_all_only_where_layers_do_not_fit() -> None:
    assert plan(LLAMA_70B, 4.0, split="auto").split == "layers"
    tight = plan(LLAMA_70B, 5.7, split="auto")
    assert (tight.fits, tight.split) == (True, "tensor")
    assert not plan(LLAMA_70B, 5.7, split="layers").fits
    # Where it cannot run, the loader's own order is all there is.
    odd = LLAMA_70B | {"num_key_value_heads": 1, "head_dim": 64}
    assert plan(odd, 8.0, split="auto").split == "layers"


def test_plain_weights_split_too() -> None:
    p = plan(LLAMA_1B, 16.0, form="hf", gpus=["RTX 3060", "RTX 3060"])
    assert (p.fits, p.split) == (True, "tensor")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 64),
    st.sampled_from([2.5, 3.0, 4.0, 5.0, 6.0]),
    st.sampled_from(["fp16", "q8", "q4"]),
    st.lists(st.sampled_from([12.0, 16.0, 24.0, 32.0, 80.0]), min_size=2, max_size=4),
)
def test_more_never_takes_less(pages: int, bits: float, cache: str, sizes: list[float]) -> None:
    cards = [Gpu("card", memory=size, bandwidth=500) for size in sizes]

    def total(context: int, bpw: float) -> int:
        p = plan(LLAMA_1B, bpw, context=context, cache=cache, gpus=cards)
        assert sum(use.cache for use in p.devices) == p.request.rate.nbytes(8 * 64, context) * 16
        return sum(use.weights + use.cache for use in p.devices)

    assert total(pages * 1024, bits) < total(pages * 1024 + 1024, bits)
    assert total(pages * 1024, bits) < total(pages * 1024, bits + 1)

"""ExLlama's placements: what is summed, what must stay free, what is pasted, and what the reference machine can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B

from hydra_infer import ConfigError, Gpu, Plan, UnknownModel
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.units import GIB, MIB, Size

CARDS = [Gpu("RTX 5090", free=31.0), Gpu("RTX 4090", free=23.0)]


def plan(config: dict[str, Any], bpw: float, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=bpw)
    return Plan.of(Request.of(spec, **({"gpus": CARDS} | arguments)))


def test_the_sums() -> None:
    p = plan(LLAMA_70B, 4.0, context=32768)
    first, second = p.devices
    assert (p.fits, p.split, p.cache_tokens) == (True, "layers", 32768)
    assert first.layers + second.layers == 80
    assert first.cache + second.cache == 327680 * 32768
    assert (first.weights + second.weights) / GIB == pytest.approx(32.64, abs=0.01)
    for device in p.devices:
        terms = (device.weights, device.cache, device.state, device.draft, device.transient, device.overhead)
        assert device.needed == sum(terms)
        assert device.left == device.free - device.needed >= device.reserve == GIB // 2
        assert device.overhead == device.overhead_range.high > device.overhead_range.likely > device.overhead_range.low
    assert first.left < first.reserve + 428_175_388 + 4096 * 32768  # one more layer would not have gone there
    assert p.host == 2 * 8192 * 128256


# What was worked out for a 5090 and a 4090 with about 31 and 23 GiB free.
@pytest.mark.parametrize(
    ("config", "bpw", "context", "cache", "fits"),
    [
        (LLAMA_70B, 3.5, 32768, "fp16", True),
        (LLAMA_70B, 4.0, 32768, "fp16", True),
        (LLAMA_70B, 4.5, 32768, "fp16", True),
        (LLAMA_70B, 4.5, 131072, "fp16", False),
        (LLAMA_70B, 4.0, 131072, "q4", True),
        (QWEN3_235B, 3.0, 16384, "fp16", False),
        (QWEN3_235B, 1.5, 16384, "q4", True),
        (QWEN3_235B, 2.0, 16384, "q4", False),
    ],
)
def test_verdicts(config: dict[str, Any], bpw: float, context: int, cache: str, fits: bool) -> None:
    assert plan(config, bpw, context=context, cache=cache).fits is fits


def test_a_70b_at_2_5_bits_lies_on_one_5090() -> None:
    p = plan(LLAMA_70B | {"vocab_size": 32000}, 2.5, context=4096, cache="q4")
    assert (p.fits, p.split, p.devices[0].layers, p.devices[1].needed) == (True, "single", 80, 0)
    assert p.gpu_split is not None
    assert p.gpu_split[1] == 0


def test_one_card_is_the_fastest_that_holds_it() -> None:
    cards = [Gpu("RTX 3060"), Gpu("RTX 4090"), Gpu("RTX 5090", free=1)]
    assert [device.used for device in plan(LLAMA_1B, 4.0, gpus=cards).devices] == [False, True, False]


def test_a_single_card_too_small_is_reported_not_split() -> None:
    p = plan(LLAMA_70B, 4.0, split="single")
    assert (p.fits, p.split) == (False, "single")
    assert p.devices[0].left < 0
    assert "too little" in p.why


def test_the_shortage_shows_on_the_last_card() -> None:
    p = plan(LLAMA_70B, 8.0)
    assert p.devices[0].fits
    assert not p.devices[1].fits
    shortage = f"needs {p.devices[1].needed} on RTX 4090, has 23.0 GiB: {Size(-p.devices[1].left)} too little"
    assert p.why == f"{shortage}; bpw=5.8 fits"


def test_the_high_end_decides() -> None:
    def fits(free: int) -> bool:
        return plan(LLAMA_1B, 4.0, gpus=[Gpu("RTX 4090", free=Size(free))]).fits

    needed = plan(LLAMA_1B, 4.0, gpus="RTX 4090").devices[0].needed
    assert fits(needed)
    assert not fits(needed - 1)


def test_what_was_measured_for_a_card_replaces_the_bracket() -> None:
    extra = plan(LLAMA_1B, 4.0, gpus=[Gpu("RTX 4090", overhead=0.4)]).devices[0].overhead_range
    assert (extra.low, extra.likely, extra.high) == (round(0.4 * GIB), round(0.4 * GIB), round(0.4 * GIB) + 128 * MIB)


def test_expert_buffers_follow_the_sms() -> None:
    dense, mixture = plan(LLAMA_70B, 4.0), plan(QWEN3_235B, 1.5)
    more = [b.overhead - a.overhead for a, b in zip(dense.devices, mixture.devices, strict=True)]
    assert [round(size / MIB, 1) for size in more] == [115.5, 88.0]


def test_reserves() -> None:
    kept = {
        "exllamav3": plan(LLAMA_70B, 4.0).devices,
        "asked": plan(LLAMA_70B, 4.0, reserve=[2, 0.1]).devices,
        "tabby": plan(LLAMA_70B, 4.0, engine="tabby").devices,
        "exllamav2": plan(LLAMA_70B, 4.0, "exl2").devices,
        "old tabby": plan(LLAMA_70B, 4.0, "exl2", engine="tabby").devices,
    }
    mib = {name: [device.reserve // MIB for device in devices] for name, devices in kept.items()}
    assert mib == {
        "exllamav3": [512, 512],
        "asked": [2048, 256],
        "tabby": [256, 512],
        "exllamav2": [448, 320],
        "old tabby": [352, 256],
    }


def test_a_manual_split_is_kept_to() -> None:
    p = plan(LLAMA_70B, 4.0, gpu_split=[20, 22])
    first, second = p.devices
    assert p.fits
    assert first.weights + first.cache + first.transient <= 20 * GIB
    assert first.layers < plan(LLAMA_70B, 4.0).devices[0].layers
    short = plan(LLAMA_70B, 4.0, gpu_split=[20, 10])
    assert not short.fits
    assert short.why == f"needs {short.devices[1].loaded} on RTX 4090, gpu_split allows 10.0 GiB; gpu_split=None fits"
    assert second.layers == short.devices[1].layers


def test_a_card_with_no_share_is_left_alone() -> None:
    p = plan(LLAMA_1B, 4.0, gpu_split=[0, 10])
    assert [device.layers for device in p.devices] == [0, 16]
    assert p.devices[0].needed == 0
    assert plan(LLAMA_1B, 4.0, gpu_split=[10]).devices[1].needed == 0


@pytest.mark.parametrize("bpw", [3.5, 4.0, 4.5])
def test_pasting_gpu_split_gives_the_same_plan(bpw: float) -> None:
    p = plan(LLAMA_70B, bpw, split="layers")
    again = p.replan(gpu_split=p.gpu_split)
    assert again.fits
    assert [device.layers for device in again.devices] == [device.layers for device in p.devices]
    assert again.gpu_split == p.gpu_split


def test_tabby_holds_a_chunk_more() -> None:
    plain, server = plan(LLAMA_1B, 4.0, context=8000), plan(LLAMA_1B, 4.0, context=8000, engine="tabby")
    assert (plain.cache_tokens, plain.longest_prompt) == (8192, 8190)
    assert (server.cache_tokens, server.longest_prompt) == (10240, 10240 - 2048 + 1)


def test_the_cache_is_one_pool() -> None:
    assert plan(LLAMA_1B, 4.0, slots=8).cache_tokens == 8192


def test_exllamav2_has_its_own_order_and_scratch() -> None:
    p = plan(LLAMA_70B, 4.0, "exl2", context=4096, cache="q4")
    assert (p.fits, p.split, p.gpu_split) == (True, "layers", None)
    assert sum(device.layers for device in p.devices) == 80
    assert p.devices[0].transient > GIB  # the head's scratch exists on every card that is used


def test_an_architecture_the_engine_lacks() -> None:
    gemma = LLAMA_1B | {"architectures": ["GemmaForCausalLM"]}
    assert plan(gemma, 4.0, "exl2").fits
    with pytest.raises(UnknownModel, match="exllamav3 does not load 'GemmaForCausalLM'"):
        plan(gemma, 4.0)


def test_a_window_costs_the_full_cache_here() -> None:
    windowed = LLAMA_1B | {"architectures": ["Gemma3ForCausalLM"], "sliding_window": 512}
    assert plan(windowed, 4.0).devices[0].cache == plan(LLAMA_1B, 4.0).devices[0].cache


# What nvidia-smi showed for real loads: oobabooga/textgen PR 6903 (exl3), exllamav2 issue 3, the miquliz-120b model page.
@pytest.mark.parametrize(
    ("hidden", "wide", "layers", "heads", "kv_heads", "vocab", "form", "bpw", "context", "cache", "mib"),
    [
        (5120, 27648, 64, 40, 8, 152064, "exl3", 4.0, 8192, "fp16", 18665),
        (5120, 27648, 64, 40, 8, 152064, "exl3", 4.0, 8192, "q4", 16827),
        (5120, 27648, 64, 40, 8, 152064, "exl3", 4.0, 8192, "4,8", 17097),
        (5120, 13824, 40, 40, 40, 32016, "exl2", 2.65, 2048, "fp16", 7968),
        (8192, 28672, 137, 64, 8, 32000, "exl2", 3.0, 6144, "fp16", 48305),
    ],
)
def test_published_loads_lie_within_the_bracket(
    hidden: int,
    wide: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    form: str,
    bpw: float,
    context: int,
    cache: str,
    mib: int,
) -> None:
    shape = {"hidden_size": hidden, "intermediate_size": wide, "num_hidden_layers": layers, "num_attention_heads": heads}
    shape |= {"num_key_value_heads": kv_heads, "head_dim": 128, "vocab_size": vocab, "tie_word_embeddings": False}
    config = shape | {"architectures": ["LlamaForCausalLM"]}
    use = plan(config, bpw, form, gpus=[Gpu("x", memory=80)], context=context, cache=cache).devices[0]
    assert use.weights + use.cache + use.overhead_range.low < mib * MIB < use.needed


def test_exllamav2_ends_at_a_card_without_room_for_its_reserve() -> None:
    busy = Gpu("RTX 3060", free=0.5)
    p = plan(LLAMA_70B, 3.5, "exl2", gpus=[busy, *CARDS], split="layers", context=4096)
    assert not p.fits
    assert "has 512.0 MiB" in p.why
    # ExLlamaV3 goes on to the next card; so does ExLlamaV2 from the last it needs.
    assert plan(LLAMA_70B, 3.5, gpus=[busy, *CARDS], split="layers", context=4096).fits
    assert plan(LLAMA_70B, 3.5, "exl2", gpus=[*CARDS, busy], split="layers", context=4096).fits


def test_auto_on_cards_without_any_room_says_by_how_much() -> None:
    """A tensor split cannot even be tried where the reserves take all that is free; the answer is still a plan."""
    full = plan(LLAMA_1B, 4.0, gpus=[Gpu("RTX 5090", free=0.3), Gpu("RTX 4090", free=0.3)])
    assert (full.fits, full.split) == (False, "layers")
    assert "too little" in full.why
    with pytest.raises(ConfigError, match="no card has any memory"):
        full.replan(split="tensor")

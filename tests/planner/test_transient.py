"""Working memory, against the loaders' own bounds and llama.cpp's printed buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import LLAMA_70B, QWEN3_235B

from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import Attention, Geometry, Layer, Mlp
from hydra_infer.planner import transient
from hydra_infer.planner.cache import rate_of
from hydra_infer.units import MIB

FP16, Q4 = rate_of("fp16", "exl3"), rate_of("q4", "exl3")
BIG, MOE = geometry_of(LLAMA_70B, Path("c")), geometry_of(QWEN3_235B, Path("c"))


def test_llama_70b_is_about_what_was_read_from_the_forward_pass() -> None:
    # 448 MiB of dequantised weight, 560 of fp32 intermediates, 96 of hidden states, and the fp32 residual (64).
    peak = transient.exllamav3_layer(BIG, BIG.layers[0], 2048, FP16, quantised=True)
    assert peak / MIB == pytest.approx(448 + 560 + 96 + 64)


def test_attention_alone_is_the_tp_allocators_264_mib() -> None:
    thin = Layer(BIG.layers[0].attention, Mlp(128))
    streams = 2048 * 8192 * 6
    assert (transient.exllamav3_layer(BIG, thin, 2048, FP16, quantised=True) - streams) / MIB == 264


def test_a_quantised_cache_stages_64k_tokens_and_an_accumulator() -> None:
    thin = Layer(BIG.layers[0].attention, Mlp(128))
    more = transient.exllamav3_layer(BIG, thin, 2048, Q4, quantised=True)
    streams, kept = 2048 * 8192 * 6, 2048 * 2 * (2 * 8192 + 2 * 1024)
    assert more - streams - kept == 65536 * 1024 * 2 * 2 + 2048 * 64 * 128 * 4


def test_a_mixture_is_its_loaders_794_mib() -> None:
    streams = 2048 * 4096 * 6
    peak = transient.exllamav3_layer(MOE, MOE.layers[0], 2048, FP16, quantised=True)
    assert (peak - streams) / MIB == pytest.approx(794, abs=0.5)


def test_smaller_chunks_need_less_and_plain_weights_no_second_copy() -> None:
    def peak(rows: int, quantised: bool) -> int:
        return transient.exllamav3_layer(BIG, BIG.layers[0], rows, FP16, quantised)

    assert peak(512, True) < 0.62 * peak(2048, True)
    assert peak(2048, True) - peak(2048, False) == 2 * 8192 * 28672


def test_exllamav2_llama_70b() -> None:
    # The largest fixed scratch is the head's 512M elements, as exllamav2 gives it; the MLP's is 704 MiB.
    fp16 = rate_of("fp16", "exl2")
    plain = transient.exllamav2(BIG, 2048, fp16, 4096)
    assert plain - 4 * 4096 * 128 - 5 * 2048 * 8192 * 2 == 1024 * MIB
    assert transient._scratch(8192, *BIG.plain_layers()[0], 2048) / MIB == pytest.approx(704, abs=0.5)
    copy = transient.exllamav2(BIG, 2048, rate_of("q4", "exl2"), 32768) - transient.exllamav2(BIG, 2048, fp16, 32768)
    assert copy == 128 * MIB


def shape(hidden: int, wide: int, heads: int, kv_heads: int, head_dim: int = 64, experts: int = 0, used: int = 0) -> Geometry:
    return Geometry("llama", hidden, 49152, (Layer(Attention(heads, kv_heads, head_dim), Mlp(wide, experts, used)),))


# "CPU compute buffer size" and "output buffer size" as xllamacpp 2026.10.11549 printed them, in MiB.
@pytest.mark.parametrize(
    ("geometry", "slots", "context", "rows", "printed"),
    [
        (shape(576, 1536, 9, 3), 1, 2048, 512, 16.64 + 0.19),
        (shape(576, 1536, 9, 3), 1, 4096, 512, 18.64 + 0.19),
        (shape(576, 1536, 9, 3), 1, 8192, 512, 22.64 + 0.19),
        (shape(576, 1536, 9, 3), 2, 2048, 512, 16.64 + 0.38),
        (shape(576, 1536, 9, 3), 1, 4096, 128, 4.66 + 0.19),
        (shape(1152, 1536, 9, 3), 1, 2048, 512, 22.27 + 0.19),
        (shape(576, 3072, 9, 3), 1, 2048, 512, 25.64 + 0.19),
        (shape(576, 256, 36, 36), 1, 2048, 512, 25.64 + 0.19),
        (shape(2048, 8192, 32, 8), 1, 2048, 512, 70.02 + 0.19),
        (shape(2048, 8192, 32, 8), 4, 2048, 512, 70.02 + 0.75),
        (shape(1024, 3072, 16, 8, 128), 1, 2048, 512, 30.02 + 0.19),
        (shape(1024, 256, 9, 3, 64, 64, 8), 1, 2048, 512, 40.02 + 0.19),
        (shape(1152, 512, 9, 3, 64, 32, 4), 1, 2048, 512, 34.27 + 0.19),
    ],
)
def test_llamacpp_as_printed(geometry: Geometry, slots: int, context: int, rows: int, printed: float) -> None:
    counted = transient.llamacpp(geometry, rows, slots, context, rate_of("f16", "gguf"), on_gpu=False)
    assert counted / MIB == pytest.approx(printed, rel=0.003, abs=0.02)


@pytest.mark.parametrize(
    ("geometry", "printed"),
    [
        (shape(576, 512, 9, 3, 64, 8, 2), 13.64),
        (shape(576, 512, 9, 3, 64, 8, 4), 19.64),
        (shape(2048, 1024, 9, 3, 64, 16, 2), 30.02),
    ],
)
def test_llamacpp_mixtures_are_never_underestimated(geometry: Geometry, printed: float) -> None:
    counted = transient.llamacpp(geometry, 512, 1, 2048, rate_of("f16", "gguf"), on_gpu=False) / MIB - 0.19
    assert printed <= counted < 1.45 * printed


def test_a_quantised_cache_is_copied_on_cards_only() -> None:
    geometry = shape(576, 1536, 9, 3)
    q8 = rate_of("q8_0", "gguf")
    on_card, in_ram = (transient.llamacpp(geometry, 512, 2, 4096, q8, on_gpu=where) for where in (True, False))
    assert on_card - in_ram == 2 * 2 * 4096 * 192 * 2

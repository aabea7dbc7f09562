"""Bytes per token of every cache, against the figures the real cache classes gave (exllamav3 1.6.5, exllamav2 0.3.2)."""

from __future__ import annotations

import pytest

from hydra_infer import ConfigError
from hydra_infer.planner.cache import pages, rate_of

# kv_width and layers of the models the real classes were asked about.
LLAMA_70B, QWEN3_235B, LLAMA_1B, SMOLLM2 = (1024, 80), (512, 94), (512, 16), (192, 30)


def per_token(cache: str, form: str, model: tuple[int, int]) -> float:
    width, layers = model
    return rate_of(cache, form).nbytes(width, 256) * layers / 256


@pytest.mark.parametrize(
    ("cache", "nbytes"),
    [("fp16", 327680), ("q8", 174080), ("q6", 133120), ("8,4", 133120), ("q4", 92160), ("q3", 71680), ("q2", 51200)],
)
def test_exl3_llama_70b(cache: str, nbytes: int) -> None:
    assert per_token(cache, "exl3", LLAMA_70B) == nbytes


@pytest.mark.parametrize(("cache", "nbytes"), [("fp16", 192512), ("q8", 102272), ("q6", 78208), ("q4", 54144)])
def test_exl3_qwen3_235b(cache: str, nbytes: int) -> None:
    assert per_token(cache, "exl3", QWEN3_235B) == nbytes


def test_exl3_llama_1b() -> None:
    assert (per_token("fp16", "exl3", LLAMA_1B), per_token("q4", "exl3", LLAMA_1B)) == (32768, 9216)


@pytest.mark.parametrize(("cache", "per_pair"), [("fp16", 4), ("fp8", 2), ("q8", 2.125), ("q6", 1.625), ("q4", 1.125)])
def test_exl2(cache: str, per_pair: float) -> None:
    assert per_token(cache, "exl2", LLAMA_70B) == per_pair * 1024 * 80


# llama.cpp prints "KV buffer size" 90.00 MiB (f16) and 47.81 MiB (q8_0) for SmolLM2-135M at 4096 tokens.
@pytest.mark.parametrize(("cache", "mib"), [("f16", 90.0), ("q8_0", 47.8125), ("q4_0", 25.3125), ("f32", 180.0)])
def test_gguf(cache: str, mib: float) -> None:
    assert per_token(cache, "gguf", SMOLLM2) * 4096 / 2**20 == mib


@pytest.mark.parametrize(
    ("typed", "form", "meant"),
    [
        ("FP16", "exl3", "fp16"),
        (" Q8 ", "exl3", "q8"),
        ("8, 4", "exl3", "8,4"),
        ("4,4", "exl3", "q4"),
        ("q4", "hf", "q4"),
        ("Q6", "exl2", "q6"),
        ("fp16", "gguf", "f16"),
        ("q8", "gguf", "q8_0"),
        ("Q8_0,Q4_0", "gguf", "q8_0,q4_0"),
        ("q5_1", "gguf", "q5_1"),
    ],
)
def test_spellings(typed: str, form: str, meant: str) -> None:
    assert rate_of(typed, form).name == meant


@pytest.mark.parametrize(
    ("cache", "form"),
    [
        ("q1", "exl3"),
        ("q9", "exl3"),
        ("9,4", "exl3"),
        ("8,4,2", "exl3"),
        ("q8_0", "exl3"),
        ("fp8", "exl3"),
        ("", "exl3"),
        ("8,4", "exl2"),
        ("q5", "exl2"),
        ("q6", "gguf"),
        ("8,4", "gguf"),
        ("q4_k", "gguf"),
        (8, "exl3"),
        (None, "gguf"),
    ],
)
def test_a_rate_the_format_lacks_is_refused_by_name(cache: str, form: str) -> None:
    with pytest.raises(ConfigError, match=f"cache={cache!r}"):
        rate_of(cache, form)


def test_pages() -> None:
    assert [pages(tokens) for tokens in (1, 255, 256, 257)] == [256, 256, 256, 512]

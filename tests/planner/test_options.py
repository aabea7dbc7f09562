"""The engines' own arguments for what was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic import LLAMA_1B, LLAMA_70B

from hydra_infer import Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request


def options(config: dict[str, Any] = LLAMA_70B, form: str = "exl3", **arguments: Any) -> dict[str, Any]:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=4.0)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments))).engine_options()


def test_exllamav3() -> None:
    assert options(context=8000, cache="8,4") == {
        "cache": {"max_num_tokens": 8192, "max_batch_size": 1, "k_bits": 8, "v_bits": 4},
        "load": {"max_chunk_size": 2048},
    }
    assert options(reserve=1)["load"]["reserve_per_device"] == [1.0, 1.0]
    assert options(LLAMA_1B)["load"]["device"] == "cuda:0"
    assert options(gpu_split=[20, 22])["load"]["use_per_device"] == [20.0, 22.0]
    assert options(split="tensor")["load"]["tensor_p"] is True
    assert "k_bits" not in options()["cache"]


def test_exllamav2() -> None:
    made = options(form="exl2", cache="q6", reserve=[1, 0.5], split="layers")
    assert made["cache"] == {"class": "ExLlamaV2Cache_Q6", "max_seq_len": 8192, "lazy": True}
    assert made["load"] == {"reserve_vram": [2**30, 2**29]}
    assert options(form="exl2")["cache"]["class"] == "ExLlamaV2Cache"
    assert options(form="exl2")["load"] == {}
    by_hand = options(form="exl2", gpu_split=[24, 16])
    assert by_hand == {"cache": {"class": "ExLlamaV2Cache", "max_seq_len": 8192}, "load": {"gpu_split": [24.0, 16.0]}}
    alone = options(LLAMA_1B, "exl2", gpus=["RTX 3060", "RTX 5090"])
    assert alone["load"] == {"gpu_split": [0.0, 99999.0]}
    assert "lazy" not in alone["cache"]


def test_llamacpp() -> None:
    made = options(form="gguf", cache="q8", slots=2, context=4096)
    assert (made["n_ctx"], made["n_parallel"], made["cache_type_k"], made["cache_type_v"]) == (8192, 2, "q8_0", "q8_0")
    assert (made["split_mode"], made["n_gpu_layers"]) == ("layer", 81)
    assert len(made["tensor_split"]) == 2
    assert options(LLAMA_1B, "gguf")["split_mode"] == "none"
    assert options(LLAMA_1B, "gguf", gpus=[])["n_gpu_layers"] == 0

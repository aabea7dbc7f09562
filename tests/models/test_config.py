"""config.json: real ones, and those that cannot be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_70B

from hydra_infer import ConfigError, UnknownModel
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import Attention, Geometry, Latent, Layer, Mlp

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


MIXTRAL = Mlp(14336, 8, 2, column_bytes=4, key="block_sparse_moe", names=("w3", "w1", "w2"))


def read(name: str) -> Geometry:
    path = CONFIGS / f"{name}.json"
    return geometry_of(json.loads(path.read_text()), path)


@pytest.mark.parametrize(
    ("name", "layers", "attention", "mlp", "vocab", "trained"),
    [
        ("Llama-3.1-8B", 32, Attention(32, 8, 128), Mlp(14336), 128256, 131072),
        ("Qwen2.5-14B", 48, Attention(40, 8, 128, bias=True), Mlp(13824), 152064, 131072),
        ("Qwen3-14B", 40, Attention(40, 8, 128, vectors=256), Mlp(17408, column_bytes=4), 151936, 40960),
        ("Mixtral-8x7B", 32, Attention(32, 8, 128), MIXTRAL, 32000, 32768),
        ("Qwen3-30B-A3B", 48, Attention(32, 4, 128, vectors=256), Mlp(768, 128, 8, column_bytes=4), 151936, 40960),
    ],
)
def test_real_ones(name: str, layers: int, attention: Attention, mlp: Mlp, vocab: int, trained: int) -> None:
    geometry = read(name)
    assert len(geometry.layers) == layers
    assert {layer.attention for layer in geometry.layers} == {attention}
    assert {layer.mlp for layer in geometry.layers} == {mlp}
    assert (geometry.vocab, geometry.trained_context, geometry.tied) == (vocab, trained, False)


def kinds(name: str) -> Counter[str]:
    def kind(layer: Layer) -> str:
        mixer = layer.attention
        word = type(mixer).__name__ + (" ring" if isinstance(mixer, Attention) and mixer.ring else "")
        word += " indexed" if isinstance(mixer, Latent) and mixer.indexer else ""
        return word + (" moe" if layer.mlp and layer.mlp.experts else " dense" if layer.mlp else "")

    return Counter(kind(layer) for layer in read(name).layers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-oss-20b", {"Attention ring moe": 12, "Attention moe": 12}),
        ("gemma-3-27b-it", {"Attention dense": 62}),
        ("gemma-4-26B-A4B", {"Attention ring moe": 25, "Attention moe": 5}),
        ("Qwen3-Next-80B-A3B-Thinking", {"Recurrent moe": 36, "Attention moe": 12}),
        ("Qwen3.5-27B", {"Recurrent dense": 48, "Attention dense": 16}),
        ("Kimi-K2-Instruct", {"Latent dense": 1, "Latent moe": 60}),
        ("GLM-5.2-NVFP4", {"Latent indexed dense": 3, "Latent indexed moe": 18, "Latent moe": 57}),
        ("Nemotron-H-56B-Base-8K", {"Recurrent": 54, "NoneType dense": 54, "Attention": 10}),
        ("Llama-3_3-Nemotron-Super-49B-v1", {"Attention dense": 49, "NoneType dense": 31}),
    ],
)
def test_kinds_of_layers(name: str, expected: dict[str, int]) -> None:
    assert kinds(name) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"architectures": ["Qwen4ExpForConditionalGeneration"]},
            "architecture 'Qwen4ExpForConditionalGeneration' .*: exllamav3 knows it, the planner does not yet",
        ),
        ({"architectures": ["DFlashDraftModel"]}, "'DFlashDraftModel' .* is a drafter, which runs only beside a main model"),
        ({"architectures": ["Llama4ForCausalLM"]}, "architecture 'Llama4ForCausalLM' .* is not known to exllamav3 1.6.5"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownModel, match=words):
        geometry_of(LLAMA_70B | change, Path("c"))


def test_experts_in_groups_are_refused() -> None:
    with pytest.raises(UnknownModel, match="does not load experts in groups .n_group is 8."):
        read("DeepSeek-V3")


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("gpt-oss-20b", {"layer_types": ["sliding_attention"]}, "layer_types has 'None' for layer 1"),
        ("gpt-oss-20b", {"layer_types": "full_attention"}, "layer_types has 'None' for layer 0"),
        ("GLM-5.2-NVFP4", {"indexer_types": ["half"] * 78}, "indexer_types has 'half' for layer 0"),
        ("Kimi-K2-Instruct", {"first_k_dense_replace": -1}, "first_k_dense_replace is '-1'"),
        ("Kimi-K2-Instruct", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ("Llama-3_3-Nemotron-Super-49B-v1", {"block_configs": [{}]}, "block_configs does not describe block 0"),
        ("Nemotron-H-56B-Base-8K", {"hybrid_override_pattern": "MX"}, "hybrid_override_pattern has the unknown block 'X'"),
        ("Nemotron-H-56B-Base-8K", {"hybrid_override_pattern": ""}, "hybrid_override_pattern is no pattern"),
        ("gemma-3-27b-it", {"text_config": 3}, "text_config is missing"),
    ],
)
def test_fields_of_one_architecture(name: str, change: dict[str, Any], field: str) -> None:
    path = CONFIGS / f"{name}.json"
    with pytest.raises(ConfigError, match=field):
        geometry_of(json.loads(path.read_text()) | change, path)


def test_a_mixture_with_some_dense_layers() -> None:
    config = json.loads((CONFIGS / "Qwen3-30B-A3B.json").read_text()) | {"decoder_sparse_step": 2, "mlp_only_layers": [3]}
    layers = geometry_of(config, Path("c")).layers
    assert [bool(layer.mlp.experts) for layer in layers[:6]] == [False, True, False, False, False, True]
    assert layers[0].mlp == Mlp(config["intermediate_size"])


def gemma(name: str, **more: Any) -> list[int | None]:
    config = LLAMA_70B | {"architectures": [name], "num_hidden_layers": 6, "sliding_window": 512} | more
    return [layer.attention.window for layer in geometry_of(config, Path("c")).layers]


def test_windows() -> None:
    assert gemma("Gemma2ForCausalLM") == [512, None] * 3
    assert gemma("Gemma3ForCausalLM") == [512] * 5 + [None]
    types = ["full_attention"] + ["sliding_attention"] * 5
    assert gemma("Gemma3ForCausalLM", layer_types=types) == [None] + [512] * 5
    assert gemma("MistralForCausalLM") == [None] * 6


def test_defaults() -> None:
    short = {key: value for key, value in LLAMA_70B.items() if key not in ("num_key_value_heads", "head_dim")}
    geometry = geometry_of(short, Path("c"))
    assert geometry.layers[0].attention == Attention(64, 64, 128)
    assert geometry_of(short | {"architectures": ["GemmaForCausalLM"]}, Path("c")).layers[0].attention.head_dim == 256


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": 4096.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 10**30}, "hidden_size"),
        ({"hidden_size": "8192"}, "hidden_size"),
        ({"hidden_size": 8191, "head_dim": None}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 7}, "num_key_value_heads"),
        ({"num_key_value_heads": 65}, "num_key_value_heads"),
        ({"vocab_size": []}, "vocab_size"),
        ({"intermediate_size": {}}, "intermediate_size"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"max_position_embeddings": -5}, "max_position_embeddings"),
        ({"architectures": []}, "architectures"),
        ({"architectures": ["A", "B"]}, "architectures"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"architectures": [3]}, "architectures"),
    ],
)
def test_impossible_fields_are_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"some/config.json: {field} "):
        geometry_of(LLAMA_70B | change, Path("some/config.json"))

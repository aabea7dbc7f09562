"""config.json: real ones, and those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_70B

from hydra_infer import ConfigError, UnknownModel
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import Attention, Geometry, Mlp

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


def read(name: str) -> Geometry:
    path = CONFIGS / f"{name}.json"
    return geometry_of(json.loads(path.read_text()), path)


@pytest.mark.parametrize(
    ("name", "layers", "attention", "mlp", "vocab", "trained"),
    [
        ("Llama-3.1-8B", 32, Attention(32, 8, 128), Mlp(14336), 128256, 131072),
        ("Qwen2.5-14B", 48, Attention(40, 8, 128), Mlp(13824), 152064, 131072),
        ("Qwen3-14B", 40, Attention(40, 8, 128), Mlp(17408), 151936, 40960),
        ("Mixtral-8x7B", 32, Attention(32, 8, 128), Mlp(14336, 8, 2), 32000, 32768),
        ("Qwen3-30B-A3B", 48, Attention(32, 4, 128), Mlp(768, 128, 8), 151936, 40960),
    ],
)
def test_real_ones(name: str, layers: int, attention: Attention, mlp: Mlp, vocab: int, trained: int) -> None:
    geometry = read(name)
    assert len(geometry.layers) == layers
    assert {layer.attention for layer in geometry.layers} == {attention}
    assert {layer.mlp for layer in geometry.layers} == {mlp}
    assert (geometry.vocab, geometry.trained_context, geometry.tied) == (vocab, trained, False)


@pytest.mark.parametrize(
    ("name", "architecture"), [("DeepSeek-V3", "DeepseekV3ForCausalLM"), ("Qwen3.5-27B", "Qwen3_5ForConditionalGeneration")]
)
def test_what_is_not_covered_is_refused_by_name(name: str, architecture: str) -> None:
    with pytest.raises(UnknownModel, match=f"architecture '{architecture}'"):
        read(name)


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

"""Weights per layer, against the sizes exllamav3 1.6.5 and exllamav2 0.3.2 gave for the same headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B, exl2, exl3, gguf, plain, sparse_safetensors

from hydra_infer import ConfigError, UnknownModel
from hydra_infer.models.config import geometry_of
from hydra_infer.models.folder import read_model
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.weights import Weights, weigh
from hydra_infer.units import GIB, MIB

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
SMALL = LLAMA_1B | {"num_hidden_layers": 2, "vocab_size": 1024}


def of(path: Path) -> Weights:
    return weigh(read_model(path))


def test_exl3_llama_70b(tmp_path: Path) -> None:
    weights = of(exl3(tmp_path / "m", LLAMA_70B, 4.0))
    assert weights.layers[0].total == weights.layers[79].total == 428_175_388
    assert weights.on_device / GIB == pytest.approx(32.64, abs=0.005)
    assert weights.embedding / GIB == pytest.approx(1.96, abs=0.005)
    assert weights.other == 0


def test_exl3_llama_1b_has_a_head_of_its_own(tmp_path: Path) -> None:
    weights = of(exl3(tmp_path / "m", LLAMA_1B, 4.0))
    assert weights.on_device / GIB == pytest.approx(0.638, abs=0.001)
    assert weights.embedding / GIB == pytest.approx(0.49, abs=0.005)


def test_exl3_mixture(tmp_path: Path) -> None:
    layer = of(exl3(tmp_path / "m", QWEN3_235B | {"num_hidden_layers": 2}, 3.0)).layers[0]
    assert layer.total / 1e6 == pytest.approx(938.2, abs=0.2)
    assert layer.copies == 2 * 2 * 128 * 4096  # the router once more transposed, and once in two 8-bit halves


def test_exl2_llama_70b(tmp_path: Path) -> None:
    weights = of(exl2(tmp_path / "m", LLAMA_70B, 3.5))
    # The file is 30.59 GiB; on the card the embedding is missing and a group map of 4 bytes per input row is there.
    rows = 80 * (6 * 8192 + 28672) + 8192
    assert (weights.on_device + weights.embedding - 4 * rows) / GIB == pytest.approx(30.59, abs=0.005)


def test_plain_weights_are_loaded_as_16_bit(tmp_path: Path) -> None:
    half = of(plain(tmp_path / "half", SMALL))
    single = of(plain(tmp_path / "single", SMALL, "F32"))
    assert single == half
    assert half.head == half.embedding == 2 * 1024 * 2048  # tied: a second copy on the card


def test_gguf(tmp_path: Path) -> None:
    weights = of(gguf(tmp_path / "m.gguf", LLAMA_1B, "q8_0"))
    elements = 2048 * (2048 + 2048 + 512 + 512) + 3 * 2048 * 8192
    assert weights.layers[0].total == elements * 34 // 32 + 2 * 4 * 2048
    assert weights.head == weights.embedding == 128256 * 2048 * 34 // 32


@pytest.mark.parametrize("form", ["exl3", "exl2", "hf", "gguf"])
def test_a_shape_alone_comes_close_to_the_files(tmp_path: Path, form: str) -> None:
    make = {"exl3": exl3, "exl2": exl2}.get(form)
    path = make(tmp_path / "m", LLAMA_70B, 4.0) if make else plain(tmp_path / "m", LLAMA_70B)
    path = gguf(tmp_path / "m.gguf", LLAMA_70B, "q4_k") if form == "gguf" else path
    bits = {"hf": 16.0, "gguf": 4.5}.get(form, 4.0)
    read = of(path)
    guessed = weigh(ModelSpec("m", path, form, geometry_of(LLAMA_70B, path), bpw=bits))
    assert guessed.on_device == pytest.approx(read.on_device, rel=0.0005)
    assert guessed.embedding == pytest.approx(read.embedding, rel=0.0005)
    assert guessed.layers[0].attention == pytest.approx(read.layers[0].attention, rel=0.002)


def test_a_mixture_from_its_shape_alone(tmp_path: Path) -> None:
    config = QWEN3_235B | {"num_hidden_layers": 2}
    read = of(exl3(tmp_path / "m", config, 3.0))
    guessed = weigh(ModelSpec("m", tmp_path, "exl3", geometry_of(config, tmp_path), bpw=3.0))
    assert guessed.on_device == pytest.approx(read.on_device, rel=0.0001)


def test_tensors_no_layer_uses_are_set_apart(tmp_path: Path) -> None:
    folder = exl3(tmp_path / "m", SMALL, 4.0)
    sparse_safetensors(folder / "vision.safetensors", [("visual.merger.weight", "F16", [1024, 1024])])
    sparse_safetensors(folder / "mtp.safetensors", [("model.layers.2.mlp.up_proj.trellis", "I16", [MIB])])
    weights = of(folder)
    assert (weights.vision, weights.other) == (2 * MIB, 2 * MIB)


# The linears of the towers, as exllamav3's converter stores them, and what is beside them.
@pytest.mark.parametrize(
    ("name", "linears", "others"),
    [
        ("Qwen3-VL-30B-A3B-Instruct", 404373928, 9158400),
        ("Qwen3.5-27B", 345858448, 9103104),
        ("gemma-3-27b-it", 835070688, 23436288 - 2 * 1152 * 5376),
        ("gemma-4-26B-A4B", 416564220, 47447136),
        ("made-up-Qwen2_5_VL", 5779456, 604672),
        ("made-up-Gemma4Unified", 1441800, 160768),
        ("made-up-Glm4v", 1943368, 1788416),
        ("made-up-Glm5Next", 2092360, 1657344),
        ("made-up-HCXVisionV2", 5779456 + 2 * 512 * 512, 604672),
        ("made-up-Lfm2Vl", 1553208, 534016),
        ("made-up-MuseGlimmer", 1860668, 739328),
        ("made-up-NemotronH_Omni", 5121024, 1713152),
        ("made-up-Step3p7", 1603636, 12238848),
        ("Qwen3-14B", 0, 0),
    ],
)
def test_vision_towers_from_a_config_alone(name: str, linears: int, others: int) -> None:
    path = CONFIGS / f"{name}.json"
    geometry = geometry_of(json.loads(path.read_text()), path)
    weights = weigh(ModelSpec(name, path, "exl3", geometry, bpw=4.0))
    assert weights.vision == linears + others
    assert weights.on_device - weights.vision == sum(module.weights + module.copies for module in weights.modules)


def test_a_vision_tower_nobody_sized_is_refused() -> None:
    path = CONFIGS / "Qwen3-14B.json"
    config = json.loads(path.read_text()) | {"architectures": ["MiMoV2ForCausalLM"], "vision_config": {"hidden_size": 1536}}
    with pytest.raises(UnknownModel, match="the vision tower of 'MiMoV2ForCausalLM'"):
        geometry_of(config, path)


def test_weights_that_are_not_this_model(tmp_path: Path) -> None:
    folder = exl3(tmp_path / "m", SMALL | {"num_hidden_layers": 1}, 4.0)
    geometry = geometry_of(SMALL, folder)
    tensors = read_model(folder).tensors
    with pytest.raises(ConfigError, match="no weights for model.layers.1.self_attn.q_proj"):
        weigh(ModelSpec("m", folder, "exl3", geometry, tensors))
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head")}
    untied = geometry_of(SMALL | {"num_hidden_layers": 1, "tie_word_embeddings": False}, folder)
    with pytest.raises(ConfigError, match="no weights for lm_head"):
        weigh(ModelSpec("m", folder, "exl3", untied, headless))
    rootless = {name: tensor for name, tensor in tensors.items() if "embed" not in name}
    with pytest.raises(ConfigError, match="no weights for the embedding"):
        weigh(ModelSpec("m", folder, "exl3", untied, rootless))

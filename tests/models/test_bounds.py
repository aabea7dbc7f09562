"""Hostile files of 1 MiB: each is refused, or read, within 64 MiB of memory, whatever it claims to hold."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import gguf_string

from hydra_infer.errors import ConfigError, UnknownModel
from hydra_infer.models.folder import read_model

MIB = 2**20
ARRAY, STRING, UINT8 = 9, 8, 0


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def gguf(tensors: int, entries: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + rest


def fill(piece: Callable[[int], bytes], size: int = MIB) -> bytes:
    """As many different pieces as go into `size` bytes."""
    made, total = [], 0
    for number in range(size):
        part = piece(number)
        total += len(part)
        if total > size:
            break
        made.append(part)
    return b"".join(made)


def entry(number: int) -> bytes:
    return b'"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' % number


NESTED_GGUF = gguf_string("k") + struct.pack("<I", ARRAY) + fill(lambda _: struct.pack("<IQ", ARRAY, 1))

HOSTILE: dict[str, tuple[str, bytes]] = {
    "many empty tensors": ("model.safetensors", safetensors(b"{" + fill(entry).rstrip(b",") + b"}")),
    "deep header": ("model.safetensors", safetensors(b'{"a":' + b"[" * (MIB // 2) + b"]" * (MIB // 2) + b"}")),
    "a key twice, the last of many": (
        "model.safetensors",
        safetensors(b"{" + fill(lambda n: b'"%d":0,' % n) + b'"z":0,"z":0}'),
    ),
    "wide header": ("model.safetensors", safetensors(b'{"a":[' + b"0," * (MIB // 2) + b"0]}")),
    "long number in a header": ("model.safetensors", safetensors(b'{"a":' + b"9" * MIB + b"}")),
    "a header of 2 GiB": ("model.safetensors", struct.pack("<Q", 2**31) + b"{" * 64),
    "a header of 8 EiB": ("model.safetensors", struct.pack("<Q", 2**63 - 1)),
    "a negative offset": ("model.safetensors", safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}')),
    "deep config": ("config.json", b'{"a":' + b"[" * (MIB // 2) + b"]" * (MIB // 2) + b"}"),
    "wide config": ("config.json", b'{"architectures":[' + b'"",' * (MIB // 4) + b'""]}'),
    "long number in a config": ("config.json", b'{"hidden_size":' + b"9" * MIB + b"}"),
    "not a number in a config": ("config.json", b'{"architectures":["LlamaForCausalLM"],"hidden_size":NaN}'),
    "a billion layers": ("config.json", json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 10**9}).encode()),
    "an index of nothing": (
        "model.safetensors.index.json",
        json.dumps({"weight_map": {f"t{n}": f"{n}.safetensors" for n in range(20000)}}).encode(),
    ),
    "many keys": ("m.gguf", gguf(0, 2**40, fill(lambda n: gguf_string(f"k{n}") + struct.pack("<IB", UINT8, 0)))),
    "many tensors": ("m.gguf", gguf(2**40, 0, fill(lambda n: gguf_string(f"t{n}") + struct.pack("<IQIQ", 1, 8, 0, 32 * n)))),
    "lists in lists": ("m.gguf", gguf(0, 1, NESTED_GGUF)),
    "a list of 2^60 words": ("m.gguf", gguf(0, 1, gguf_string("k") + struct.pack("<IIQ", ARRAY, STRING, 2**60) + bytes(MIB))),
    "a key of 2^60 bytes": ("m.gguf", gguf(0, 1, struct.pack("<Q", 2**60) + bytes(MIB))),
    "a text of 1 MiB": (
        "m.gguf",
        gguf(0, 2, gguf_string("general.architecture") + struct.pack("<I", STRING) + gguf_string("x" * MIB)),
    ),
    "zeros": ("m.gguf", bytes(MIB)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_mebibyte_costs_at_most_64(tmp_path: Path, case: str) -> None:
    name, content = HOSTILE[case]
    if name.endswith(".safetensors"):
        (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / name).write_bytes(content)
    assert len(content) < 1.2 * MIB
    tracemalloc.start()
    try:
        with pytest.raises((ConfigError, UnknownModel)) as caught:
            read_model(tmp_path / name if name.endswith(".gguf") else tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB
    assert len(str(caught.value)) < 2000  # the refusal does not repeat the file

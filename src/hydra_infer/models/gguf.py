"""The header of a GGUF file (versions 2 and 3): its metadata and tensor table, within bounds.

Layout: magic, version (u32), counts of tensors and of metadata (u64), the metadata, the tensor table, padding to the
alignment, the data. Source: ggml's docs/gguf.md and gguf.cpp; type numbers and block sizes: ggml.h and ggml-common.h of
llama.cpp as of October 2026, the same as PyPI gguf 0.19.0 has up to type 41.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigError
from ..units import MIB, Size
from .spec import Tensor

__all__ = ["TYPES", "GgmlType", "GgufHeader", "Value", "read_header"]


@dataclass(frozen=True, slots=True)
class GgmlType:
    """`block` elements take `nbytes` bytes."""

    name: str
    block: int
    nbytes: int


TYPES = {
    number: GgmlType(*row)
    for number, row in {
        0: ("f32", 1, 4), 1: ("f16", 1, 2), 30: ("bf16", 1, 2), 28: ("f64", 1, 8),
        24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8),
        2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22), 7: ("q5_1", 32, 24),
        8: ("q8_0", 32, 34), 9: ("q8_1", 32, 40), 41: ("q1_0", 128, 18), 42: ("q2_0", 64, 18),
        10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176),
        14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292), 20: ("iq4_nl", 32, 18), 23: ("iq4_xs", 256, 136),
        16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 22: ("iq2_s", 256, 82), 18: ("iq3_xxs", 256, 98),
        21: ("iq3_s", 256, 110), 19: ("iq1_s", 256, 50), 29: ("iq1_m", 256, 56),
        34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36),
    }.items()
}  # fmt: skip

# Bounds, far above anything published: the largest vocabularies have about 260,000 tokens and 600,000 merges (some 20 MiB
# of header), the largest models some 100,000 tensors. They keep a hostile file from costing more than seconds.
MAX_HEADER = 64 * MIB
MAX_METADATA = 2**16
MAX_TENSORS = 2**20
MAX_ARRAY = 2**21
MAX_NAME = 2**16
KEPT_ARRAY = 2**12
KEPT_STRING = 2**12
MAX_DIMENSIONS = 4

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}

Value = int | float | str | bool | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`metadata` has scalars, short strings and short number arrays; `counts` the length of every array there is."""

    metadata: Mapping[str, Value]
    counts: Mapping[str, int]
    tensors: Mapping[str, Tensor]


def read_header(path: Path) -> GgufHeader:
    """Read one GGUF file's header. Raises ConfigError naming file and field for anything malformed."""
    try:
        with path.open("rb") as file:
            return _header(_Cursor(path, file))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


class _Cursor:
    """Reads forward through a file's beginning, never beyond it and never more than MAX_HEADER."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = file.seek(0, 2)
        file.seek(0)
        self.at = 0
        self._file = file
        self._bytes = b""

    def fail(self, problem: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.path}: {problem}", hint=hint)

    def skip(self, count: int, what: str) -> int:
        """Go `count` bytes ahead; gives the position before."""
        end = self.at + count
        if end > self.size:
            raise self.fail(f"ends within {what}", "the file is cut short, or not what it seems")
        if end > MAX_HEADER:
            raise self.fail(f"{what} lies beyond {Size(MAX_HEADER)}: no header is that long")
        if end > len(self._bytes):
            # At least double, so that walking a long list stays linear in its length.
            self._bytes += self._file.read(max(end - len(self._bytes), len(self._bytes), MIB))
        start, self.at = self.at, end
        return start

    def take(self, count: int, what: str) -> bytes:
        start = self.skip(count, what)
        return self._bytes[start : self.at]

    def number(self, code: str, what: str) -> int | float | bool:
        start = self.skip(struct.calcsize("<" + code), what)
        value: int | float | bool = struct.unpack_from("<" + code, self._bytes, start)[0]
        return value

    def count(self, code: str, most: int, what: str) -> int:
        value = int(self.number(code, what))
        if value > most:
            raise self.fail(f"{what} is {value}, more than the {most} any model has")
        return value

    def text(self, most: int, what: str) -> str:
        return self.take(self.count("Q", most, f"the length of {what}"), what).decode("utf-8", errors="replace")


def _header(cursor: _Cursor) -> GgufHeader:
    magic = cursor.take(min(4, cursor.size), "the magic")
    if magic != b"GGUF":
        raise cursor.fail(
            f"not a GGUF file: it begins with {magic!r}, not b'GGUF'", hint="give a .gguf file, or a model's folder"
        )
    version = int(cursor.number("I", "the version"))
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        problem = "big-endian GGUF is not read here" if swapped else f"GGUF version {version} is not 2 or 3"
        raise cursor.fail(problem, "make the file again with a current llama.cpp")
    tensor_count = cursor.count("Q", MAX_TENSORS, "the number of tensors")
    metadata, counts = _metadata(cursor, cursor.count("Q", MAX_METADATA, "the number of metadata entries"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MIB or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {alignment!r:.100}, not a power of two")
    return GgufHeader(metadata, counts, _tensors(cursor, tensor_count, alignment))


def _metadata(cursor: _Cursor, entries: int) -> tuple[dict[str, Value], dict[str, int]]:
    values: dict[str, Value] = {}
    counts: dict[str, int] = {}
    for _ in range(entries):
        key = cursor.text(MAX_NAME, "a metadata key")
        if key in values or key in counts:
            raise cursor.fail(f"metadata {key!r:.100} appears twice")
        kind = int(cursor.number("I", f"the type of {key!r:.100}"))
        if kind == _ARRAY:
            counts[key], kept = _array(cursor, key)
            if kept is not None:
                values[key] = kept
        elif kind == _STRING:
            length = cursor.count("Q", MAX_HEADER, f"the length of {key!r:.100}")
            text = cursor.take(length, key)
            if length <= KEPT_STRING:
                values[key] = text.decode("utf-8", errors="replace")
        elif kind in _SCALARS:
            values[key] = cursor.number(_SCALARS[kind], key)
        else:
            raise cursor.fail(f"metadata {key!r:.100} has the unknown type {kind}")
    return values, counts


def _array(cursor: _Cursor, key: str) -> tuple[int, tuple[int | float | bool, ...] | None]:
    """The length of an array, and its numbers where they are few; vocabularies are only walked over."""
    kind = int(cursor.number("I", f"the element type of {key!r:.100}"))
    length = cursor.count("Q", MAX_ARRAY, f"the length of {key!r:.100}")
    if kind == _STRING:
        what = f"the length of a string in {key!r:.100}"
        for _ in range(length):
            cursor.skip(cursor.count("Q", MAX_HEADER, what), key)
        return length, None
    if kind not in _SCALARS:
        raise cursor.fail(f"metadata {key!r:.100} is an array of the unknown type {kind}")
    code = _SCALARS[kind]
    data = cursor.take(length * struct.calcsize("<" + code), key)
    return length, struct.unpack(f"<{length}{code}", data) if length <= KEPT_ARRAY else None


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    offsets: list[tuple[int, int, str]] = []
    for _ in range(count):
        name = cursor.text(MAX_NAME, "a tensor name")
        if name in tensors:
            raise cursor.fail(f"tensor {name!r:.100} appears twice")
        dimensions = cursor.count("I", MAX_DIMENSIONS, f"the number of dimensions of {name!r:.100}")
        shape = tuple(int(cursor.number("Q", f"the shape of {name!r:.100}")) for _ in range(dimensions))
        tensors[name] = _tensor(cursor, name, shape, int(cursor.number("I", f"the type of {name!r:.100}")))
        offset = int(cursor.number("Q", f"the offset of {name!r:.100}"))
        if offset % alignment:
            raise cursor.fail(f"tensor {name!r:.100} begins at {offset}, which is no multiple of {alignment}")
        offsets.append((offset, offset + tensors[name].nbytes, name))
    _check_ranges(cursor, offsets, -(-cursor.at // alignment) * alignment)
    return tensors


def _tensor(cursor: _Cursor, name: str, shape: tuple[int, ...], number: int) -> Tensor:
    kind = TYPES.get(number)
    if kind is None:
        raise cursor.fail(f"tensor {name!r:.100} has the unknown ggml type {number}", "it needs a newer hydra_infer")
    elements = math.prod(shape)
    if elements >= 2**63 or (shape[0] if shape else 1) % kind.block:
        raise cursor.fail(f"tensor {name!r:.100} of shape {list(shape)} cannot be {kind.name} (blocks of {kind.block})")
    return Tensor(name, kind.name, shape, elements // kind.block * kind.nbytes)


def _check_ranges(cursor: _Cursor, offsets: list[tuple[int, int, str]], data: int) -> None:
    last_end, last = 0, ""
    for begin, end, name in sorted(offsets):
        if data + end > cursor.size:
            raise cursor.fail(
                f"tensor {name!r:.100} ends at byte {data + end}, the file at {cursor.size}",
                "the file is cut short: download it again",
            )
        if begin < last_end and begin < end:
            raise cursor.fail(f"tensors {last!r:.100} and {name!r:.100} overlap")
        last_end, last = max(last_end, end), name

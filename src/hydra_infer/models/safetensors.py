"""The header of a safetensors file: which tensors it holds, without reading one of them.

Format: 8 bytes little-endian length, that many bytes of JSON, then the data. The checks are those a loader relies on;
the 100 MiB bound on the header is the one of exllamav3 1.6.5 (loader/safetensors.py) and of the reference reader.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..units import MIB, Size
from .spec import Tensor
from .strict_json import JsonDict, parse_object

__all__ = ["read_header"]

MAX_HEADER = 100 * MIB

# Bytes per element. Types that pack several elements into a byte, or that come later, are left to their byte range.
ELEMENT = dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1)
ELEMENT |= dict.fromkeys(("U16", "I16", "F16", "BF16"), 2)
ELEMENT |= dict.fromkeys(("U32", "I32", "F32"), 4)
ELEMENT |= dict.fromkeys(("U64", "I64", "F64"), 8)


def read_header(path: Path) -> dict[str, Tensor]:
    """Name -> Tensor. Raises ConfigError naming file and tensor for a header that lies about its data."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 0 < length <= min(MAX_HEADER, size - 8):
                raise ConfigError(
                    f"{path} is no safetensors file: its header would be {length} bytes, the file is {Size(size)}",
                    hint=f"a header is at most {Size(MAX_HEADER)} and inside the file; is the download complete?",
                )
            text = file.read(length)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    with _uncollected():
        return _tensors(path, text, size - 8 - length)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cycle collector: none of these objects is in a cycle, and looking at all of them again and again takes
    half the time of reading the 146,364 tensors of a Qwen3-235B.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _tensors(path: Path, text: bytes, data_size: int) -> dict[str, Tensor]:
    header = parse_object(text, f"the header of {path}")
    header.pop("__metadata__", None)
    ranges = []
    tensors = {}
    for name, entry in header.items():
        tensors[name], begin = _tensor(path, name, entry, data_size)
        ranges.append((begin, begin + tensors[name].nbytes, name))
    _refuse_overlap(path, ranges)
    return tensors


def _tensor(path: Path, name: str, entry: Any, data_size: int) -> tuple[Tensor, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise ConfigError(f"{path}: tensor {name!r:.100} has no dtype")
    shape, (begin, end) = _integers(path, name, entry, "shape"), _offsets(path, name, entry)
    if end > data_size:
        raise ConfigError(
            f"{path}: tensor {name!r:.100} ends at byte {end} of {data_size}",
            hint="the file is cut short: download it again",
        )
    element = ELEMENT.get(entry["dtype"])
    if element is not None and math.prod(shape) * element != end - begin:
        raise ConfigError(
            f"{path}: tensor {name!r:.100} is {list(shape)} of {entry['dtype']}, {math.prod(shape) * element} bytes, "
            f"but its data_offsets span {end - begin}"
        )
    return Tensor(name, entry["dtype"], shape, end - begin), begin


def _offsets(path: Path, name: str, entry: JsonDict) -> tuple[int, int]:
    offsets = _integers(path, name, entry, "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ConfigError(f"{path}: tensor {name!r:.100} has data_offsets {list(offsets)}")
    return offsets[0], offsets[1]


def _integers(path: Path, name: str, entry: JsonDict, field: str) -> tuple[int, ...]:
    values = entry.get(field)
    # bool is an int by inheritance, and no number here.
    if (
        isinstance(values, list)
        and set(map(type, values)) <= {int}
        and not (values and (min(values) < 0 or max(values) >= 2**63))
    ):
        return tuple(values)
    raise ConfigError(f"{path}: tensor {name!r:.100} has {field} {str(values)[:80]}")


def _refuse_overlap(path: Path, ranges: list[tuple[int, int, str]]) -> None:
    ranges = sorted(one for one in ranges if one[0] < one[1])
    for (_, end, first), (begin, _, second) in pairwise(ranges):
        if begin < end:
            raise ConfigError(f"{path}: tensors {first!r:.100} and {second!r:.100} overlap")

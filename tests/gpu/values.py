"""Values for a model of true shapes: random codes that give finite logits, and a head that always says the same token.

ExLlamaV3's codes may be any bits: a weight is decoded from a window of 16 of them by the mul1 codebook to a value of mean 0
and variance 1, at most 3.5 (exllamav3 1.6.5, exllamav3_ext/quant/codebook.cuh), so `svh` = 1 / sqrt(rows) keeps every layer's
output near 1. ExLlamaV2's scales do the same for its integers (exllamav2_ext/cuda/quant/qdq_util.cuh).
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["LOUD", "MUL1", "fill", "pattern_of"]

# The marker of the codebook, which the loader compares (exllamav3 1.6.5, loader/safetensors.py get_codebook_marker).
MUL1 = 0x83DCD12D

# The bias of the one token: the other logits are spread around 0 with a deviation of 1.
LOUD = 60.0

# As many random values as are made; longer tensors repeat them from another start. A prime: rows do not line up with it.
VALUES = 262147
CODES = 2**25

# Standard deviation of what an EXL2 integer of so many bits stands for before its scale: uniform over 2**bits.
SPREAD = {bits: math.sqrt((4**bits - 1) / 12) for bits in (4, 6)}

WIDTH = {"F16": 2, "BF16": 2, "I16": 2, "I32": 4, "F32": 4, "I64": 8}


def fill(path: Path, *, says: int | None = None, seed: int = 1) -> int:
    """Write values into the safetensors file at `path`, which has a header and a hole; returns the bytes written.

    `says` is the token that a bias on the head, where the header has one, makes the answer at every step.
    """
    dice = random.Random(seed)
    codes, written = dice.randbytes(CODES), 0
    plain: dict[float, bytes] = {}
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            one = pattern_of(name, header, says=says)
            if one is None:
                pattern, start = codes, 4 * dice.randrange(CODES // 4)
            elif isinstance(one, float):
                pattern, start = plain.setdefault(one, _normal(one, entry["dtype"], dice)), 4 * dice.randrange(VALUES // 4)
            else:
                pattern, start = one, 0
            written += _repeat(file, pattern, start, end - begin)
    return written


def pattern_of(name: str, header: Mapping[str, Any], *, says: int | None = None) -> bytes | float | None:
    """The bytes to repeat over a tensor, the deviation of random values around 0, or None for random bits."""
    entry = header[name]
    base, _, last = name.rpartition(".")
    shape, dtype = entry["shape"], entry["dtype"]
    if last in ("trellis", "q_weight"):
        return None
    if last == "mul1":
        return struct.pack("<I", MUL1)
    if last == "suh":
        return _one(1.0, dtype)
    if last == "svh":
        return _one(1 / math.sqrt(header[f"{base}.suh"]["shape"][0]), dtype)
    if last.startswith("q_"):
        return _exl2(base, last, header)
    if name == "lm_head.bias":
        return b"".join(struct.pack("<e", LOUD if token == says else 0.0) for token in range(shape[0]))
    if "norm" in name and len(shape) == 1:
        return _one(1.0, dtype)
    if len(shape) < 2:
        return _one(0.0, dtype)
    return 1.0 if "embed" in name else round(1 / math.sqrt(math.prod(shape[1:])), 6)


def _exl2(base: str, last: str, header: Mapping[str, Any]) -> bytes:
    """Every group at one rate, every scale at its largest; no permutation."""
    rows = header[f"{base}.q_invperm"]["shape"][0]
    packed = header[f"{base}.q_weight"]["shape"][0]
    groups = header[f"{base}.q_scale_max"]["shape"][0]
    bits = 32 * packed // rows
    if last == "q_invperm":
        return struct.pack(f"<{rows}i", *range(rows))
    if last == "q_scale":
        return b"\xff\xff\xff\xff"
    if last == "q_groups":
        starts = [packed * group // groups for group in range(groups)]
        return struct.pack(f"<{2 * groups}H", *(value for start in starts for value in (bits, start)))
    return struct.pack("<e", 1 / (SPREAD[bits] * math.sqrt(rows)))


def _one(value: float, dtype: str) -> bytes:
    return struct.pack("<e" if dtype == "F16" else "<f", value) if dtype in ("F16", "F32") else bytes(WIDTH[dtype])


def _normal(deviation: float, dtype: str, dice: random.Random) -> bytes:
    kind = {"F16": "e", "F32": "f"}[dtype]
    return struct.pack(f"<{VALUES}{kind}", *(dice.gauss(0, deviation) for _ in range(VALUES)))


def _repeat(file: BinaryIO, pattern: bytes, start: int, count: int) -> int:
    """Write `count` bytes of `pattern` over and over, beginning within it; in pieces of some 32 MiB."""
    block = pattern * max(1, CODES // len(pattern))
    start %= len(pattern)
    left = count
    while left:
        piece = memoryview(block)[start : start + left]
        file.write(piece)
        left, start = left - len(piece), 0
    return count

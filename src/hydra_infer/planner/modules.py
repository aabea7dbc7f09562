"""The units ExLlamaV3 loads, in its order: what each has on the card, in system RAM, in the cache and as recurrent state."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..models.deepseek_v4 import mixing_bytes
from ..models.spec import Feed, Layer, Mixer, ModelSpec
from ..units import Size
from .allocation import HEAD_BITS, Group, rates
from .shapes import WORD, Parts, Shape, feed_shapes, mixer_shapes
from .usage import ZERO

__all__ = ["LOST", "Kind", "Matrix", "Module", "Part", "matrix_bytes", "modules_of"]

Kind = Literal["embedding", "norm", "mixer", "feed", "head", "other"]

# exllamav3 1.6.5, modules/linear.py: both sides of a quantised matrix are rounded up to this.
PAD = 128

# The tensor that names the codebook of a quantised matrix: one 32-bit number (modules/quant/exl3.py).
CODEBOOK = 4

# What mixes several residual streams into one before the head (architecture/deepseek_v4.py).
MIXING = "hc_head"

# A trellis is stored in tiles, 16 weights to a side (modules/quant/exl3.py).
TILE = 16

LOST = "is a file missing, or is config.json another model's?"
_EXPERT = re.compile(r"(?<=\.experts)\.\d+\.")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of `rows` inputs and `columns` outputs as loaded (padded), or `count` equal ones: the experts.

    `name` is its key below the part, "{expert}" standing for the number of an expert. `nbytes` is what all of them take
    as stored, scales and bias included; `quantised` tells EXL3 from plain 16 bit. What a loader dequantises one into is
    2 x rows x columns bytes.
    """

    name: str
    rows: int
    columns: int
    nbytes: Size
    count: int = 1
    quantised: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """One module inside a unit: a norm, a mixer (attention or recurrence), a feed-forward block, the head.

    `key` is exllamav3's ("model.layers.3.self_attn"). `vectors` are the bytes beside the matrices (norms, convolutions,
    sinks, a router's corrections); `copies` is what the engine adds to them on the card. `mixer` is set for kind "mixer",
    `feed` for kind "feed": they carry the shape (heads, kv_heads, head_dim, intermediate, experts), and whether tensor
    parallel must keep the part on one card (`mixer.whole`).
    """

    key: str
    kind: Kind
    matrices: tuple[Matrix, ...] = ()
    vectors: Size = ZERO
    copies: Size = ZERO
    mixer: Mixer | None = None
    feed: Feed | None = None

    @property
    def nbytes(self) -> Size:
        """Bytes as stored."""
        return Size(sum(matrix.nbytes for matrix in self.matrices) + self.vectors)


@dataclass(frozen=True, slots=True)
class Module:
    """What a loader places in one go: the embedding (in system RAM), a transformer block, the last norm, the head.

    `layer` is the number of a block, None for the others.
    """

    key: str
    parts: tuple[Part, ...]
    layer: int | None = None

    @property
    def in_ram(self) -> bool:
        return any(part.kind == "embedding" for part in self.parts)

    @property
    def nbytes(self) -> Size:
        """Bytes as stored, on the card or for the embedding in system RAM."""
        return Size(sum(part.nbytes for part in self.parts))

    @property
    def weights(self) -> Size:
        """The same on the card."""
        return ZERO if self.in_ram else self.nbytes

    @property
    def copies(self) -> Size:
        """What the engine adds to them on the card."""
        return Size(sum(part.copies for part in self.parts))


def modules_of(spec: ModelSpec) -> tuple[Module, ...]:
    """The Modules of a model for ExLlamaV3: from its tensors where it is EXL3, else from its shape and bits per weight.

    Raises ConfigError where the tensors do not make the model its config describes.
    """
    geometry = spec.geometry
    keys, hidden, vocab = geometry.keys, geometry.hidden, geometry.vocab
    source: _Stored | _Computed = _Stored(spec) if spec.format == "exl3" and spec.tensors else _Computed(spec)
    embedding = Part(keys.embedding, "embedding", vectors=source.rest(keys.embedding, WORD * hidden * vocab))
    if not embedding.nbytes:
        raise ConfigError(f"{spec.path}: no weights for the embedding, {keys.embedding}", hint=LOST)
    blocks = [_block(source, f"{keys.layers}.{index}", index, layer, hidden) for index, layer in enumerate(geometry.layers)]
    norm = Part(keys.norm, "norm", vectors=source.rest(keys.norm, WORD * hidden))
    head = Part(keys.head, "head", (source.matrix(keys.head, Shape("", hidden, vocab, "head")),))
    if geometry.streams:
        mixing = source.rest(MIXING, mixing_bytes(geometry.streams, hidden, head=True))
        blocks.append(Module(MIXING, (Part(MIXING, "other", vectors=mixing),)))
    return (Module(keys.embedding, (embedding,)), *blocks, Module(keys.norm, (norm,)), Module(keys.head, (head,)))


def _block(source: _Stored | _Computed, key: str, index: int, layer: Layer, hidden: int) -> Module:
    """One transformer block: a norm before each part, and where there are four norms another one after it."""
    parts: list[Part] = []
    for part in _layer_parts(key, layer, hidden):
        matrices = tuple(source.matrix(part.key, shape) for shape in part.parts.shapes)
        # A block that has no key of its own cannot be told from the rest of the layer.
        vectors = source.rest(part.key, part.parts.vectors) if part.key != key else ZERO
        kind: Kind = "feed" if part.mixer is None else "mixer"
        parts.append(Part(part.key, kind, matrices, vectors, Size(part.parts.copies), part.mixer, part.feed))
    loose = sum(part.parts.vectors for part in _layer_parts(key, layer, hidden) if part.key == key)
    rest = source.rest(key, WORD * hidden * layer.norms + layer.extra + loose)
    norm = Part(key, "norm", vectors=Size(min(WORD * hidden, rest // max(1, layer.norms))))
    after = (norm,) if layer.norms > len(parts) else ()
    ordered = [one for part in parts for one in (norm, part, *after)]
    if layer.norms < len(parts):  # both parts read the same normed input
        ordered = [norm, *parts]
    other = rest - norm.vectors * (len(ordered) - len(parts))
    if other:
        ordered.append(Part(key, "other", vectors=Size(other)))
    return Module(key, tuple(ordered), index)


@dataclass(frozen=True, slots=True)
class _LayerPart:
    """A mixer or a feed-forward block with its key and what it is made of."""

    key: str
    parts: Parts
    mixer: Mixer | None = None
    feed: Feed | None = None


def _layer_parts(block: str, layer: Layer, hidden: int) -> list[_LayerPart]:
    found = []
    if layer.attention is not None:
        key = f"{block}.{layer.attention.key}"
        found.append(_LayerPart(key, mixer_shapes(layer.attention, hidden), mixer=layer.attention))
    if layer.mlp is not None:
        key = f"{block}.{layer.mlp.key}" if layer.mlp.key else block
        found.append(_LayerPart(key, feed_shapes(layer.mlp, hidden), feed=layer.mlp))
    return found


class _Computed:
    """Sizes from shapes: EXL3 at the rates the converter would choose, any other format in plain 16 bit."""

    def __init__(self, spec: ModelSpec) -> None:
        self._exl3 = spec.format == "exl3"
        self._rates = _converted(spec) if self._exl3 else {}
        self._rates[f"{spec.geometry.keys.head}.head"] = HEAD_BITS

    def matrix(self, key: str, shape: Shape) -> Matrix:
        if not (self._exl3 and shape.group):
            return _plain(shape)
        bits = self._rates[f"{key}.{shape.group}"]
        nbytes = Size(matrix_bytes(shape.rows, shape.columns, bits, shape.bias) * shape.count)
        return Matrix(shape.name, _padded(shape.rows), _padded(shape.columns), nbytes, shape.count)

    def rest(self, key: str, computed: int) -> Size:
        del key
        return Size(computed)


def _plain(shape: Shape) -> Matrix:
    """A matrix in 16 bit; those that a converter would quantise are padded all the same."""
    rows, columns = (_padded(shape.rows), _padded(shape.columns)) if shape.group else (shape.rows, shape.columns)
    nbytes = WORD * (rows * columns + (columns if shape.bias else 0)) * shape.count
    return Matrix(shape.name, rows, columns, Size(nbytes), shape.count, quantised=False)


def _converted(spec: ModelSpec) -> dict[str, float]:
    """Bits per weight by group of matrices ("model.layers.3.self_attn.qkv")."""
    groups: dict[str, Group] = {}
    keys, hidden = spec.geometry.keys, spec.geometry.hidden
    for index, layer in enumerate(spec.geometry.layers):
        for part in _layer_parts(f"{keys.layers}.{index}", layer, hidden):
            for shape in part.parts.shapes:
                if shape.group:
                    name = f"{part.key}.{shape.group}"
                    elements = _padded(shape.rows) * _padded(shape.columns) * shape.count
                    before = groups[name].elements if name in groups else 0
                    groups[name] = Group(index, before + elements, shape.priority, shape.half)
    return dict(zip(groups, rates(list(groups.values()), spec.bpw or HEAD_BITS), strict=True))


def matrix_bytes(rows: int, columns: int, bits: float, bias: bool = False) -> int:
    """What a matrix takes as EXL3 at so many bits per weight; from 16 bits on it is plain, and not padded."""
    if bits >= 16:
        return WORD * (rows * columns + (columns if bias else 0))
    rows, columns = _padded(rows), _padded(columns)
    return round(rows * columns * bits / 8) + WORD * (rows + columns) + CODEBOOK + (WORD * columns if bias else 0)


def _padded(width: int) -> int:
    return -(-width // PAD) * PAD


class _Stored:
    """Sizes from a table of tensors: each counts for the matrix it belongs to, else for the part, else for the block."""

    def __init__(self, spec: ModelSpec) -> None:
        self._path, self._sums = spec.path, dict[str, int]()
        self._sides: dict[str, tuple[int, int]] = {}
        for tensor in spec.tensors.values():
            key, _, last = tensor.name.rpartition(".")
            # Outside of any module names are joined by "_": hc_head_fn.
            key = _EXPERT.sub(".{expert}.", key or last.rpartition("_")[0])
            self._sums[key] = self._sums.get(key, 0) + tensor.nbytes
            if last == "trellis" and len(tensor.shape) == 3:
                self._sides[key] = (tensor.shape[0] * TILE, tensor.shape[1] * TILE)
        self._tied_head = spec.geometry.keys.head if spec.geometry.tied else None
        self._below = _by_prefix(self._sums)

    def matrix(self, key: str, shape: Shape) -> Matrix:
        name = f"{key}.{shape.name}" if shape.name else key
        nbytes, computed = self._sums.pop(name, 0), _plain(shape)
        if not nbytes and name == self._tied_head:
            return computed  # a copy of the embedding, on the card
        if not nbytes:
            raise ConfigError(f"{self._path}: no weights for {name.replace('{expert}', '0')}", hint=LOST)
        sides = self._sides.get(name)
        if sides is not None and sides != (computed.rows, computed.columns):
            wanted = f"{computed.rows} x {computed.columns}"
            raise ConfigError(f"{self._path}: {name} is {sides[0]} x {sides[1]}, by config.json {wanted}", hint=LOST)
        return Matrix(shape.name, computed.rows, computed.columns, Size(nbytes), shape.count, sides is not None)

    def rest(self, key: str, computed: int) -> Size:
        """What is left under a key."""
        del computed
        return Size(sum(self._sums.pop(name, 0) for name in self._below.get(key, ())))


def _by_prefix(names: Iterable[str]) -> dict[str, list[str]]:
    """For every key all names that are it or lie below it."""
    below: dict[str, list[str]] = defaultdict(list)
    for name in names:
        words = name.split(".")
        for length in range(1, len(words) + 1):
            below[".".join(words[:length])].append(name)
    return below

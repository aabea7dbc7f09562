"""What a model's weights take once loaded, layer by layer: from its tensor table, or from its shape and bits per weight.

Sources: exllamav3 1.6.5 (see modules.py: EXL3 tensors have on the device the size they have in the file, all else is loaded as
16 bit), exllamav2 0.3.2 (a group map of 4 bytes per input row), llama.cpp (tensors as stored).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigError
from ..models.spec import Attention, Mlp, ModelSpec, Tensor
from ..models.vision import PLAIN, PREFIXES
from ..units import Size
from .allocation import HEAD_BITS
from .modules import LOST, Module, matrix_bytes, modules_of
from .usage import ZERO

__all__ = ["LayerWeights", "Weights", "weigh"]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: attention or recurrence, and the feed-forward block; norms are with one of them.

    `copies` are bytes the engine makes on the card beside what is stored, here a router's.
    """

    attention: Size
    mlp: Size
    copies: Size = ZERO

    @property
    def total(self) -> Size:
        return Size(self.attention + self.mlp)


@dataclass(frozen=True, slots=True)
class Weights:
    """Loaded sizes. `embedding` stays in system RAM in every engine here; `other` is in the files but not loaded.

    `vision` is the tower that ExLlamaV3 loads first, as a model of its own.

    `modules` are ExLlamaV3's units, for the formats it loads.
    """

    embedding: Size
    layers: tuple[LayerWeights, ...]
    norm: Size
    head: Size
    other: Size = ZERO
    vision: Size = ZERO
    modules: tuple[Module, ...] = ()

    @property
    def on_device(self) -> Size:
        return Size(sum(layer.total + layer.copies for layer in self.layers) + self.norm + self.head + self.vision)


def weigh(spec: ModelSpec) -> Weights:
    """The Weights of a model. Raises ConfigError where its tensors do not make the model its config describes."""
    if spec.format in ("exl3", "hf"):
        return _from_modules(spec)
    if spec.format == "exl2":
        spec.geometry.plain_layers()  # exllamav2's sizes are known for plain attention only
    return _from_tensors(spec) if spec.tensors else _from_shape(spec)


def _from_modules(spec: ModelSpec) -> Weights:
    if spec.format == "hf" and spec.tensors:
        _refuse_missing(spec)
    modules = modules_of(spec)
    embedding, *inner, head = modules
    blocks = [module for module in inner if module.layer is not None]
    stored, vision = sum(tensor.nbytes for tensor in spec.tensors.values()), _vision(spec)
    return Weights(
        embedding=embedding.nbytes,
        layers=tuple(_layer_weights(block) for block in blocks),
        norm=Size(sum(module.weights for module in inner if module.layer is None)),
        head=head.weights,
        other=Size(max(0, stored - vision - sum(module.nbytes for module in modules))) if spec.format == "exl3" else ZERO,
        vision=vision,
        modules=modules,
    )


def _vision(spec: ModelSpec) -> Size:
    """The tower as stored, or as a converter would store it."""
    if spec.tensors:
        return Size(sum(tensor.nbytes for tensor in spec.tensors.values() if tensor.name.startswith(PREFIXES)))
    tower = spec.geometry.tower
    if tower is None:
        return ZERO
    bits = tower.bits if spec.format == "exl3" else PLAIN
    matrices = sum(matrix_bytes(one.rows, one.columns, bits, one.bias) * one.count for one in tower.matrices)
    return Size(2 * tower.other + matrices)


def _layer_weights(block: Module) -> LayerWeights:
    feed = sum(part.nbytes for part in block.parts if part.kind == "feed")
    return LayerWeights(Size(block.weights - feed), Size(feed), block.copies)


def _refuse_missing(spec: ModelSpec) -> None:
    """Plain weights are computed from the shape, so it is enough that some are there for everything."""
    keys, count = spec.geometry.keys, len(spec.geometry.layers)
    wanted = {keys.embedding, *(f"{keys.layers}.{index}" for index in range(count))}
    wanted |= set() if spec.geometry.tied else {keys.head}
    for name in spec.tensors:
        words = name.split(".")
        wanted -= {".".join(words[:length]) for length in range(1, len(words))}
    if wanted:
        raise ConfigError(f"{spec.path}: no weights for {min(wanted)}", hint=LOST)


@dataclass(frozen=True, slots=True)
class _Names:
    """How a family of files names its tensors."""

    layer: re.Pattern[str]
    attention: tuple[str, ...]
    embedding: str
    norm: str
    head: str


_EXL2 = _Names(
    re.compile(r"model\.layers\.(\d+)\.(.+)"),
    ("self_attn.", "input_layernorm."),
    "model.embed_tokens.",
    "model.norm.",
    "lm_head.",
)
_GGUF = _Names(re.compile(r"blk\.(\d+)\.(.+)"), ("attn_",), "token_embd.", "output_norm.", "output.")


def _from_tensors(spec: ModelSpec) -> Weights:
    names, count = _GGUF if spec.format == "gguf" else _EXL2, len(spec.geometry.layers)
    sums: dict[str | tuple[int, str], int] = defaultdict(int)
    for tensor in spec.tensors.values():
        sums[_place(names, tensor.name, count)] += _loaded(tensor, spec.format)
    missing = [index for index in range(count) if not sums[index, "attention"] or not sums[index, "mlp"]]
    if missing or not sums["embedding"]:
        lost = f"layer {missing[0]}" if missing else "the embedding"
        raise ConfigError(f"{spec.path}: no weights for {lost}", hint=LOST)
    if not sums["head"] and not spec.geometry.tied:
        raise ConfigError(f"{spec.path}: no output head, and its config does not tie it to the embedding")
    return Weights(
        embedding=Size(sums["embedding"]),
        layers=tuple(LayerWeights(Size(sums[i, "attention"]), Size(sums[i, "mlp"])) for i in range(count)),
        norm=Size(sums["norm"]),
        # A tied head is a second copy on the device: the embedding itself stays in RAM.
        head=Size(sums["head"] or sums["embedding"]),
        other=Size(sums["other"]),
    )


def _place(names: _Names, name: str, layers: int) -> str | tuple[int, str]:
    match = names.layer.fullmatch(name)
    if match and int(match[1]) < layers:
        return int(match[1]), "attention" if match[2].startswith(names.attention) else "mlp"
    for part in ("embedding", "norm", "head"):
        if name.startswith(getattr(names, part)):
            return part
    return "other"


def _loaded(tensor: Tensor, form: str) -> int:
    if form == "exl2" and tensor.name.endswith(".q_invperm"):
        return tensor.nbytes + 4 * tensor.shape[0]
    return tensor.nbytes


def _from_shape(spec: ModelSpec) -> Weights:
    """exl2 with its embedding in 16 bit and its head at the converter's default, gguf all at one rate."""
    geometry, form, bits = spec.geometry, spec.format, spec.bpw or 16.0
    hidden, vocab = geometry.hidden, geometry.vocab
    gguf = form == "gguf"
    return Weights(
        embedding=Size(_linear("gguf", hidden, vocab, bits if gguf else 16.0)),
        layers=tuple(_layer(form, hidden, attention, mlp, bits) for attention, mlp in geometry.plain_layers()),
        norm=Size(2 * hidden),
        head=Size(_linear(form, hidden, vocab, bits if gguf else HEAD_BITS)),
    )


def _layer(form: str, hidden: int, attention: Attention, mlp: Mlp, bits: float) -> LayerWeights:
    norm = 2 * hidden
    q, kv = attention.q_width, attention.kv_width
    projections = ((hidden, q), (hidden, kv), (hidden, kv), (q, hidden))
    gated = ((hidden, mlp.intermediate), (hidden, mlp.intermediate), (mlp.intermediate, hidden))
    return LayerWeights(
        Size(norm + _sum(form, projections, bits)),
        Size(norm + _sum(form, gated, bits) * max(1, mlp.experts) + 2 * hidden * mlp.experts),
    )


def _sum(form: str, shapes: Iterable[tuple[int, int]], bits: float) -> int:
    return sum(_linear(form, rows, columns, bits) for rows, columns in shapes)


def _linear(form: str, rows: int, columns: int, bits: float) -> int:
    """Bytes of one matrix of `rows` inputs and `columns` outputs at `bits` per weight, with what the form adds."""
    if form == "exl2":
        return round(rows * -(-columns // 32) * 32 * bits / 8) + 4 * rows
    return round(rows * columns * bits / 8)

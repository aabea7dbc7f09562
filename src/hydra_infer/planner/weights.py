"""What a model's weights take once loaded, layer by layer: from its tensor table, or from its shape and bits per weight.

Sources: exllamav3 1.6.5 (EXL3 tensors have on the device the size they have in the file; 16- and 32-bit weights are
loaded as 16 bit; the routing gate of a mixture exists three times: as stored, transposed and in int8), exllamav2 0.3.2
(a group map of 4 bytes per input row), llama.cpp (tensors as stored).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigError
from ..models.spec import Geometry, Layer, ModelSpec, Tensor
from ..units import Size
from .usage import ZERO

__all__ = ["LayerWeights", "Weights", "weigh"]

# Bits per weight of the output head that both converters use unless told otherwise.
HEAD_BITS = 6.0


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: attention with its norm, and the feed-forward block with its norm."""

    attention: Size
    mlp: Size

    @property
    def total(self) -> Size:
        return Size(self.attention + self.mlp)


@dataclass(frozen=True, slots=True)
class Weights:
    """Loaded sizes. `embedding` stays in system RAM in every engine here; `other` is in the files but not loaded."""

    embedding: Size
    layers: tuple[LayerWeights, ...]
    norm: Size
    head: Size
    other: Size = ZERO

    @property
    def on_device(self) -> Size:
        return Size(sum(layer.total for layer in self.layers) + self.norm + self.head)


def weigh(spec: ModelSpec) -> Weights:
    """The Weights of a model. Raises ConfigError where its tensors do not make the model its config describes."""
    return _from_tensors(spec) if spec.tensors else _from_shape(spec)


@dataclass(frozen=True, slots=True)
class _Names:
    """How a family of files names its tensors."""

    layer: re.Pattern[str]
    attention: tuple[str, ...]
    embedding: str
    norm: str
    head: str


_HF = _Names(
    re.compile(r"model\.layers\.(\d+)\.(.+)"),
    ("self_attn.", "input_layernorm."),
    "model.embed_tokens.",
    "model.norm.",
    "lm_head.",
)
_GGUF = _Names(re.compile(r"blk\.(\d+)\.(.+)"), ("attn_",), "token_embd.", "output_norm.", "output.")


def _from_tensors(spec: ModelSpec) -> Weights:
    names, count = _GGUF if spec.format == "gguf" else _HF, len(spec.geometry.layers)
    sums: dict[str | tuple[int, str], int] = defaultdict(int)
    for tensor in spec.tensors.values():
        sums[_place(names, tensor.name, count)] += _loaded(tensor, spec.format)
    missing = [index for index in range(count) if not sums[index, "attention"] or not sums[index, "mlp"]]
    if missing or not sums["embedding"]:
        lost = f"layer {missing[0]}" if missing else "the embedding"
        raise ConfigError(f"{spec.path}: no weights for {lost}", hint="is a file missing, or is config.json another model's?")
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
    if form == "gguf":
        return tensor.nbytes
    if tensor.name.endswith(".q_invperm"):
        return tensor.nbytes + 4 * tensor.shape[0]
    size = tensor.nbytes // 2 if tensor.dtype == "F32" and len(tensor.shape) > 1 else tensor.nbytes
    return 3 * size if form != "exl2" and tensor.name.endswith((".mlp.gate.weight", "moe.gate.weight")) else size


def _from_shape(spec: ModelSpec) -> Weights:
    geometry, bits = spec.geometry, spec.bpw or 16.0
    hidden, vocab = geometry.hidden, geometry.vocab
    embedding = _linear("gguf" if spec.format == "gguf" else "hf", hidden, vocab, bits if spec.format == "gguf" else 16.0)
    head_bits = HEAD_BITS if spec.format in ("exl3", "exl2") else bits
    return Weights(
        embedding=Size(embedding),
        layers=tuple(_layer(spec.format, geometry, layer, bits) for layer in geometry.layers),
        norm=Size(2 * hidden),
        head=Size(_linear(spec.format, hidden, vocab, head_bits)),
    )


def _layer(form: str, geometry: Geometry, layer: Layer, bits: float) -> LayerWeights:
    hidden, attention, mlp = geometry.hidden, layer.attention, layer.mlp
    norm = 2 * hidden
    q, kv = attention.q_width, attention.kv_width
    projections = ((hidden, q), (hidden, kv), (hidden, kv), (q, hidden))
    gated = ((hidden, mlp.intermediate), (hidden, mlp.intermediate), (mlp.intermediate, hidden))
    gate_copies = 3 if form in ("exl3", "hf") else 1
    return LayerWeights(
        Size(norm + _sum(form, projections, bits)),
        Size(norm + _sum(form, gated, bits) * max(1, mlp.experts) + gate_copies * 2 * hidden * mlp.experts),
    )


def _sum(form: str, shapes: Iterable[tuple[int, int]], bits: float) -> int:
    return sum(_linear(form, rows, columns, bits) for rows, columns in shapes)


def _linear(form: str, rows: int, columns: int, bits: float) -> int:
    """Bytes of one matrix of `rows` inputs and `columns` outputs at `bits` per weight, with what the form adds."""
    if form == "exl3":
        rows, columns = -(-rows // 128) * 128, -(-columns // 128) * 128
        return round(rows * columns * bits / 8) + 2 * (rows + columns) + 4
    if form == "exl2":
        return round(rows * -(-columns // 32) * 32 * bits / 8) + 4 * rows
    return round(rows * columns * bits / 8)

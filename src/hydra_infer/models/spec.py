"""What a planner needs to know of a model: its layers, its tensors, and the form its weights are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FORMATS", "Attention", "Geometry", "Layer", "Mlp", "ModelSpec", "Tensor"]

# exl3 and exl2 are ExLlama's, hf is plain safetensors (16 or 32 bits), gguf is llama.cpp's.
FORMATS = ("exl3", "exl2", "hf", "gguf")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor. `shape` is in the order of its file; `nbytes` is what it takes in that file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention: `heads` query heads share `kv_heads` keys and values of `head_dim` elements.

    `window` is the number of tokens a query looks back where that is limited, else None.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of K (and of V) that one token leaves in this layer's cache."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Mlp:
    """A gated feed-forward block of `intermediate` columns; with `experts`, each of them that wide."""

    intermediate: int
    experts: int = 0
    experts_per_token: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    attention: Attention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a text model, independent of how its weights are stored.

    `architecture` is the file's own word: a class name in config.json ("LlamaForCausalLM"), a short one in GGUF ("llama").
    `tied` says that the output head is the embedding; `trained_context` is None where the file does not say.
    """

    architecture: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool = False
    trained_context: int | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as its files describe it. `tensors` is empty for a config.json without weights; then `bpw` is set."""

    name: str
    path: Path
    format: str
    geometry: Geometry
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    bpw: float | None = None

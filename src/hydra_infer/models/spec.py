"""What a planner needs to know of a model: its layers, its tensors, and the form its weights are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UnknownModel

__all__ = [
    "FORMATS",
    "Attention",
    "Compressed",
    "Feed",
    "Geometry",
    "Indexer",
    "Keys",
    "Latent",
    "Layer",
    "Mixer",
    "Mlp",
    "ModelSpec",
    "Recurrent",
    "ShortConv",
    "Tensor",
    "Tower",
    "TowerMatrix",
]

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

    `window` is the number of tokens a query looks back where that is limited, else None; with `ring` the engine keeps only
    that window, per slot, instead of pages for the whole context. `gate`: "" for none, "query" where the query projection
    has the gate's columns too, "full" for a projection as wide as the queries, called `gate_key`, "heads" for one with a
    column per head, in 16 bit. `no_values`: values are the keys; with a `v_dim` values are narrower than `head_dim`, which
    only the output projection shows. `plain_output`: the output projection is never quantised. `vectors` are the 16-bit
    elements beside the matrices (norms of queries and keys, sinks).
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    ring: bool = False
    gate: str = ""
    bias: bool = False
    o_bias: bool = False
    plain_output: bool = False
    no_values: bool = False
    v_dim: int | None = None
    vectors: int = 0
    key: str = "self_attn"
    output: str = "o_proj"
    gate_key: str = "gate_proj"

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of K (and of V) that one token leaves in this layer's cache."""
        return self.kv_heads * self.head_dim

    @property
    def whole(self) -> bool:
        """Whether tensor parallel keeps it on one card."""
        return False


@dataclass(frozen=True, slots=True)
class Indexer:
    """Chooses which tokens sparse attention reads: `heads` of `head_dim`; every `pool` keys leave a pooled one too (0: none)."""

    heads: int
    head_dim: int
    pool: int = 0


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: a token leaves one latent of `kv_rank` and one rotary key of `rope_dim`, for all heads.

    `q_rank` is None where queries are projected directly. `indexer` is set on the layers that have one of their own,
    `head_gate` where outputs pass a gate with a column per head, `g_proj`.
    """

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    indexer: Indexer | None = None
    head_gate: bool = False
    key: str = "self_attn"
    output: str = "o_proj"

    @property
    def q_width(self) -> int:
        return self.heads * (self.nope_dim + self.rope_dim)

    @property
    def kv_width(self) -> int:
        """Elements of K alone: the latent. What is stored per token is cache.latent_bytes."""
        return self.kv_rank

    @property
    def whole(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Linear attention with a state of fixed size: Gated DeltaNet, or Mamba 2 with its groups as `k_heads`.

    `k_dim` and `v_dim` are per head (Mamba's state size and head dimension), `conv` is the width of the convolution.
    `form`: "fused" and "split" are Gated DeltaNet with two input projections or with four, "kda" is Kimi Delta Attention, which
    forgets per channel, "mamba" is Mamba 2.
    "olmo" is "split" under other names, "kda direct" is "kda" with gates of full rank. `conv_bias` as the file has it.
    """

    k_heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    conv: int
    form: str
    conv_bias: bool = False
    key: str = "linear_attn"

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.k_heads * self.k_dim + self.v_heads * self.v_dim

    @property
    def q_width(self) -> int:
        return self.v_heads * self.v_dim

    @property
    def kv_width(self) -> int:
        """Nothing grows with the context."""
        return 0

    @property
    def whole(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ShortConv:
    """A gated convolution over the last `conv` tokens of all `width` channels."""

    width: int
    conv: int
    key: str = "conv"

    @property
    def q_width(self) -> int:
        return self.width

    @property
    def kv_width(self) -> int:
        """Nothing grows with the context."""
        return 0

    @property
    def whole(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Compressed:
    """Attention over a window kept as a ring, and over the past compressed: one entry for every `rate` tokens (0: none).

    All heads share keys and values of `head_dim`, of which `rope_dim` are rotary. Queries go through `q_rank`, outputs
    through `groups` projections to `o_rank` each. With an `indexer` the compressed windows overlap, and it chooses among
    them.
    """

    heads: int
    head_dim: int
    rope_dim: int
    q_rank: int
    groups: int
    o_rank: int
    window: int
    rate: int = 0
    indexer: Indexer | None = None
    key: str = "attn"

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of one compressed entry; what is stored per token is cache.cache_bytes."""
        return self.head_dim if self.rate else 0

    @property
    def whole(self) -> bool:
        return False


Mixer = Attention | Latent | Recurrent | ShortConv | Compressed


@dataclass(frozen=True, slots=True)
class Mlp:
    """A feed-forward block of `intermediate` columns; with `experts`, each of them that wide.

    `gated` blocks have two projections up, others one. `shared` is the width of the expert every token passes (0: none),
    `shared_gate` its own gate, `latent` the narrower width the experts work in where there is one. `router_vectors` are the
    bytes of the router beside its matrix. `column_bytes` are held per column and token while it runs: gate, up and, unless
    both are 16 bit, the activation (exllamav3's interm_dtype: 32 bit 10, 16 bit 4, unset 6).

    The shared expert has `shared_column_bytes` where it is not held like the usual ones, in 16 bit.

    The rest are keys of tensors: the block's, `names` of up, gate and down, and below the block's key those of the router's
    matrix, of the experts and of the shared expert, with its `shared_names` where they are others.
    """

    intermediate: int
    experts: int = 0
    experts_per_token: int = 0
    gated: bool = True
    bias: bool = False
    shared: int = 0
    shared_gate: bool = False
    latent: int | None = None
    router_vectors: int = 0
    column_bytes: int = 10
    shared_column_bytes: int | None = None
    key: str = "mlp"
    names: tuple[str, str, str] = ("up_proj", "gate_proj", "down_proj")
    router: str = "gate"
    experts_key: str = "experts"
    shared_key: str = "shared_experts"
    shared_names: tuple[str, str, str] | None = None


Feed = Mlp


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer block; a mixer or a feed-forward block may be missing.

    `norms` is how many norms of the hidden width it has, `extra` the bytes of what else belongs to neither.
    """

    attention: Mixer | None
    mlp: Feed | None
    norms: int = 2
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Keys:
    """How the tensors outside the blocks are named, and what stands before the number of a block."""

    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    norm: str = "model.norm"
    head: str = "lm_head"

    @classmethod
    def under(cls, prefix: str, head: str = "lm_head") -> Keys:
        return cls(f"{prefix}.embed_tokens", f"{prefix}.layers", f"{prefix}.norm", head)


@dataclass(frozen=True, slots=True)
class TowerMatrix:
    """A matrix of a vision tower with `rows` inputs and `columns` outputs, or `count` of them."""

    rows: int
    columns: int
    count: int = 1
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower: its matrices, the 16-bit elements beside them, and the `bits` per weight a converter stores it at."""

    matrices: tuple[TowerMatrix, ...]
    other: int
    bits: float


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a text model, independent of how its weights are stored.

    `architecture` is the file's own word: a class name in config.json ("LlamaForCausalLM"), a short one in GGUF ("llama").
    `tied` says that the output head is the embedding; `trained_context` is None where the file does not say.
    `streams` is the number of residual streams where there are several (hyper-connections),
    `tower` what it sees pictures with.
    """

    architecture: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool = False
    trained_context: int | None = None
    keys: Keys = field(default_factory=Keys)
    streams: int = 0
    tower: Tower | None = None

    def plain_layers(self) -> tuple[tuple[Attention, Mlp], ...]:
        """Attention and feed-forward block of every layer, where all have both and none is of another kind.

        Raises UnknownModel for a model that is not like that.
        """
        plain = []
        for layer in self.layers:
            if not isinstance(layer.attention, Attention) or layer.mlp is None:
                raise UnknownModel(f"{self.architecture} has layers this engine's planner does not cover yet")
            plain.append((layer.attention, layer.mlp))
        return tuple(plain)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as its files describe it. `tensors` is empty for a config.json without weights; then `bpw` is set.

    `missing` names the file exllamav3 wants beside the weights where the folder lacks it.
    """

    name: str
    path: Path
    format: str
    geometry: Geometry
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    bpw: float | None = None
    missing: str = ""

"""Layers of grouped-query attention from the fields of a config.json, one function for every way in which they differ.

Source: exllamav3 1.6.5, architecture/*.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import UnknownModel
from .fields import MAX_LAYERS, Fields
from .spec import Attention, Layer, Mlp

__all__ = [
    "MAX_EXPERTS",
    "Reader",
    "afmoe",
    "apertus",
    "arcee",
    "attention_of",
    "cohere",
    "deci",
    "dense_of",
    "dots1",
    "experts_of",
    "gemma",
    "gemma4",
    "gpt_oss",
    "minimax",
    "mixtral",
    "plain",
    "post_normed",
    "qwen3_moe",
    "seed_oss",
    "sparse",
]

MAX_EXPERTS = 2**16

Reader = Callable[[Fields, int], Layer]


def attention_of(
    fields: Fields,
    *,
    head_dim: int | None = None,
    qk_norm: bool = False,
    bias: bool | None = None,
    window: int | None = None,
) -> Attention:
    """Grouped-query attention from the usual fields; with `bias` None the config says whether there are biases."""
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads, heads)
    if heads % kv_heads:
        raise fields.fail("num_key_value_heads", f"is {kv_heads}, which does not divide num_attention_heads {heads}")
    if fields.values.get("head_dim") is None and head_dim is None and hidden % heads:
        raise fields.fail("hidden_size", f"is {hidden}, which num_attention_heads {heads} does not divide")
    width = fields.count("head_dim", head_dim or hidden // heads)
    biased = fields.flag("attention_bias", False)
    return Attention(
        heads,
        kv_heads,
        width,
        window,
        bias=biased if bias is None else bias,
        o_bias=biased if bias is None else False,
        vectors=2 * width if qk_norm else 0,
    )


def dense_of(fields: Fields, *, column_bytes: int = 10, width: str = "intermediate_size") -> Mlp:
    return Mlp(fields.count(width), bias=fields.flag("mlp_bias", False), column_bytes=column_bytes)


def experts_of(fields: Fields, width: str, count: str, per_token: str = "num_experts_per_tok") -> Mlp:
    experts = fields.count(count, most=MAX_EXPERTS)
    return Mlp(fields.count(width), experts, fields.count(per_token, most=experts), column_bytes=4)


def plain(
    *, column_bytes: int = 10, head_dim: int | None = None, qk_norm: bool = False, bias: bool | None = None, norms: int = 2
) -> Reader:
    """Attention over everything, then a gated block; where a config names a window the engine ignores it."""

    def layer(fields: Fields, index: int) -> Layer:
        del index
        attention = attention_of(fields, head_dim=head_dim, qk_norm=qk_norm, bias=bias)
        return Layer(attention, dense_of(fields, column_bytes=column_bytes), norms)

    return layer


def seed_oss(fields: Fields, index: int) -> Layer:
    del index
    attention = replace(attention_of(fields), o_bias=fields.flag("attention_out_bias", False))
    return Layer(attention, dense_of(fields))


def mixtral(fields: Fields, index: int) -> Layer:
    del index
    return Layer(attention_of(fields), _block_sparse(fields))


def _block_sparse(fields: Fields) -> Mlp:
    """Mixtral's experts: w1 is the gate, w3 goes up, w2 down."""
    experts = experts_of(fields, "intermediate_size", "num_local_experts")
    return replace(experts, key="block_sparse_moe", names=("w3", "w1", "w2"))


def minimax(fields: Fields, index: int) -> Layer:
    """Norms of queries and keys over all heads at once; a correction of 32 bits per expert."""
    del index
    attention = attention_of(fields)
    experts = _block_sparse(fields)
    return Layer(
        replace(attention, vectors=attention.q_width + attention.kv_width),
        replace(experts, router_vectors=4 * experts.experts),
    )


def qwen3_moe(fields: Fields, index: int) -> Layer:
    """Every `decoder_sparse_step`-th layer has experts, except those listed in `mlp_only_layers`."""
    attention = attention_of(fields, qk_norm=True)
    if index in fields.listed("mlp_only_layers", []) or (index + 1) % fields.count("decoder_sparse_step", 1, MAX_LAYERS):
        return Layer(attention, dense_of(fields))
    return Layer(attention, experts_of(fields, "moe_intermediate_size", "num_experts"))


def gemma(qk_norm: bool) -> Reader:
    """Four norms a layer; windows alternate (2) or five of six have one (3). The cache is kept in full all the same."""

    def layer(fields: Fields, index: int) -> Layer:
        types = fields.values.get("layer_types")
        if isinstance(types, list) and index < len(types):
            windowed = types[index] == "sliding_attention"
        else:
            windowed = bool((index + 1) % fields.count("sliding_window_pattern", 6 if qk_norm else 2, MAX_LAYERS))
        window = fields.count("sliding_window", 4096) if windowed else None
        attention = attention_of(fields, head_dim=256, qk_norm=qk_norm, window=window)
        return Layer(attention, dense_of(fields, column_bytes=6), norms=4)

    return layer


def gemma4(fields: Fields, index: int) -> Layer:
    """Windowed layers keep a ring; full ones have heads of their own size, and may use keys as values."""
    for field in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        if fields.values.get(field):
            raise UnknownModel(f"{fields.path}: gemma 4 with {field} is not loaded by exllamav3 1.6.5")
    attention = attention_of(fields, head_dim=256, qk_norm=True, bias=False)
    if fields.word("layer_types", index, ("sliding_attention", "full_attention")) == "full_attention":
        width = fields.count("global_head_dim", attention.head_dim)
        kv_heads = fields.count("num_global_key_value_heads", attention.kv_heads, attention.heads)
        same = fields.flag("attention_k_eq_v", False)
        attention = replace(attention, kv_heads=kv_heads, head_dim=width, vectors=2 * width, no_values=same)
    else:
        attention = replace(attention, window=fields.count("sliding_window"), ring=True)
    if not fields.flag("enable_moe_block", False):
        return Layer(attention, dense_of(fields, column_bytes=4), norms=4, extra=2)
    experts = experts_of(fields, "moe_intermediate_size", "num_experts", "top_k_experts")
    shared = fields.count("intermediate_size")
    # A scale per expert, and four vectors of the hidden width: norms around both kinds of experts, the router's own scale.
    vectors = 2 * (experts.experts + 4 * fields.count("hidden_size"))
    moe = replace(experts, key="", router="router.proj", shared=shared, shared_key="mlp", router_vectors=vectors)
    return Layer(attention, moe, norms=4, extra=2)


def gpt_oss(fields: Fields, index: int) -> Layer:
    """Biases everywhere, an attention sink per head, rings on the windowed layers."""
    attention = attention_of(fields)
    attention = replace(attention, bias=True, o_bias=True, vectors=attention.heads)
    if fields.word("layer_types", index, ("sliding_attention", "full_attention")) == "sliding_attention":
        attention = replace(attention, window=fields.count("sliding_window"), ring=True)
    experts = experts_of(fields, "intermediate_size", "num_local_experts")
    return Layer(attention, replace(experts, bias=True, router="router"))


def deci(fields: Fields, index: int) -> Layer:
    """NVIDIA's pruned Llamas: each block says what is left of it."""
    blocks = fields.values.get("block_configs")
    block = blocks[index] if isinstance(blocks, list) and index < len(blocks) else None
    if not isinstance(block, dict) or not all(isinstance(block.get(part), dict) for part in ("attention", "ffn")):
        raise fields.fail("block_configs", f"does not describe block {index}")
    inner = Fields(fields.path, block["attention"] | {"ffn_mult": block["ffn"].get("ffn_mult")})
    attention: Attention | None = None
    for part in ("attention", "ffn"):
        if block[part].get("replace_with_linear"):
            raise UnknownModel(f"{fields.path}: block {index} has a linear layer for its {part}, which exllamav3 does not load")
    if not block["attention"].get("no_op"):
        heads = fields.count("num_attention_heads")
        shared = inner.count("n_heads_in_group", most=heads)
        attention = attention_of(Fields(fields.path, {**fields.values, "num_key_value_heads": heads // shared}))
    if block["ffn"].get("no_op"):
        return Layer(attention, None, norms=int(attention is not None))
    # Two thirds of ffn_mult x hidden, rounded up to 256.
    width = -(-int(2 * inner.number("ffn_mult") * fields.count("hidden_size") / 3) // 256) * 256
    return Layer(attention, Mlp(width), norms=1 + int(attention is not None))


def sparse(
    *,
    experts: tuple[str, int | None],
    per_token: tuple[str, int | None] = ("num_experts_per_tok", 8),
    shared: tuple[str, int] = ("n_shared_experts", 1),
    dense: tuple[str, int] = ("first_k_dense_replace", 3),
    qk_norm: tuple[str, bool] = ("", False),
    router: str = "gate",
    shared_key: str = "shared_experts",
    corrected: bool = True,
    column_bytes: int = 4,
) -> Reader:
    """Some dense layers, then experts and a shared block as wide as several of them; 32 bits per expert if `corrected`.

    The pairs are fields with their defaults; `qk_norm` without a field is always as its default says.
    """

    def layer(fields: Fields, index: int) -> Layer:
        normed = fields.flag(qk_norm[0], qk_norm[1]) if qk_norm[0] else qk_norm[1]
        attention = attention_of(fields, qk_norm=normed)
        if index < fields.natural(*dense):
            return Layer(attention, dense_of(fields, column_bytes=4))
        count = fields.count(*experts, most=MAX_EXPERTS)
        width, together = fields.count("moe_intermediate_size"), fields.natural(*shared, most=MAX_EXPERTS)
        moe = Mlp(
            width, count, fields.count(*per_token, most=count), column_bytes=column_bytes, router_vectors=4 * count * corrected
        )
        return Layer(attention, replace(moe, shared=width * together, router=router, shared_key=shared_key))

    return layer


def dots1(fields: Fields, index: int) -> Layer:
    """The converter leaves the first output projection as it is."""
    layer = sparse(experts=("n_routed_experts", 128), qk_norm=("", True))(fields, index)
    attention = attention_of(fields, qk_norm=True)
    return replace(layer, attention=replace(attention, plain_output=index == 0))


def post_normed(*, whole: bool) -> Reader:
    """Norms after attention and feed-forward block only; those of queries and keys per head, or over the `whole` width."""

    def layer(fields: Fields, index: int) -> Layer:
        del index
        attention = attention_of(fields, qk_norm=True)
        vectors = attention.q_width + attention.kv_width if whole else attention.vectors
        return Layer(replace(attention, vectors=vectors), dense_of(fields, column_bytes=4))

    return layer


def cohere(fields: Fields, index: int) -> Layer:
    """Attention and feed-forward block side by side behind one norm; queries and keys may be normed, each head by its own."""
    del index
    attention = attention_of(fields)
    if fields.values.get("use_qk_norm"):
        attention = replace(attention, vectors=attention.q_width + attention.kv_width)
    return Layer(attention, dense_of(fields), norms=1)


def afmoe(fields: Fields, index: int) -> Layer:
    """Gated attention, on most layers over a window (which does not count the query itself), and sigmoid-routed experts."""
    attention = replace(attention_of(fields, qk_norm=True), gate="full")
    if fields.word("layer_types", index, ("sliding_attention", "full_attention")) == "sliding_attention":
        attention = replace(attention, window=fields.count("sliding_window") + 1, ring=True)
    if index < fields.natural("num_dense_layers", 0):
        return Layer(attention, dense_of(fields, column_bytes=4), norms=4)
    experts = experts_of(fields, "moe_intermediate_size", "num_experts")
    shared = experts.intermediate * fields.natural("num_shared_experts", 0, most=MAX_EXPERTS)
    moe = replace(experts, shared=shared, router="router.gate", router_vectors=4 * experts.experts)
    return Layer(attention, moe, norms=4)


def apertus(fields: Fields, index: int) -> Layer:
    """A block without a gate, whose activation has two numbers of its own."""
    del index
    return Layer(attention_of(fields, qk_norm=True), Mlp(fields.count("intermediate_size"), gated=False), extra=4)


def arcee(fields: Fields, index: int) -> Layer:
    del index
    return Layer(attention_of(fields), Mlp(fields.count("intermediate_size"), gated=False, column_bytes=6))

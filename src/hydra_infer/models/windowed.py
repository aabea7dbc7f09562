"""Layers of models whose windowed attention has heads, sinks or a head gate of its own, from the fields of a config.json.

Source: exllamav3 1.6.5, architecture/laguna.py, mimo_v2.py, muse_glimmer.py, spark2_5.py, step3_5.py and step3_7.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import UnknownModel
from .families import Reader, attention_of, dense_of, experts_of
from .fields import Fields
from .spec import Attention, Layer, Mlp

__all__ = ["laguna", "mimo_v2", "muse", "spark", "step"]

KINDS = ("sliding_attention", "full_attention")


def laguna(fields: Fields, index: int) -> Layer:
    """A gate per head, query heads counted per layer, and a shared expert that runs in 32 bit."""
    heads = fields.values.get("num_attention_heads_per_layer")
    own = fields if heads is None else _with(fields, {"num_attention_heads": _entry(fields, heads, index)})
    attention = _windowed(fields, replace(attention_of(own, qk_norm=True, bias=False), gate="heads", gate_key="g_proj"), index)
    if index in fields.listed("mlp_only_layers", [0]):
        return Layer(attention, dense_of(fields, column_bytes=4))
    experts = experts_of(fields, "moe_intermediate_size", "num_experts")
    shared = fields.count("shared_expert_intermediate_size")
    vectors = 4 * experts.experts
    moe = replace(experts, shared=shared, shared_key="shared_expert", shared_column_bytes=10, router_vectors=vectors)
    return Layer(attention, moe)


def mimo_v2(fields: Fields, index: int) -> Layer:
    """Values narrower than keys, though the cache keeps them as wide; layers with a window have more of both."""
    pattern = fields.values.get("hybrid_layer_pattern")
    windowed = pattern is not None and _entry(fields, pattern, index) == 1
    heads = fields.count("num_attention_heads")
    plain = fields.count("num_key_value_heads", heads, heads)
    kv_heads = fields.count("swa_num_key_value_heads", plain, heads) if windowed else plain
    attention = attention_of(_with(fields, {"num_key_value_heads": kv_heads}), bias=False)
    sinks = fields.flag("add_swa_attention_sink_bias" if windowed else "add_full_attention_sink_bias", False)
    attention = replace(
        attention, v_dim=fields.count("v_head_dim", attention.head_dim, attention.head_dim), vectors=heads if sinks else 0
    )
    if windowed:
        attention = replace(attention, window=fields.count("sliding_window"), ring=True)
    return Layer(attention, _mimo_feed(fields, index))


def _mimo_feed(fields: Fields, index: int) -> Mlp:
    for field in ("n_group", "topk_group"):
        if fields.values.get(field) not in (None, 1):
            raise UnknownModel(f"{fields.path}: exllamav3 does not load MiMo V2 with experts in groups ({field} is not 1)")
    sparse = fields.values.get("moe_layer_freq")
    if not (fields.values.get("n_routed_experts") if sparse is None else _entry(fields, sparse, index)):
        return dense_of(fields, column_bytes=4)
    used = fields.values.get("num_experts_per_tok", 8)
    experts = experts_of(_with(fields, {"num_experts_per_tok": used}), "moe_intermediate_size", "n_routed_experts")
    return replace(experts, router_vectors=4 * experts.experts)


def muse(fields: Fields, index: int) -> Layer:
    """Attention gated as wide as its queries, with norms that have no weights; these windows count the query itself."""
    attention = replace(attention_of(fields, bias=False), gate="full")
    if fields.word("layer_types", index, KINDS) == "sliding_attention":
        attention = replace(attention, window=fields.count("sliding_window"), ring=True)
    return Layer(attention, dense_of(fields, column_bytes=4), norms=4)


def spark(fields: Fields, index: int) -> Layer:
    """May have a gate per head; attention looks back over everything where no kinds of layers are named."""
    attention = replace(attention_of(fields, bias=False), output="out_proj")
    if fields.flag("headwise_attn_output_gate", False):
        attention = replace(attention, gate="heads", gate_key="g_proj")
    if fields.values.get("layer_types") is not None:
        attention = _windowed(fields, attention, index)
    return Layer(attention, dense_of(fields, column_bytes=6))


def step(always_normed: bool) -> Reader:
    """Step 3.5 and, where queries and keys are always normed, 3.7: attention over a window has settings of its own."""

    def layer(fields: Fields, index: int) -> Layer:
        inner = fields
        if fields.word("layer_types", index, KINDS) == "sliding_attention":
            other = fields.values.get("attention_other_setting")
            inner = Fields(fields.path, other if isinstance(other, dict) else {})
        # A width of its own for windowed heads is read by the engine, and not used.
        heads = inner.count("num_attention_heads")
        own = {"num_attention_heads": heads, "num_key_value_heads": inner.count("num_attention_groups", most=heads)}
        width = fields.count("head_dim", max(1, fields.count("hidden_size") // fields.count("num_attention_heads")))
        normed = always_normed or fields.flag("use_qk_norm", True)
        attention = attention_of(_with(fields, own | {"head_dim": width}), qk_norm=normed, bias=False)
        attention = _windowed(fields, replace(attention, gate="heads", gate_key="g_proj"), index)
        listed = str(fields.values.get("moe_layers_enum")).split(",")
        if str(index) not in [number.strip() for number in listed]:
            return Layer(attention, dense_of(fields, column_bytes=4))
        experts = experts_of(fields, "moe_intermediate_size", "moe_num_experts", "moe_top_k")
        moe = replace(
            experts,
            shared=fields.count("share_expert_dim"),
            shared_key="share_expert",
            key="",
            router="moe.gate",
            experts_key="moe.experts",
            router_vectors=4 * experts.experts,
        )
        return Layer(attention, moe)

    return layer


def _windowed(fields: Fields, attention: Attention, index: int) -> Attention:
    """With a ring where the layer is of the windowed kind; these windows do not count the query itself."""
    if fields.word("layer_types", index, KINDS) != "sliding_attention":
        return attention
    return replace(attention, window=fields.count("sliding_window") + 1, ring=True)


def _with(fields: Fields, changed: Mapping[str, Any]) -> Fields:
    return Fields(fields.path, {**fields.values, **changed})


def _entry(fields: Fields, values: Any, index: int) -> Any:
    """Entry `index` of a list with one for every layer."""
    if not isinstance(values, list) or index >= len(values):
        count = len(values) if isinstance(values, list) else 0
        raise fields.fail("num_hidden_layers", f"is more than a list by layer describes, {count}")
    return values[index]

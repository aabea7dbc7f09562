"""Layers of models that mix attention with recurrence or convolution, from the fields of a config.json.

Source: exllamav3 1.6.5, architecture/qwen3_next.py, qwen3_5.py, kimi_linear.py, lfm2.py, lfm2_moe.py and nemotronh.py.
"""

from __future__ import annotations

from dataclasses import replace

from .deepseek_v4 import mixing_bytes
from .families import MAX_EXPERTS, Reader, attention_of, dense_of, experts_of
from .fields import MAX_LAYERS, Fields
from .latents import glm_dsa, latent_of
from .spec import Layer, Mixer, Mlp, Recurrent, ShortConv

__all__ = [
    "bailing",
    "glm5_next",
    "kimi_linear",
    "lfm2",
    "nemotron",
    "nemotron_blocks",
    "olmo_hybrid",
    "qwen_hybrid",
]


# The tokens of a page: pooled keys never straddle one (cache/mla.py).
PAGE = 256


def qwen_hybrid(moe: bool, form: str) -> Reader:
    """Gated DeltaNet, and every fourth layer attention with a gate in its query projection."""

    def layer(fields: Fields, index: int) -> Layer:
        return Layer(_qwen_mixer(fields, index, form), _qwen_experts(fields) if moe else dense_of(fields, column_bytes=4))

    return layer


def _qwen_mixer(fields: Fields, index: int, form: str) -> Mixer:
    types = fields.values.get("layer_types")
    interval = fields.count("full_attention_interval", 4, MAX_LAYERS)
    if types is None or form == "fused":
        full = (index + 1) % interval == 0
    else:
        full = fields.word("layer_types", index, ("linear_attention", "full_attention")) == "full_attention"
    if full:
        return replace(attention_of(fields, qk_norm=True), gate="query")
    return Recurrent(
        k_heads=fields.count("linear_num_key_heads", 16),
        v_heads=fields.count("linear_num_value_heads", 32),
        k_dim=fields.count("linear_key_head_dim", 128),
        v_dim=fields.count("linear_value_head_dim", 128),
        conv=fields.count("linear_conv_kernel_dim", 4),
        form=form,
    )


def _qwen_experts(fields: Fields) -> Mlp:
    experts = experts_of(fields, "moe_intermediate_size", "num_experts")
    shared = fields.count("shared_expert_intermediate_size", 512)
    return replace(experts, shared=shared, shared_key="shared_expert", shared_gate=True)


def kimi_linear(fields: Fields, index: int) -> Layer:
    """Kimi Delta Attention on the layers listed (counted from 1), latent attention without positions on the others."""
    linear = fields.values.get("linear_attn_config")
    inner = Fields(fields.path, linear if isinstance(linear, dict) else {})
    listed = inner.values.get("kda_layers")
    if not isinstance(listed, list):
        raise fields.fail("linear_attn_config", "has no kda_layers")
    mixer: Mixer = latent_of(fields, None)
    if index + 1 in listed:
        heads, width = inner.count("num_heads"), inner.count("head_dim")
        mixer = Recurrent(heads, heads, width, width, inner.count("short_conv_kernel_size"), "kda", key="self_attn")
    if index < fields.natural("first_k_dense_replace", 0) or index % fields.count("moe_layer_freq", 1, MAX_LAYERS):
        return Layer(mixer, dense_of(fields, column_bytes=4))
    experts = experts_of(fields, "moe_intermediate_size", "num_experts", "num_experts_per_token")
    return Layer(
        mixer,
        replace(
            experts,
            shared=experts.intermediate * fields.natural("num_shared_experts", 0, most=MAX_EXPERTS),
            shared_names=("up_proj", "gate_proj", "down_proj"),
            router_vectors=4 * experts.experts,
            key="block_sparse_moe",
            names=("w3", "w1", "w2"),
        ),
    )


def bailing(fields: Fields, index: int) -> Layer:
    """Kimi Delta Attention with direct gates; latent attention closes every group of layers, and has what is left over."""
    group, layers = fields.count("layer_group_size", most=MAX_LAYERS), fields.count("num_hidden_layers", most=MAX_LAYERS)
    heads = fields.count("num_attention_heads")
    mixer: Mixer
    if (index + 1) % group == 0 or index >= layers // group * group:
        gated = fields.values.get("gated_attention_proj_granularity_type") == "head_wise"
        mixer = replace(latent_of(fields, None), key="attention", output="dense", head_gate=gated)
    else:
        width = fields.count("head_dim")
        mixer = Recurrent(heads, heads, width, width, fields.count("short_conv_kernel_size"), "kda direct", key="attention")
    if index < fields.natural("first_k_dense_replace", 0):
        return Layer(mixer, dense_of(fields, column_bytes=4))
    experts = experts_of(fields, "moe_intermediate_size", "num_experts")
    shared = experts.intermediate * fields.natural("num_shared_experts", 0, most=MAX_EXPERTS)
    return Layer(mixer, replace(experts, shared=shared, router_vectors=4 * experts.experts))


def olmo_hybrid(fields: Fields, index: int) -> Layer:
    """Gated DeltaNet, and attention with norms over the whole width of queries and keys; neither is promoted."""
    mixer = _qwen_mixer(fields, index, "olmo")
    if not isinstance(mixer, Recurrent):
        attention = attention_of(fields, bias=False)
        mixer = replace(attention, vectors=attention.q_width + attention.kv_width)
    return Layer(mixer, dense_of(fields, column_bytes=4))


def glm5_next(fields: Fields, index: int) -> Layer:
    """Kimi Delta Attention and sparse latent attention whose indexer pools its keys, over several residual streams."""
    linear = fields.values.get("linear_attn_config")
    inner = Fields(fields.path, linear if isinstance(linear, dict) else {})
    layer = glm_dsa(fields, index, pool=fields.count("index_kpool", most=PAGE))
    if fields.word("layer_types", index, ("linear_attention", "deepseek_sparse_attention")) == "linear_attention":
        heads, width = inner.count("num_heads"), inner.count("head_dim")
        mixer = Recurrent(heads, heads, width, width, inner.count("short_conv_kernel_size"), "kda", key="self_attn")
        layer = replace(layer, attention=mixer)
    # Before the head the streams are averaged, without weights.
    return replace(layer, extra=2 * mixing_bytes(fields.count("hc_mult", 4, 64), fields.count("hidden_size")))


def lfm2(moe: bool) -> Reader:
    """Short convolutions, and attention on some layers."""

    def layer(fields: Fields, index: int) -> Layer:
        types = fields.values.get("layer_types")
        full = (index + 1) % 4 == 0 if types is None else fields.word("layer_types", index, ("conv", "full_attention")) != "conv"
        mixer: Mixer = ShortConv(fields.count("hidden_size"), fields.count("conv_L_cache", 3))
        if full:
            mixer = replace(attention_of(fields, qk_norm=True), output="out_proj")
        names = ("w3", "w1", "w2")
        if not moe or index < fields.natural("num_dense_layers", 0):
            return Layer(mixer, replace(dense_of(fields, column_bytes=4), key="feed_forward", names=names))
        experts = experts_of(fields, "moe_intermediate_size", "num_experts")
        corrections = 4 * experts.experts if fields.flag("use_expert_bias", True) else 0
        return Layer(mixer, replace(experts, key="feed_forward", names=names, router_vectors=corrections))

    return layer


def nemotron_blocks(fields: Fields) -> int:
    return len(_nemotron_pattern(fields))


def _nemotron_pattern(fields: Fields) -> str:
    """One letter per block: M Mamba 2, * attention, - feed-forward, E experts."""
    types, blocks = fields.values.get("layers_block_type"), fields.values.get("block_configs")
    if types is None and isinstance(blocks, list):
        types = [block.get("block_type") if isinstance(block, dict) else None for block in blocks]
    if isinstance(types, list):
        letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
        return "".join(letters.get(str(kind), "?") for kind in types)
    pattern = fields.values.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= MAX_LAYERS:
        raise fields.fail("hybrid_override_pattern", "is no pattern of blocks")
    return pattern


def nemotron(fields: Fields, index: int) -> Layer:
    """Blocks of one mixer or one feed-forward part each, all without a gate; experts may differ from block to block."""
    match _nemotron_pattern(fields)[index]:
        case "M":
            return Layer(_mamba(fields), None, norms=1)
        case "*":
            return Layer(replace(attention_of(fields), key="mixer"), None, norms=1)
        case "-":
            return Layer(None, Mlp(fields.count("intermediate_size"), gated=False, column_bytes=6, key="mixer"), norms=1)
        case "E":
            return Layer(None, _nemotron_experts(_own_experts(fields, index)), norms=1)
        case other:
            raise fields.fail("hybrid_override_pattern", f"has the unknown block {other!r:.100}")


def _own_experts(fields: Fields, index: int) -> Fields:
    """What a pruned ("Puzzle") model says of one block's experts stands before what it says of all."""
    blocks = fields.values.get("block_configs")
    if blocks is None:
        return fields
    block = blocks[index] if isinstance(blocks, list) and index < len(blocks) else None
    if not isinstance(block, dict):
        raise fields.fail("block_configs", f"does not describe block {index}")
    names = ("moe_intermediate_size", "n_routed_experts", "num_experts_per_tok")
    return Fields(fields.path, {**fields.values, **{name: block[name] for name in names if name in block}})


def _mamba(fields: Fields) -> Recurrent:
    return Recurrent(
        k_heads=fields.count("n_groups"),
        v_heads=fields.count("mamba_num_heads"),
        k_dim=fields.count("ssm_state_size"),
        v_dim=fields.count("mamba_head_dim"),
        conv=fields.count("conv_kernel", 4),
        form="mamba",
        conv_bias=fields.flag("use_conv_bias", True),
        key="mixer",
    )


def _nemotron_experts(fields: Fields) -> Mlp:
    experts = experts_of(fields, "moe_intermediate_size", "n_routed_experts")
    return replace(
        experts,
        gated=False,
        shared=fields.count("moe_shared_expert_intermediate_size"),
        shared_key="shared_experts",
        latent=fields.optional("moe_latent_size"),
        router_vectors=4 * experts.experts,
        key="mixer",
    )

"""Layers of multi-head latent attention, with DeepSeek's experts, from the fields of a config.json.

Source: exllamav3 1.6.5, architecture/deepseek_v3.py, glm_moe_dsa.py and glm4_moe_lite.py.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import UnknownModel
from .families import MAX_EXPERTS, dense_of, experts_of
from .fields import Fields
from .spec import Indexer, Latent, Layer, Mlp

__all__ = [
    "deepseek",
    "glm_dsa",
    "glm_lite",
    "latent_of",
]


def deepseek(fields: Fields, index: int) -> Layer:
    return Layer(latent_of(fields, None), _deepseek_mlp(fields, index < fields.natural("first_k_dense_replace", 3)))


def glm_dsa(fields: Fields, index: int, pool: int = 0) -> Layer:
    """Latent attention over chosen tokens; some layers have an indexer, the others use the last one's choice.

    The indexer also looks at every `pool` keys as one where that is not 0.
    """
    full = fields.word("indexer_types", index, ("full", "shared")) == "full"
    indexer = Indexer(fields.count("index_n_heads"), fields.count("index_head_dim"), pool) if full else None
    if fields.values.get("mlp_layer_types") is None:
        dense = index < fields.natural("first_k_dense_replace", 3)
    else:
        dense = fields.word("mlp_layer_types", index, ("dense", "sparse")) == "dense"
    return Layer(latent_of(fields, indexer), _deepseek_mlp(fields, dense))


def glm_lite(fields: Fields, index: int) -> Layer:
    """Latent attention with DeepSeek's experts."""
    if fields.values.get("mlp_layer_types") is None:
        return deepseek(fields, index)
    dense = fields.word("mlp_layer_types", index, ("dense", "sparse")) == "dense"
    return Layer(latent_of(fields, None), _deepseek_mlp(fields, dense))


def latent_of(fields: Fields, indexer: Indexer | None) -> Latent:
    return Latent(
        heads=fields.count("num_attention_heads"),
        q_rank=fields.optional("q_lora_rank"),
        kv_rank=fields.count("kv_lora_rank"),
        nope_dim=fields.count("qk_nope_head_dim"),
        rope_dim=fields.natural("qk_rope_head_dim", 0),
        v_dim=fields.count("v_head_dim"),
        indexer=indexer,
    )


def _deepseek_mlp(fields: Fields, dense: bool) -> Mlp:
    """Experts with a correction of 32 bits each, and shared ones as a single wider block."""
    for field in ("n_group", "topk_group"):
        if fields.values.get(field) not in (None, 1):
            groups = fields.values[field]
            raise UnknownModel(f"{fields.path}: exllamav3 does not load experts in groups ({field} is {str(groups)[:20]})")
    if dense:
        return dense_of(fields, column_bytes=4)
    experts = experts_of(fields, "moe_intermediate_size", "n_routed_experts")
    shared = experts.intermediate * fields.count("n_shared_experts", 1, MAX_EXPERTS)
    return replace(experts, shared=shared, shared_key="shared_experts", router_vectors=4 * experts.experts)

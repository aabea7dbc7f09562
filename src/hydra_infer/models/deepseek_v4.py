"""DeepSeek V4: compressed attention, several residual streams, and experts chosen by token in the first layers.

Source: exllamav3 1.6.5, architecture/deepseek_v4.py and modules/hyperconnections.py.
"""

from __future__ import annotations

from .fields import Fields
from .spec import Compressed, Indexer, Layer, Mlp

__all__ = ["RATES", "layer_of", "mixing_bytes", "streams_of"]

# compress_ratios: 0 is a window alone, 4 compressed windows that overlap and an indexer, 128 compressed ones alone.
RATES = {0: "window", 4: "compress_rate_csa", 128: "compress_rate_hca"}


def streams_of(fields: Fields) -> int:
    return fields.count("hc_mult", 4, 64)


def mixing_bytes(streams: int, hidden: int, head: bool = False) -> int:
    """32-bit weights that mix the streams: before and after every part of a block, or once before the head."""
    rows, scales = (streams, 1) if head else ((2 + streams) * streams, 3)
    return 4 * (rows * streams * hidden + rows + scales)


def layer_of(fields: Fields, index: int) -> Layer:
    """One block. Raises ConfigError where `compress_ratios` has no ratio for it, or another one."""
    streams, hidden = streams_of(fields), fields.count("hidden_size")
    return Layer(_attention(fields, _ratio(fields, index)), _experts(fields, index), extra=2 * mixing_bytes(streams, hidden))


def _ratio(fields: Fields, index: int) -> int:
    ratios = fields.values.get("compress_ratios")
    if ratios is None:
        return 128 if index < 2 or index % 2 else 4
    ratio = ratios[index] if isinstance(ratios, list) and index < len(ratios) else None
    if type(ratio) is not int or ratio not in RATES:
        raise fields.fail("compress_ratios", f"has {str(ratio)[:40]!r} for layer {index}, not one of 0, 4, 128")
    return ratio


def _attention(fields: Fields, ratio: int) -> Compressed:
    indexer = Indexer(fields.count("index_n_heads", 64), fields.count("index_head_dim", 128)) if ratio == 4 else None
    return Compressed(
        heads=fields.count("num_attention_heads"),
        head_dim=fields.count("head_dim", 512),
        rope_dim=fields.count("qk_rope_head_dim", 64),
        q_rank=fields.count("q_lora_rank"),
        groups=fields.count("o_groups", 8),
        o_rank=fields.count("o_lora_rank", 1024),
        window=fields.count("sliding_window", 128),
        rate=fields.count(RATES[ratio], ratio, 256) if ratio else 0,
        indexer=indexer,
    )


def _experts(fields: Fields, index: int) -> Mlp:
    """The first layers look their experts up by token, in a table of 64-bit numbers; the others have a 32-bit correction."""
    experts = fields.count("n_routed_experts", most=2**16)
    used, width = fields.count("num_experts_per_tok", most=experts), fields.count("moe_intermediate_size")
    hashed = index < fields.natural("num_hash_layers", 3)
    return Mlp(
        width,
        experts,
        used,
        shared=width * fields.count("n_shared_experts", 1, 2**16),
        router_vectors=8 * fields.count("vocab_size") * used if hashed else 4 * experts,
        column_bytes=4,
        key="ffn",
        names=("w3", "w1", "w2"),
    )

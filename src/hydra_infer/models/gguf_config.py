"""The shape of a model from the metadata of its GGUF file, for the same plain architectures as config.py covers."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, UnknownModel
from .fields import MAX_LAYERS, Fields
from .gguf import GgufHeader
from .spec import Attention, Geometry, Layer, Mlp

__all__ = ["ARCHITECTURES", "geometry_of"]

# llama.cpp's words; "llama" is also Mistral and, with experts, Mixtral.
ARCHITECTURES = ("gemma", "llama", "qwen2", "qwen3", "qwen3moe")


def geometry_of(header: GgufHeader, path: Path) -> Geometry:
    """The Geometry a GGUF header describes. Errors as in config.geometry_of."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: general.architecture is missing")
    if name not in ARCHITECTURES:
        raise UnknownModel(f"architecture {name!r} ({path}) is not covered yet", hint=f"covered are {', '.join(ARCHITECTURES)}")
    short = {key.removeprefix(f"{name}."): value for key, value in header.metadata.items() if key.startswith(f"{name}.")}
    fields = Fields(path, short)
    count = fields.count("block_count", most=MAX_LAYERS)
    return Geometry(
        architecture=name,
        hidden=fields.count("embedding_length"),
        vocab=fields.count("vocab_size", header.counts.get("tokenizer.ggml.tokens")),
        layers=(Layer(_attention(fields), _mlp(fields)),) * count,
        tied="output.weight" not in header.tensors,
        trained_context=fields.optional("context_length"),
    )


def _attention(fields: Fields) -> Attention:
    heads = fields.count("attention.head_count")
    kv_heads = fields.count("attention.head_count_kv", heads, heads)
    if heads % kv_heads:
        raise fields.fail("attention.head_count_kv", f"is {kv_heads}, which does not divide head_count {heads}")
    head_dim = fields.count("attention.key_length", fields.count("embedding_length") // heads)
    if fields.count("attention.value_length", head_dim) != head_dim:
        raise UnknownModel(f"{fields.path}: keys and values of different length are not covered yet")
    return Attention(heads, kv_heads, head_dim)


def _mlp(fields: Fields) -> Mlp:
    experts = fields.optional("expert_count", most=2**16)
    if experts is None:
        return Mlp(fields.count("feed_forward_length"))
    width = fields.count("expert_feed_forward_length", fields.optional("feed_forward_length"))
    return Mlp(width, experts, fields.count("expert_used_count", most=experts))

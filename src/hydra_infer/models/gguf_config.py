"""The shape of a model from the metadata of its GGUF file, for plain attention and for Qwen 3.5's hybrid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, UnknownModel
from .fields import MAX_LAYERS, Fields
from .gguf import GgufHeader
from .spec import Attention, Geometry, Layer, Mlp, Recurrent

__all__ = ["ARCHITECTURES", "geometry_of"]

# llama.cpp's words; "llama" is also Mistral and, with experts, Mixtral.
ARCHITECTURES = ("gemma", "llama", "qwen2", "qwen3", "qwen3moe", "qwen35")

# Every so many layers of a hybrid one has attention, where the file does not say (llama.cpp, models/qwen35.cpp).
INTERVAL = 4


def geometry_of(header: GgufHeader, path: Path) -> Geometry:
    """The Geometry a GGUF header describes. Errors as in config.geometry_of."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: general.architecture is missing")
    if name not in ARCHITECTURES:
        raise UnknownModel(
            f"architecture {name!r:.100} ({path}) is not covered yet", hint=f"covered are {', '.join(ARCHITECTURES)}"
        )
    short = {key.removeprefix(f"{name}."): value for key, value in header.metadata.items() if key.startswith(f"{name}.")}
    fields = Fields(path, short)
    return Geometry(
        architecture=name,
        hidden=fields.count("embedding_length"),
        vocab=fields.count("vocab_size", header.counts.get("tokenizer.ggml.tokens")),
        layers=_hybrid(fields) if name == "qwen35" else (Layer(_attention(fields), _mlp(fields)),) * _blocks(fields),
        tied="output.weight" not in header.tensors,
        trained_context=fields.optional("context_length"),
    )


def _blocks(fields: Fields) -> int:
    """Layers of the model itself; llama.cpp counts those of an MTP head as well."""
    blocks = fields.count("block_count", most=MAX_LAYERS)
    heads = fields.natural("nextn_predict_layers", 0, MAX_LAYERS)
    if heads >= blocks:
        raise fields.fail("nextn_predict_layers", f"is {heads}, of {blocks} blocks")
    return blocks - heads


def _hybrid(fields: Fields) -> tuple[Layer, ...]:
    """Gated DeltaNet, and attention in every so many layers (llama.cpp, models/qwen35.cpp)."""
    if "attention.recurrent_layers" in fields.values:
        raise UnknownModel(f"{fields.path}: a list of recurrent layers is not covered yet")
    inner, value_heads = fields.count("ssm.inner_size"), fields.count("ssm.time_step_rank")
    if inner % value_heads:
        raise fields.fail("ssm.inner_size", f"is {inner}, which time_step_rank {value_heads} does not divide")
    linear = Recurrent(
        k_heads=fields.count("ssm.group_count"),
        v_heads=value_heads,
        k_dim=fields.count("ssm.state_size"),
        v_dim=inner // value_heads,
        conv=fields.count("ssm.conv_kernel", most=1024),
        form="split",
    )
    full, mlp = replace(_attention(fields), gate="query"), _mlp(fields)
    interval = fields.count("full_attention_interval", INTERVAL, MAX_LAYERS)
    return tuple(Layer(linear if (index + 1) % interval else full, mlp) for index in range(_blocks(fields)))


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

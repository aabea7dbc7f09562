"""The shape of a model from its config.json, for the architectures whose attention is plain grouped-query attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UnknownModel
from .fields import MAX_LAYERS, Fields
from .spec import Attention, Geometry, Layer, Mlp
from .strict_json import JsonDict

__all__ = ["ARCHITECTURES", "geometry_of", "quantization_of"]


def _dense(fields: Fields, layer: int) -> Mlp:
    del layer
    return Mlp(fields.count("intermediate_size"))


def _mixtral(fields: Fields, layer: int) -> Mlp:
    del layer
    return _experts(fields, "intermediate_size", "num_local_experts")


def _qwen3_moe(fields: Fields, layer: int) -> Mlp:
    """Every `decoder_sparse_step`-th layer has experts, except those listed in `mlp_only_layers`."""
    dense = fields.values.get("mlp_only_layers") or []
    if layer in dense or (layer + 1) % fields.count("decoder_sparse_step", 1, MAX_LAYERS):
        return _dense(fields, layer)
    return _experts(fields, "moe_intermediate_size", "num_experts")


def _experts(fields: Fields, width: str, count: str) -> Mlp:
    experts = fields.count(count)
    return Mlp(fields.count(width), experts, fields.count("num_experts_per_tok", most=experts))


def _no_window(fields: Fields, layer: int) -> None:
    """The Llama family attends to everything; where a config names a window the engines here ignore it."""
    del fields, layer


def _gemma_window(fields: Fields, layer: int) -> int | None:
    """Gemma 2 alternates, Gemma 3 has five windowed layers to a full one; `layer_types` says it where it is there."""
    types = fields.values.get("layer_types")
    if isinstance(types, list) and layer < len(types):
        return fields.count("sliding_window") if types[layer] == "sliding_attention" else None
    every = fields.count("sliding_window_pattern", 2 if "2" in fields.values["architectures"][0] else 6, MAX_LAYERS)
    return None if (layer + 1) % every == 0 else fields.count("sliding_window", 4096)


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture's config.json is to be read, where architectures differ."""

    mlp: Callable[[Fields, int], Mlp] = _dense
    window: Callable[[Fields, int], int | None] = _no_window
    tied: bool = False
    head_dim: int | None = None


# Attention that only differs in its sizes. Whatever is not here is refused rather than guessed.
ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(),
    "MistralForCausalLM": Architecture(),
    "Qwen2ForCausalLM": Architecture(),
    "Qwen3ForCausalLM": Architecture(),
    "SeedOssForCausalLM": Architecture(),
    "SmolLM3ForCausalLM": Architecture(tied=True),
    "MixtralForCausalLM": Architecture(mlp=_mixtral),
    "Qwen3MoeForCausalLM": Architecture(mlp=_qwen3_moe),
    "GemmaForCausalLM": Architecture(tied=True, head_dim=256),
    "Gemma2ForCausalLM": Architecture(window=_gemma_window, tied=True, head_dim=256),
    "Gemma3ForCausalLM": Architecture(window=_gemma_window, tied=True, head_dim=256),
}


def geometry_of(config: JsonDict, path: Path) -> Geometry:
    """The Geometry a config.json describes; `path` is named in errors.

    Raises UnknownModel for an architecture that is not covered, ConfigError for a field that is missing or impossible.
    """
    name = _architecture(config, path)
    if name not in ARCHITECTURES:
        covered = ", ".join(sorted(known.removesuffix("ForCausalLM") for known in ARCHITECTURES))
        raise UnknownModel(f"architecture {name!r} ({path}) is not covered yet", hint=f"covered are {covered}")
    kind, fields = ARCHITECTURES[name], Fields(path, config)
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads, heads)
    if heads % kv_heads:
        raise fields.fail("num_key_value_heads", f"is {kv_heads}, which does not divide num_attention_heads {heads}")
    if config.get("head_dim") is None and kind.head_dim is None and hidden % heads:
        raise fields.fail("hidden_size", f"is {hidden}, which num_attention_heads {heads} does not divide")
    head_dim = fields.count("head_dim", kind.head_dim or hidden // heads)
    layers = tuple(
        Layer(Attention(heads, kv_heads, head_dim, kind.window(fields, index)), kind.mlp(fields, index))
        for index in range(fields.count("num_hidden_layers", most=MAX_LAYERS))
    )
    return Geometry(
        architecture=name,
        hidden=hidden,
        vocab=fields.count("vocab_size"),
        layers=layers,
        tied=fields.flag("tie_word_embeddings", kind.tied),
        trained_context=fields.optional("max_position_embeddings"),
    )


def quantization_of(config: JsonDict, path: Path) -> str | None:
    """The quant_method a config.json names, or None for plain weights."""
    value: Any = config.get("quantization_config")
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("quant_method"), str):
        raise ConfigError(f"{path}: quantization_config has no quant_method")
    method: str = value["quant_method"]
    return method.lower()


def _architecture(config: JsonDict, path: Path) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ConfigError(f"{path}: architectures is {str(names)[:80]}, not a list of one name")
    return names[0]

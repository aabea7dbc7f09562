"""EXL3 folders of any architecture ExLlamaV3 knows: true headers over holes, rates by its own converter.

The engine itself says which linears, norms and embeddings there are. What it only asks for while loading (biases,
attention sinks, state-space parameters, correction biases) is added here by the shapes of the published checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine3 import build
from exllamav3.conversion.allocation import create_q_strategy
from exllamav3.modules import Embedding, LayerNorm, Linear, RMSNorm
from exllamav3.modules.gated_rmsnorm import GatedRMSNorm
from synthetic import sparse_safetensors

__all__ = ["HEAD_BITS", "SIDECARS", "entries", "prepare", "text_config", "write"]

HEAD_BITS = 6

Entry = tuple[str, str, list[int]]

_IMAGE = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": 256,
    "max_soft_tokens": 280,
    "merge_size": 2,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "temporal_patch_size": 2,
}

_TILES = {
    "downsample_factor": 2,
    "encoder_patch_size": 16,
    "max_image_tokens": 256,
    "max_tiles": 10,
    "min_image_tokens": 64,
    "min_tiles": 2,
    "tile_size": 512,
}

# What a model with a vision tower needs beside its config.json: tried in this order until the engine accepts one.
SIDECARS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen": (
        "preprocessor_config.json",
        _IMAGE | {"image_processor_type": "Qwen2VLImageProcessorFast", "size": {"longest_edge": 2**24, "shortest_edge": 2**16}},
    ),
    "gemma3": (
        "preprocessor_config.json",
        _IMAGE | {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 896, "width": 896}},
    ),
    "gemma4": ("processor_config.json", {"image_processor": _IMAGE}),
    "glm4v": (
        "preprocessor_config.json",
        _IMAGE | {"image_processor_type": "Glm4vImageProcessor", "size": {"longest_edge": 2**24, "shortest_edge": 2**16}},
    ),
    "glm5": (
        "processor_config.json",
        {
            "image_processor": _IMAGE
            | {"image_processor_type": "Glm5NextImageProcessor", "min_image_tokens": 16, "max_image_tokens": 1024}
        },
    ),
    "pixtral": (
        "preprocessor_config.json",
        _IMAGE | {"image_processor_type": "PixtralImageProcessorFast", "patch_size": 14, "size": {"longest_edge": 1540}},
    ),
    "radio": (
        "processor_config.json",
        {
            "image_processor": _IMAGE
            | {
                "max_num_patches": 1024,
                "min_num_patches": 64,
                "norm_mean": [0.5, 0.5, 0.5],
                "norm_std": [0.5, 0.5, 0.5],
                "video_target_num_patches": 256,
            }
        },
    ),
    "lfm2": ("processor_config.json", {"image_processor": _IMAGE | _TILES}),
}


def prepare(folder: Path, config: dict[str, Any], sidecar: str | None) -> tuple[Any, Any]:
    """A folder with no weights yet, and the engine's (config, model) for it. Raises engine3.Unaccepted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if sidecar is not None:
        name, values = SIDECARS[sidecar]
        (folder / name).write_text(json.dumps(values))
    return build(folder)


def write(folder: Path, config: dict[str, Any], model: Any, engine_config: Any, bits: float) -> float:
    """Fill a prepared folder as converted at `bits`; returns the mean rate the converter reached."""
    rates, final = create_q_strategy(model, None, engine_config, bits, HEAD_BITS, 4, 0, half_steps=True)
    sparse_safetensors(folder / "model.safetensors", list(entries(model, text_config(config), rates)))
    quantised = {"quant_method": "exl3", "version": "1.6.5", "bits": final, "head_bits": HEAD_BITS, "codebook": "mul1"}
    # A converted model always has a head of its own, and nothing left of the quantisation it came from.
    changed = config | {"quantization_config": quantised, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(changed))
    return float(final)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says of the model that reads and writes text."""
    return config | config.get("text_config", {}) | config.get("llm_config", {})


def entries(model: Any, config: dict[str, Any], rates: dict[str, float]) -> Iterator[Entry]:
    """The tensors of a model, each linear at the rate that `rates` has for its key, or in 16 bit."""

    def walk(module: Any, parent: Any) -> Iterator[Entry]:
        if isinstance(module, Linear):
            yield from _linear(module, rates.get(module.key), _biased(module.key, config))
        elif isinstance(module, Embedding):
            yield f"{module.key}.weight", "F16", [module.vocab_size, module.hidden_size]
        elif isinstance(module, LayerNorm):
            width = _norm_width(module, parent, config)
            yield f"{module.key}.weight", "F16", [width]
            if not config["architectures"][0].startswith("Cohere"):
                yield f"{module.key}.bias", "F16", [width]
        elif isinstance(module, GatedRMSNorm):
            yield f"{module.key}.weight", "F16", [_norm_width(module, parent, config)]
        elif isinstance(module, RMSNorm) and not module.unweighted:
            yield module.tensor_key, "F16", [_norm_width(module, parent, config)]
        yield from _own(module, config)
        for child in module.modules:
            yield from walk(child, module)

    seen: set[str] = set()
    for module in model.modules:
        for entry in walk(module, None):
            if entry[0] not in seen:
                seen.add(entry[0])
                yield entry


def _linear(module: Any, rate: float | None, biased: bool) -> Iterator[Entry]:
    key, rows, columns = module.key, module.in_features, module.out_features
    if rate is not None and rate <= 8:
        yield f"{key}.suh", "F16", [rows]
        yield f"{key}.svh", "F16", [columns]
        yield f"{key}.trellis", "I16", [rows // 16, columns // 16, round(16 * rate)]
        yield f"{key}.mul1", "I32", []
    else:
        columns = module.out_features_unpadded
        yield f"{key}.weight", "F16", [columns, module.in_features_unpadded]
    if biased:
        yield f"{key}.bias", "F16", [columns]


def _biased(key: str, config: dict[str, Any]) -> bool:
    """Qwen2 and MiMo have biases on q, k and v; gpt-oss on everything but the head; others where the config says so."""
    last = key.rsplit(".", 1)[-1]
    name = config["architectures"][0]
    if name in ("Qwen2ForCausalLM", "MiMoForCausalLM", "Qwen2_5_VLForConditionalGeneration"):
        return last in ("q_proj", "k_proj", "v_proj")
    if name == "GptOssForCausalLM":
        return last != "lm_head"
    if last == "o_proj" and "attention_out_bias" in config:
        return bool(config["attention_out_bias"])
    return bool(config.get("attention_bias")) and last in ("q_proj", "k_proj", "v_proj", "o_proj")


def _norm_width(norm: Any, parent: Any, config: dict[str, Any]) -> int:
    last, kind = norm.key.rsplit(".", 1)[-1], type(parent).__name__
    if kind in ("Attention", "SlidingAttention") and last in ("q_norm", "k_norm", "q_layernorm", "k_layernorm"):
        heads = parent.num_q_heads if last.startswith("q") else parent.num_kv_heads
        return int(parent.head_dim * (heads if norm.span_heads else 1))
    if kind == "MLAttention":
        return int({"q_a_layernorm": parent.q_lora_rank, "kv_a_layernorm": parent.kv_lora_rank}.get(last, parent.index_head_dim))
    if kind == "GatedDeltaNet":
        return int(parent.v_head_dim)
    if kind == "Mamba2":
        return int(parent.v_dim)
    if kind == "DSV4Attention":
        return _v4_norm(norm, parent)
    return int(config["hidden_size"])


def _v4_norm(norm: Any, attention: Any) -> int:
    for part in (attention.compressor, attention.indexer):
        if part is not None and norm.key.startswith(part.key + "."):
            return int(part.head_dim)
    return int(attention.q_a.out_features_unpadded if norm is attention.q_norm else attention.head_dim)


def _own(module: Any, config: dict[str, Any]) -> Iterator[Entry]:
    """Tensors that belong to no linear and no norm."""
    kind, key = type(module).__name__, module.key
    if kind == "TransformerBlock":
        for name in (module.key_layer_scalar, module.key_attn_resid_scalar, module.key_mlp_resid_scalar):
            if name:
                yield f"{key}.{name}", "F16", [1]
    elif kind in ("Attention", "SlidingAttention"):
        if getattr(module, "key_sinks", None):
            yield f"{key}.{module.key_sinks}", "F16", [module.num_q_heads]
    elif kind == "MLAttention":
        rows = module.num_q_heads * (module.qk_nope_head_dim + module.v_head_dim)
        yield f"{key}.{module.key_kv_b}.weight", "F16", [rows, module.kv_lora_rank]
        if module.index_kpool and module.idx_plane_dim:
            indexer = f"{key}.{module.key_indexer}.index_kpool_compress"
            yield f"{indexer}_ape", "F32", [module.index_kpool, module.index_head_dim]
            yield f"{indexer}_gate", "F16", [module.index_head_dim, config["hidden_size"]]
    elif kind == "BlockSparseMLP":
        yield from _experts(module, config)
    elif kind == "MLP":
        for name in (module.key_alpha_p, module.key_alpha_n):
            if name:
                yield name, "F16", [1]
    elif kind == "GatedDeltaNet":
        yield module.key_a_log, "F32", [module.num_v_heads]
        yield module.key_dt_bias, "F16", [module.num_v_heads * (module.k_head_dim if module.kda else 1)]
        yield module.key_conv1d_weight, "F16", [module.fdim_qkv, 1, module.conv_kernel_size]
    elif kind == "ShortConv":
        yield module.key_conv1d_weight, "F16", [module.hidden_size, 1, module.conv_kernel_size]
    elif kind == "Mamba2":
        for name in (module.key_a_log, module.key_dt_bias, module.key_d):
            yield name, "F16", [module.num_v_heads]
        yield module.key_conv1d_weight, "F16", [module.fdim_qkv, 1, module.conv_kernel_size]
        if config.get("use_conv_bias", True):
            yield module.key_conv1d_bias, "F16", [module.fdim_qkv]
    elif kind == "DSV4Attention":
        yield f"{key}.attn_sink", "F32", [module.num_q_heads]
        for part in (module.compressor, module.indexer):
            if part is not None:
                yield f"{part.key}.ape", "F32", [part.compress_rate, (2 if part.overlapping else 1) * part.head_dim]
    elif kind == "HyperConnection" or (kind == "HyperHead" and not module.mean):
        yield from _streams(module, kind, config["hidden_size"])


def _experts(module: Any, config: dict[str, Any]) -> Iterator[Entry]:
    if module.router_type in ("dots", "ds3", "sqrtsp") and module.e_score_correction_bias_key and not module.tid2eid_key:
        yield f"{module.key}.{module.e_score_correction_bias_key}", "F32", [module.num_experts]
    if module.tid2eid_key:
        yield f"{module.key}.{module.tid2eid_key}", "I64", [config["vocab_size"], module.num_experts_per_tok]
    if module.per_expert_scale_key:
        yield f"{module.key}.{module.per_expert_scale_key}", "F16", [module.num_experts]


def _streams(module: Any, kind: str, hidden: int) -> Iterator[Entry]:
    """Hyper-connections: rows of mixing weights over all residual streams."""
    streams = module.hc_mult
    rows, scales = ((2 + streams) * streams, 3) if kind == "HyperConnection" else (streams, 1)
    yield f"{module.key}_fn", "F32", [rows, streams * hidden]
    yield f"{module.key}_base", "F32", [rows]
    yield f"{module.key}_scale", "F32", [scales]

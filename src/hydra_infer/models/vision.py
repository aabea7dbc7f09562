"""The tower that turns pictures into tokens, from its part of config.json: matrices and everything else, by architecture.

Source: exllamav3 1.6.5, architecture/qwen3_vl.py, qwen2_5_vl.py, mistral3.py, gemma3.py and gemma4.py with modules/arch_specific.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UnknownModel
from .fields import MAX_LAYERS, Fields
from .spec import Tower, TowerMatrix

__all__ = ["PREFIXES", "tower_of"]

# How tensors of a tower, or of what joins it to the language model, begin, in all architectures of exllamav3 1.6.5.
PREFIXES = (
    "model.visual.",
    "visual.",
    "model.vision_tower.",
    "vision_tower.",
    "vision_model.",
    "vision.",
    "aligner.",
    "model.embed_vision.",
    "model.multi_modal_projector.",
    "multi_modal_projector.",
)

# Bits per weight that the converter gives a tower where nothing is said (default_vision_bits), else it is left alone.
CONVERTED, PLAIN = 6.0, 16.0


def tower_of(values: Mapping[str, Any], text: Fields) -> Tower | None:
    """The Tower a config.json describes beside its language model, None where there is none.

    Raises UnknownModel for one that is not covered, ConfigError for an impossible field.
    """
    inner = values.get("vision_config")
    if not isinstance(inner, dict):
        return None
    name, fields = values["architectures"][0], Fields(text.path, inner)
    hidden = text.count("hidden_size")
    if name.startswith(("Qwen3VL", "Qwen3_5")):
        return _qwen(fields)
    if name.startswith("Qwen2_5_VL"):
        return _qwen2_5(fields)
    if name.startswith("Mistral3"):
        return _pixtral(fields, hidden, values.get("spatial_merge_size"))
    if name.startswith("Gemma3"):
        return _siglip(fields, hidden)
    if name.startswith("Gemma4For"):
        return _gemma4(fields, hidden)
    raise UnknownModel(
        f"{text.path}: exllamav3 knows the vision tower of {name!r}, the planner does not size it from a config.json yet",
        hint="give the folder with the model's files, or the config.json without its vision_config",
    )


def _qwen(fields: Fields) -> Tower:
    """A ViT with biases, one merger at its end and one for each of the layers whose output is passed on as well."""
    depth, hidden = fields.count("depth", most=MAX_LAYERS), fields.count("hidden_size")
    merged = hidden * fields.count("spatial_merge_size", 2, 64) ** 2
    patch = fields.count("in_channels", 3, 64) * fields.count("temporal_patch_size", 2, 64) * fields.count("patch_size") ** 2
    deep = fields.values.get("deepstack_visual_indexes") or []
    mergers = 1 + (len(deep) if isinstance(deep, list) else 0)
    norms = depth * 4 * hidden + 2 * hidden + (mergers - 1) * 2 * merged
    other = hidden * (patch + 1) + fields.count("num_position_embeddings") * hidden + norms
    matrices = (
        *_block(hidden, fields.count("intermediate_size"), depth),
        TowerMatrix(merged, merged, mergers, bias=True),
        TowerMatrix(merged, fields.count("out_hidden_size"), mergers, bias=True),
    )
    return Tower(matrices, other, CONVERTED)


def _qwen2_5(fields: Fields) -> Tower:
    """Gated blocks with biases and one merger; the converter leaves it alone."""
    depth, hidden = fields.count("depth", most=MAX_LAYERS), fields.count("hidden_size")
    width = fields.count("intermediate_size")
    merged = hidden * fields.count("spatial_merge_size", 2, 64) ** 2
    patch = fields.count("in_chans", 3, 64) * fields.count("temporal_patch_size", 2, 64) * fields.count("patch_size") ** 2
    matrices = (
        TowerMatrix(hidden, hidden, 4 * depth, bias=True),
        TowerMatrix(hidden, width, 2 * depth, bias=True),
        TowerMatrix(width, hidden, depth, bias=True),
        TowerMatrix(merged, merged, bias=True),
        TowerMatrix(merged, fields.count("out_hidden_size"), bias=True),
    )
    return Tower(matrices, hidden * patch + depth * 2 * hidden + hidden, PLAIN)


def _pixtral(fields: Fields, text: int, merge: int | None) -> Tower:
    """Pixtral: gated blocks without biases, patches merged and projected twice; the converter leaves it alone."""
    layers, hidden = fields.count("num_hidden_layers", most=MAX_LAYERS), fields.count("hidden_size")
    width, patch = fields.count("intermediate_size"), 3 * fields.count("patch_size") ** 2
    merged = hidden * Fields(fields.path, {"spatial_merge_size": merge}).count("spatial_merge_size", 1, 64) ** 2
    matrices = (
        TowerMatrix(hidden, hidden, 4 * layers),
        TowerMatrix(hidden, width, 2 * layers),
        TowerMatrix(width, hidden, layers),
        TowerMatrix(merged, hidden),
        TowerMatrix(hidden, text),
        TowerMatrix(text, text),
    )
    return Tower(matrices, hidden * patch + hidden + layers * 2 * hidden + hidden, PLAIN)


def _siglip(fields: Fields, text: int) -> Tower:
    """SigLIP as it is in the checkpoint: the converter leaves it alone."""
    layers, hidden = fields.count("num_hidden_layers", 24, MAX_LAYERS), fields.count("hidden_size")
    patch = fields.count("patch_size")
    positions = (fields.count("image_size", 896) // patch) ** 2
    other = hidden * (3 * patch**2 + 1) + positions * hidden + layers * 4 * hidden + 2 * hidden + hidden + hidden * text
    return Tower(_block(hidden, fields.count("intermediate_size", hidden), layers), other, PLAIN)


def _gemma4(fields: Fields, text: int) -> Tower:
    """Four norms a layer, gated blocks without biases, and two tables of positions."""
    layers, hidden = fields.count("num_hidden_layers", most=MAX_LAYERS), fields.count("hidden_size")
    width, head = fields.count("intermediate_size"), fields.count("head_dim")
    heads = fields.count("num_attention_heads")
    kv = head * fields.count("num_key_value_heads", heads)
    patch = 3 * fields.count("patch_size") ** 2
    scales = 2 * hidden if fields.flag("standardize", False) else 0
    other = 2 * fields.count("position_embedding_size") * hidden + layers * (4 * hidden + 2 * head) + scales
    matrices = (
        TowerMatrix(patch, hidden),
        TowerMatrix(hidden, heads * head, layers),
        TowerMatrix(hidden, kv, 2 * layers),
        TowerMatrix(heads * head, hidden, layers),
        TowerMatrix(hidden, width, 2 * layers),
        TowerMatrix(width, hidden, layers),
        TowerMatrix(hidden, text),
    )
    return Tower(matrices, other, CONVERTED)


def _block(hidden: int, width: int, layers: int) -> tuple[TowerMatrix, ...]:
    """Queries, keys, values and output, then a block without a gate; all with biases."""
    return (
        TowerMatrix(hidden, hidden, 4 * layers, bias=True),
        TowerMatrix(hidden, width, layers, bias=True),
        TowerMatrix(width, hidden, layers, bias=True),
    )

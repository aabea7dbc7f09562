"""The tower that turns pictures into tokens, from its part of config.json: matrices and everything else, by architecture.

Source: exllamav3 1.6.5, architecture/qwen3_vl.py, qwen2_5_vl.py, mistral3.py, gemma3.py, gemma4.py, glm4v.py, lfm2_vl.py,
hcxvisionv2.py, muse_glimmer.py, nemotronh.py and step3_7.py with modules/arch_specific.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import UnknownModel
from .fields import MAX_LAYERS, Fields
from .spec import Tower, TowerMatrix

__all__ = ["PREFIXES", "processor_files", "tower_of"]

# How tensors of a tower, or of what joins it to the language model, begin, in all architectures of exllamav3 1.6.5.
PREFIXES = (
    "model.visual.",
    "visual.",
    "model.vision_model.",
    "model.vision_tower.",
    "vision_tower.",
    "vision_model.",
    "vision.",
    "aligner.",
    "model.vision_embedder.",
    "model.embed_vision.",
    "model.multi_modal_projector.",
    "multi_modal_projector.",
    "model.mm_projector.",
    "model.vit_large_projector.",
    "vit_large_projector.",
    "model.vision_adapter.",
    "vision_projector.",
    "mlp1.",
    "model.vision_projection.",
)

# Which file beside config.json says how pictures are prepared; exllamav3 does not load these models without it.
_PRE, _PRO = "preprocessor_config.json", "processor_config.json"
PROCESSORS: dict[str, tuple[str, ...]] = {
    "Gemma3ForConditionalGeneration": (_PRE,),
    "Gemma4ForConditionalGeneration": (_PRO,),
    "Gemma4UnifiedForConditionalGeneration": (_PRO,),
    "Glm4vForConditionalGeneration": (_PRE,),
    "Glm4vMoeForConditionalGeneration": (_PRE,),
    "Glm5NextForConditionalGeneration": (_PRO,),
    "HCXVisionV2ForCausalLM": (_PRE,),
    "Lfm2VlForConditionalGeneration": (_PRO, _PRE),
    "Mistral3ForConditionalGeneration": (_PRE, _PRO),
    "MuseGlimmerForConditionalGeneration": (_PRO,),
    "NemotronH_Omni_Reasoning_V3": (_PRO, _PRE),
    "Qwen2_5_VLForConditionalGeneration": (_PRE,),
    "Qwen3VLForConditionalGeneration": (_PRE,),
    "Qwen3VLMoeForConditionalGeneration": (_PRE,),
    "Qwen3_5ForConditionalGeneration": (_PRE,),
    "Qwen3_5MoeForConditionalGeneration": (_PRE,),
}

# Bits per weight that the converter gives a tower where nothing is said (default_vision_bits), else it is left alone.
CONVERTED, PLAIN = 6.0, 16.0


def processor_files(architecture: str) -> tuple[str, ...]:
    """Names of files of which exllamav3 1.6.5 needs one beside the config.json; () for models without pictures."""
    return PROCESSORS.get(architecture, ())


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
    if name.startswith("HCXVisionV2"):
        tower, out = _qwen2_5(fields), fields.count("out_hidden_size")
        return replace(tower, matrices=(*tower.matrices, TowerMatrix(out, out)))
    if name.startswith("Glm4v"):
        return _glm4v(fields)
    if name.startswith("Glm5Next"):
        return _glm5(fields)
    if name.startswith("NemotronH"):
        return _radio(fields, Fields(text.path, values), hidden)
    if name.startswith("Muse"):
        return _muse(fields, Fields(text.path, values), hidden)
    if name.startswith("Lfm2Vl"):
        return _siglip2(fields, Fields(text.path, values), hidden)
    if name.startswith("Step3p7"):
        return _step(fields, Fields(text.path, values), hidden)
    if name.startswith("Mistral3"):
        return _pixtral(fields, hidden, values.get("spatial_merge_size"))
    if name.startswith("Gemma3"):
        return _siglip(fields, hidden)
    if name.startswith("Gemma4For"):
        return _gemma4(fields, hidden)
    if name.startswith("Gemma4Unified"):
        return _patches(fields, hidden)
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


def _siglip2(fields: Fields, whole: Fields, text: int) -> Tower:
    """SigLIP 2 over flattened patches, which are merged and projected twice; the patches' own projection stays in 16 bit."""
    layers, hidden = fields.count("num_hidden_layers", most=MAX_LAYERS), fields.count("hidden_size")
    patch = fields.count("num_channels", 3, 64) * fields.count("patch_size") ** 2
    merged = hidden * whole.count("downsample_factor", 2, 64) ** 2
    projected = whole.count("projector_hidden_size")
    norm = 2 * merged if whole.flag("projector_use_layernorm", False) else 0
    other = hidden * (patch + 1) + fields.count("num_patches") * hidden + layers * 4 * hidden + 2 * hidden + norm
    matrices = (
        *_block(hidden, fields.count("intermediate_size"), layers),
        TowerMatrix(merged, projected, bias=True),
        TowerMatrix(projected, text, bias=True),
    )
    return Tower(matrices, other, CONVERTED)


def _step(fields: Fields, whole: Fields, text: int) -> Tower:
    """A ViT with scaled residuals, then two convolutions over 3 x 3 that double the width and halve the grid each."""
    layers, hidden = fields.count("layers", most=MAX_LAYERS), fields.count("width")
    patch = fields.count("patch_size", 14)
    positions = (fields.count("image_size", 728) // patch) ** 2
    ratio = 8960 / 1536 if fields.values.get("mlp_ratio") is None else fields.number("mlp_ratio", 64)
    convolutions = 2 * hidden * (9 * hidden + 1) + 4 * hidden * (9 * 2 * hidden + 1)
    channels = fields.count("num_channels", 3, 64)
    other = hidden * channels * patch**2 + positions * hidden + 2 * hidden + layers * 6 * hidden + convolutions
    matrices = (
        *_block(hidden, int(hidden * ratio), layers),
        TowerMatrix(4 * hidden, text, bias=whole.flag("projector_bias", False)),
    )
    return Tower(matrices, other, CONVERTED)


def _glm4v(fields: Fields) -> Tower:
    """Gated blocks as wide as the text model, patches merged by a convolution, and a gated merger of its own width."""
    depth, hidden, out = fields.count("depth", most=MAX_LAYERS), fields.count("hidden_size"), fields.count("out_hidden_size")
    patch = 3 * fields.count("temporal_patch_size", 2, 64) * fields.count("patch_size") ** 2
    positions = (fields.count("image_size") // fields.count("patch_size")) ** 2
    convolution = out * (hidden * fields.count("spatial_merge_size", 2, 64) ** 2 + 1)
    norms = hidden + depth * 2 * hidden + hidden + 2 * out
    matrices = _glm(fields, out, fields.count("intermediate_size"))
    return Tower(matrices, hidden * (patch + 1) + positions * hidden + convolution + norms, CONVERTED)


def _glm5(fields: Fields) -> Tower:
    """The same without a table of positions; queries and keys are normed, blocks and merger have widths of their own."""
    depth, hidden, out = fields.count("depth", most=MAX_LAYERS), fields.count("hidden_size"), fields.count("out_hidden_size")
    patch = 3 * fields.count("temporal_patch_size", 2, 64) * fields.count("patch_size") ** 2
    convolution = out * (hidden * fields.count("spatial_merge_size", 2, 64) ** 2 + 1)
    norms = depth * (2 * hidden + 2 * (hidden // fields.count("num_heads"))) + hidden + 2 * out
    matrices = _glm(fields, fields.count("intermediate_size"), fields.count("projection_intermediate_size"))
    return Tower(matrices, hidden * (patch + 1) + convolution + norms, CONVERTED)


def _glm(fields: Fields, width: int, merger: int) -> tuple[TowerMatrix, ...]:
    """Gated blocks of `width` columns, and a merger of `merger`."""
    depth, hidden, out = fields.count("depth", most=MAX_LAYERS), fields.count("hidden_size"), fields.count("out_hidden_size")
    return (
        TowerMatrix(hidden, hidden, 4 * depth, bias=fields.flag("attention_bias", False)),
        TowerMatrix(hidden, width, 2 * depth),
        TowerMatrix(width, hidden, depth),
        TowerMatrix(out, out),
        TowerMatrix(out, merger, 2),
        TowerMatrix(merger, out),
    )


def _radio(fields: Fields, whole: Fields, text: int) -> Tower:
    """C-RADIO: one projection for patches of pictures and one for those of films, with tokens put before them."""
    layers, hidden = fields.count("num_hidden_layers", most=MAX_LAYERS), fields.count("hidden_size")
    patch = fields.count("num_channels", 3, 64) * fields.count("patch_size") ** 2
    positions = (fields.count("max_img_size") // fields.count("patch_size")) ** 2
    prefix = fields.natural("num_cls_tokens", 0) + fields.natural("num_registers", 0)
    ratio = 0.5 if whole.values.get("downsample_ratio") is None else whole.number("downsample_ratio", 1)
    merged, projected = hidden * round(1 / ratio) ** 2, whole.count("projector_hidden_size")
    films = whole.count("video_temporal_patch_size", 2, 64)
    other = hidden * (patch * (1 + films) + positions + prefix) + layers * 4 * hidden + merged
    matrices = (
        *_block(hidden, int(hidden * fields.number("mlp_ratio", 64)), layers),
        TowerMatrix(merged, projected),
        TowerMatrix(projected, text),
    )
    return Tower(matrices, other, PLAIN)


def _muse(fields: Fields, whole: Fields, text: int) -> Tower:
    """A ViT with biases over flattened patches; merged patches pass an adapter of two matrices and a projection."""
    layers, hidden = fields.count("num_hidden_layers", most=MAX_LAYERS), fields.count("hidden_size")
    patch = 3 * fields.count("patch_temporal", most=64) * fields.count("patch_size") ** 2
    positions = fields.count("pos_emb_height") * fields.count("pos_emb_width")
    projected = whole.count("projector_hidden_size")
    matrices = (
        *_block(hidden, fields.count("intermediate_size"), layers),
        TowerMatrix(hidden * fields.count("merge_size", most=64) ** 2, projected),
        TowerMatrix(projected, projected),
        TowerMatrix(projected, text),
    )
    return Tower(matrices, hidden * (patch + positions) + layers * 4 * hidden + 4 * hidden, CONVERTED)


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


def _patches(fields: Fields, text: int) -> Tower:
    """No tower at all: patches are projected, normed three times, get two positions each, and are projected again."""
    patch, width = 3 * fields.count("model_patch_size") ** 2, fields.count("mm_embed_dim")
    other = 2 * patch + 2 * width + 2 * width + 2 * fields.count("mm_posemb_size") * width
    matrices = (TowerMatrix(patch, width, bias=True), TowerMatrix(fields.count("output_proj_dims"), text))
    return Tower(matrices, other, CONVERTED)


def _block(hidden: int, width: int, layers: int) -> tuple[TowerMatrix, ...]:
    """Queries, keys, values and output, then a block without a gate; all with biases."""
    return (
        TowerMatrix(hidden, hidden, 4 * layers, bias=True),
        TowerMatrix(hidden, width, layers, bias=True),
        TowerMatrix(width, hidden, layers, bias=True),
    )

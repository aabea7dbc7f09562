"""How the config.json of each architecture is read into layers: which fields it has, and what they mean for the shape.

Source: exllamav3 1.6.5, architecture/*.py; names of architectures are those of config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import deepseek_v4, families, hybrids, latents, windowed
from .families import Reader
from .fields import MAX_LAYERS, Fields
from .spec import Keys

__all__ = ["ARCHITECTURES", "DRAFTERS", "KNOWN_TO_EXLLAMAV3", "Architecture"]


KEYS = Keys()


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture's config.json is to be read: `text` names the object in it that holds the language model.

    `other_keys` are how older or newer files of it name their tensors, `defaults` what holds where a file is silent.
    """

    layer: Reader
    keys: Keys = KEYS
    text: str = ""
    tied: bool = False
    count: Callable[[Fields], int] = lambda fields: fields.count("num_hidden_layers", most=MAX_LAYERS)
    other_keys: Keys | None = None
    streams: Callable[[Fields], int] | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)


_VL = Keys.under("model.language_model")
_INNER = Keys.under("language_model.model", head="language_model.lm_head")
_LFM2 = Keys(norm="model.embedding_norm")
_GLM4_MOE = families.sparse(experts=("n_routed_experts", 128), qk_norm=("use_qk_norm", False))
_SOLAR = families.sparse(experts=("n_routed_experts", 128), qk_norm=("use_qk_norm", False), dense=("first_k_dense_replace", 0))
_ERNIE_MOE = families.sparse(
    experts=("moe_num_experts", None),
    per_token=("moe_k", None),
    shared=("moe_num_shared_experts", 0),
    dense=("moe_layer_start_index", 0),
    corrected=False,
    column_bytes=10,
)
_HY_V3 = families.sparse(
    experts=("num_experts", 192),
    shared=("num_shared_experts", 1),
    dense=("first_k_dense_replace", 1),
    qk_norm=("qk_norm", True),
    router="router.gate",
    shared_key="shared_mlp",
)
_V4 = Keys("embed", "layers", "norm", "head")
_HCX = Keys.under("model.language_model.model", head="model.language_model.lm_head")
_LFM2_VL = Keys("model.language_model.embed_tokens", "model.language_model.layers", "model.language_model.embedding_norm")
_OMNI = Keys(*(f"language_model.{key}" for key in ("backbone.embeddings", "backbone.layers", "backbone.norm_f", "lm_head")))
_GEMMA3 = {"hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4}
_BAILING = Keys("model.word_embeddings")
_BACKBONE = Keys("backbone.embeddings", "backbone.layers", "backbone.norm_f")

# Whatever is not here is refused rather than guessed.
ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(families.plain()),
    "MistralForCausalLM": Architecture(families.plain()),
    "Qwen2ForCausalLM": Architecture(families.plain(bias=True)),
    "MiMoForCausalLM": Architecture(families.plain(bias=True)),
    "Qwen3ForCausalLM": Architecture(families.plain(column_bytes=4, qk_norm=True)),
    "Qwen3VLForConditionalGeneration": Architecture(families.plain(column_bytes=4, qk_norm=True), _VL, "text_config"),
    "SeedOssForCausalLM": Architecture(families.seed_oss),
    "SmolLM3ForCausalLM": Architecture(families.plain(column_bytes=4), tied=True),
    "IQuestCoderForCausalLM": Architecture(families.plain()),
    "Phi3ForCausalLM": Architecture(families.plain(column_bytes=6, bias=False)),
    "Ernie4_5_ForCausalLM": Architecture(families.plain(column_bytes=4)),
    "Glm4ForCausalLM": Architecture(families.plain(column_bytes=4, norms=4)),
    "CohereForCausalLM": Architecture(families.cohere, tied=True),
    "Cohere2ForCausalLM": Architecture(families.cohere, tied=True),
    "DeciLMForCausalLM": Architecture(families.deci),
    "GemmaForCausalLM": Architecture(families.plain(head_dim=256), tied=True),
    "Gemma2ForCausalLM": Architecture(families.gemma(qk_norm=False), tied=True),
    "Gemma3ForCausalLM": Architecture(families.gemma(qk_norm=True), tied=True, defaults=_GEMMA3),
    "Gemma3ForConditionalGeneration": Architecture(
        families.gemma(qk_norm=True), _INNER, "text_config", tied=True, defaults=_GEMMA3 | {"vocab_size": 262208}
    ),
    "Gemma4ForConditionalGeneration": Architecture(families.gemma4, _VL, "text_config", tied=True),
    "Gemma4UnifiedForConditionalGeneration": Architecture(families.gemma4, _VL, "text_config", tied=True),
    "MixtralForCausalLM": Architecture(families.mixtral),
    "MiniMaxM2ForCausalLM": Architecture(families.minimax),
    "Qwen3MoeForCausalLM": Architecture(families.qwen3_moe),
    "Qwen3VLMoeForConditionalGeneration": Architecture(families.qwen3_moe, _VL, "text_config"),
    "GptOssForCausalLM": Architecture(families.gpt_oss),
    "Qwen3NextForCausalLM": Architecture(hybrids.qwen_hybrid(moe=True, form="fused")),
    "Qwen3_5ForConditionalGeneration": Architecture(hybrids.qwen_hybrid(moe=False, form="split"), _VL, "text_config"),
    "Qwen3_5MoeForConditionalGeneration": Architecture(hybrids.qwen_hybrid(moe=True, form="split"), _VL, "text_config"),
    "Qwen3_5ForCausalLM": Architecture(hybrids.qwen_hybrid(moe=False, form="split"), _VL),
    "Qwen3_5MoeForCausalLM": Architecture(hybrids.qwen_hybrid(moe=True, form="split"), _VL),
    "DeepseekV3ForCausalLM": Architecture(latents.deepseek),
    "DeepseekV4ForCausalLM": Architecture(deepseek_v4.layer_of, _V4, streams=deepseek_v4.streams_of),
    "KimiLinearForCausalLM": Architecture(hybrids.kimi_linear),
    "GlmMoeDsaForCausalLM": Architecture(latents.glm_dsa),
    "NemotronHForCausalLM": Architecture(hybrids.nemotron, _BACKBONE, count=hybrids.nemotron_blocks),
    "AfmoeForCausalLM": Architecture(families.afmoe),
    "ArceeForCausalLM": Architecture(families.arcee),
    "Ministral3ForCausalLM": Architecture(families.plain(column_bytes=6)),
    "Mistral3ForConditionalGeneration": Architecture(families.plain(column_bytes=6), _VL, "text_config", other_keys=_INNER),
    "Qwen2_5_VLForConditionalGeneration": Architecture(families.plain(bias=True), other_keys=_VL),
    "Glm4vForConditionalGeneration": Architecture(families.plain(column_bytes=4, norms=4), _VL, "text_config"),
    "Exaone4ForCausalLM": Architecture(families.post_normed(whole=False)),
    "Olmo3ForCausalLM": Architecture(families.post_normed(whole=True)),
    "HyperCLOVAXForCausalLM": Architecture(families.plain(column_bytes=4, norms=4)),
    "Lfm2ForCausalLM": Architecture(hybrids.lfm2(moe=False), _LFM2),
    "Lfm2MoeForCausalLM": Architecture(hybrids.lfm2(moe=True), _LFM2),
    "Glm4MoeForCausalLM": Architecture(_GLM4_MOE),
    "Glm4vMoeForConditionalGeneration": Architecture(_GLM4_MOE, _VL, "text_config"),
    "Glm4MoeLiteForCausalLM": Architecture(latents.glm_lite),
    "Dots1ForCausalLM": Architecture(families.dots1),
    "SolarOpenForCausalLM": Architecture(_SOLAR),
    "Ernie4_5_MoeForCausalLM": Architecture(_ERNIE_MOE),
    "HYV3ForCausalLM": Architecture(_HY_V3),
    "ApertusForCausalLM": Architecture(families.apertus),
    "BailingMoeV3ForCausalLM": Architecture(hybrids.bailing, _BAILING),
    "MuseGlimmerForConditionalGeneration": Architecture(windowed.muse, _VL, "text_config"),
    "Glm5NextForConditionalGeneration": Architecture(hybrids.glm5_next, _VL, "text_config"),
    "NemotronH_Omni_Reasoning_V3": Architecture(hybrids.nemotron, _OMNI, "llm_config", count=hybrids.nemotron_blocks),
    "HCXVisionV2ForCausalLM": Architecture(families.plain(column_bytes=4), _HCX, "text_config"),
    "Lfm2VlForConditionalGeneration": Architecture(hybrids.lfm2(moe=False), _LFM2_VL, "text_config"),
    "LagunaForCausalLM": Architecture(windowed.laguna),
    "MiMoV2ForCausalLM": Architecture(windowed.mimo_v2),
    "OlmoHybridForCausalLM": Architecture(hybrids.olmo_hybrid),
    "Spark2_5ForCausalLM": Architecture(windowed.spark),
    "Step3p5ForCausalLM": Architecture(windowed.step(always_normed=False)),
    "Step3p7ForConditionalGeneration": Architecture(windowed.step(always_normed=True), text="text_config"),
}


# Heads that read the hidden states of another model: exllamav3 loads them beside it, never alone.
DRAFTERS = frozenset(
    """
    DFlash2DraftModel DFlashDraftModel DFlashLagunaForCausalLM Gemma4AssistantForCausalLM MuseGlimmerAssistantModel
    """.split()
)

# What architecture/architectures.py of exllamav3 1.6.5 registers.
KNOWN_TO_EXLLAMAV3 = frozenset(
    """
    AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BailingMoeV3ForCausalLM Cohere2ForCausalLM
    CohereForCausalLM DFlash2DraftModel DFlashDraftModel DFlashLagunaForCausalLM DeciLMForCausalLM
    DeepseekV3ForCausalLM DeepseekV4ForCausalLM Dots1ForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM
    Exaone4ForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma4AssistantForCausalLM
    Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration Glm4ForCausalLM Glm4MoeForCausalLM
    Glm4MoeLiteForCausalLM Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration
    Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM GptOssForCausalLM HCXVisionV2ForCausalLM HYV3ForCausalLM
    HyperCLOVAXForCausalLM IQuestCoderForCausalLM KimiLinearForCausalLM LagunaForCausalLM Lfm2ForCausalLM
    Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LlamaForCausalLM MiMoForCausalLM MiMoV2ForCausalLM
    MiniMaxM2ForCausalLM Ministral3ForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM
    MixtralForCausalLM MuseGlimmerAssistantModel MuseGlimmerForConditionalGeneration NemotronHForCausalLM
    NemotronH_Omni_Reasoning_V3 Olmo3ForCausalLM OlmoHybridForCausalLM Phi3ForCausalLM Qwen2ForCausalLM
    Qwen2_5_VLForConditionalGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM
    Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM
    Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration
    Qwen4ExpForConditionalGeneration SeedOssForCausalLM SmolLM3ForCausalLM SolarOpenForCausalLM Spark2_5ForCausalLM
    Step3p5ForCausalLM Step3p7ForConditionalGeneration
    """.split()
)

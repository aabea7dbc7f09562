"""V2 sampling: a request's sampling fields as the settings of an exllamav2 sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from . import signature

__all__ = ["SAMPLING", "settings"]

# A request's fields by exllamav2 0.3.2's names (generator/sampler.py).
NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical": "typical",
    "tfs": "tfs",
    "repetition_penalty": "token_repetition_penalty",
    "frequency_penalty": "token_frequency_penalty",
    "presence_penalty": "token_presence_penalty",
    "penalty_range": "token_repetition_range",
    "repetition_decay": "token_repetition_decay",
    "dry_multiplier": "dry_multiplier",
    "dry_base": "dry_base",
    "dry_allowed_length": "dry_allowed_length",
    "dry_range": "dry_range",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "smoothing_factor": "smoothing_factor",
    "skew": "skew",
    "temperature_last": "temperature_last",
}
SAMPLING = frozenset(NAMES) | {"logit_bias"}

# OpenAI's defaults, where the engine's own cut and penalise; it samples from everything with top_k=0.
DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "token_repetition_penalty": 1.0}

# Below this the engine itself takes the most probable token (ext_sampling.cpp), but not with temperature_last.
COLDEST = 0.01

# The engine reads top_p=0 as no limit. This keeps the most probable token only, as 0 means everywhere else.
SMALLEST_TOP_P = 1e-6

# The longest repetition that DRY looks for (sampler.py, dry_max_ngram), which its range must exceed.
DRY_LONGEST = 20


def settings(asked: Mapping[str, Any], *, prompt_tokens: int, vocabulary: int) -> Any:
    """exllamav2's Settings for checked fields; `vocabulary` is the number of token ids. Raises ConfigError for what would
    fail in the middle of a step, for every job in it."""
    from exllamav2.generator import ExLlamaV2Sampler

    if 0 < asked.get("dry_range", 0) <= DRY_LONGEST:
        raise ConfigError(f"dry_range={asked['dry_range']}: exllamav2 looks for repetitions of {DRY_LONGEST} tokens", hint="more")
    if asked.get("dry_range") and prompt_tokens < 2:
        raise ConfigError("dry_range needs a prompt of two tokens or more with exllamav2", hint="dry_range=0 has no limit")
    said = {**DEFAULTS, **{NAMES[name]: value for name, value in asked.items() if name in NAMES}}
    said["top_p"] = max(said["top_p"], SMALLEST_TOP_P)
    if said["temperature"] < COLDEST:
        said |= {"temperature": 1.0, "top_k": 1}
    if asked.get("logit_bias"):
        said["token_bias"] = _bias(asked["logit_bias"], vocabulary)
    return signature.call(ExLlamaV2Sampler.Settings, **said)


def _bias(weights: Mapping[int, float], vocabulary: int) -> Any:
    """One number for each row of the output head, whose rows come in multiples of 32 (sampler.py, disallow_tokens)."""
    import torch

    beyond = [token for token in weights if token >= vocabulary]
    if beyond:
        raise ConfigError(f"logit_bias has token {beyond[0]}, the model's are 0 to {vocabulary - 1}")
    bias = torch.zeros(-(-vocabulary // 32) * 32)
    for token, weight in weights.items():
        bias[token] = weight
    return bias

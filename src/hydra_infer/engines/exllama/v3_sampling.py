"""V3 sampling: a request's sampling fields as the steps of an exllamav3 sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import signature

__all__ = ["SAMPLING", "sampler"]

# What exllamav3 1.6.5 can do of params.SAMPLING (generator/sampler/custom.py); it has no typical, tail-free, mirostat or
# smoothed sampling.
SAMPLING = frozenset(
    "temperature top_p top_k min_p repetition_penalty frequency_penalty presence_penalty penalty_range repetition_decay "
    "dry_multiplier dry_base dry_allowed_length dry_range xtc_probability xtc_threshold adaptive_target adaptive_decay "
    "temperature_last logit_bias".split()
)

# OpenAI's defaults (temperature 1, top_p 1), for the rest the values with which a step does nothing, but for what only says
# how a step works: those are exllamav3's own (presets.py ComboSampler) and, for XTC's threshold, the paper's 0.1.
DEFAULTS: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "penalty_range": -1,
    "repetition_decay": 0,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_range": 0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "adaptive_target": 1.0,
    "adaptive_decay": 0.9,
    "temperature_last": False,
    "logit_bias": {},
}

# How far penalties look back where nothing is said: further than any context (presets.py).
WHOLE_CONTEXT = 10**8


def sampler(asked: Mapping[str, Any], tokenizer: Any) -> Any:
    """exllamav3's CustomSampler for checked fields, in the order of its own ComboSampler, with XTC before the last step.

    exllamav3 itself drops the steps whose values change nothing.
    """
    import exllamav3.generator.sampler as steps

    said = {**DEFAULTS, **asked}
    reach = said["penalty_range"] if said["penalty_range"] >= 0 else WHOLE_CONTEXT
    fade = {"sustain_range": reach, "decay_range": said["repetition_decay"]}
    dry = {name: said[name] for name in ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_range")}
    stack = [
        signature.call(steps.SS_LogitBias, logit_bias=said["logit_bias"]),
        signature.call(steps.SS_RepP, rep_p=said["repetition_penalty"], **fade),
        signature.call(steps.SS_PresFreqP, pres_p=said["presence_penalty"], freq_p=said["frequency_penalty"], **fade),
        signature.call(steps.SS_DRY, **dry),
    ]
    if said["temperature"] == 0 or said["top_k"] == 1:
        return steps.CustomSampler([*stack, steps.SS_Argmax()])
    warmth = signature.call(steps.SS_Temperature, temperature=said["temperature"])
    cuts = [
        signature.call(steps.SS_MinP, min_p=said["min_p"]),
        signature.call(steps.SS_TopK, top_k=said["top_k"]),
        signature.call(steps.SS_TopP, top_p=said["top_p"]),
    ]
    stack += [*cuts, warmth] if said["temperature_last"] else [warmth, *cuts]
    if said["xtc_probability"]:
        # The tokenizer names what is never excluded: line ends and added tokens.
        xtc = {"probability": said["xtc_probability"], "threshold": said["xtc_threshold"], "tokenizer": tokenizer}
        stack.append(signature.call(steps.SS_XTC, **xtc))
    if said["adaptive_target"] != 1.0:
        last = signature.call(steps.SS_AdaptiveP, target=said["adaptive_target"], decay=said["adaptive_decay"])
    else:
        last = steps.SS_Sample()
    return steps.CustomSampler([*stack, last])

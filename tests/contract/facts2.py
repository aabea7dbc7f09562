"""What ExLlamaV2 says of a few made folders, as plain data: weights of every module, and its manual split."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import engine2
import synthetic
from facts import runs

__all__ = ["ask"]

CACHES = {"fp16": "ExLlamaV2Cache", "q6": "ExLlamaV2Cache_Q6", "q4": "ExLlamaV2Cache_Q4"}

# What its reader wants of a config.json beside the sizes.
READER = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e4}
READER |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def ask() -> dict[str, Any]:
    """By model: bytes of every module, and the modules per card, None where there is not enough space."""
    return {name: _ask(name) for name in synthetic.EXL2}


def _ask(name: str) -> dict[str, Any]:
    config, bits = synthetic.EXL2[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = synthetic.exl2(Path(temporary) / name, config | READER, bits)
        facts: dict[str, Any] = {}
        for tokens, chunk in synthetic.EXL2_CONTEXTS:
            model = engine2.build(folder, tokens, chunk)
            facts["modules"] = runs(engine2.footprints(model))
            for split in synthetic.EXL2_SPLITS:
                cards = engine2.device_map(model, list(split))
                counts = None if cards is None else [cards.count(card) for card in range(len(split))]
                facts[f"{tokens},{chunk}: {','.join(map(str, split))}"] = counts
            # Its modules of experts have no tensor-parallel form.
            for memory, cache in () if "num_experts" in config else synthetic.EXL2_PARALLEL:
                case = f"{tokens},{chunk}: {','.join(map(str, memory))} tensor {cache}"
                with engine2.parallel(model, list(memory), tokens, CACHES[cache]) as context:
                    facts[case] = [*engine2.shares(context), engine2.scratch(model), engine2.stored(model, context)]
    return facts

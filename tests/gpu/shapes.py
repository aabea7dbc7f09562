"""The tensors of an EXL3 model by ExLlamaV3's own Python, with stand-ins for its compiled part (tests/contract)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine3
import folders
from exllamav3.conversion.allocation import create_q_strategy

__all__ = ["of"]

# Bits per weight of an MTP head (exllamav3 1.6.5, conversion/convert_model.py, --mtp_bits).
MTP_BITS = 4


def of(folder: Path, config: dict[str, Any], bits: float) -> tuple[list[folders.Entry], dict[str, Any]]:
    """Every tensor that the converter would write at `bits` per weight, and the config.json that it would leave.

    An MTP head is among them where the configuration has one, a vision tower is not: nothing is shown to these models.
    """
    engine_config, model = folders.prepare(folder, config, "qwen" if "vision_config" in config else None)
    mtp = engine3.build(folder, "mtp")[1] if "mtp" in engine_config.model_classes else None
    rates, reached = create_q_strategy(model, mtp, engine_config, bits, folders.HEAD_BITS, MTP_BITS, 0, half_steps=True)
    flat = config | config.get("text_config", {})
    found = {entry[0]: entry for part in (model, mtp) if part is not None for entry in folders.entries(part, flat, rates)}
    quantised = {"quant_method": "exl3", "version": "1.6.5", "bits": reached, "head_bits": folders.HEAD_BITS, "codebook": "mul1"}
    return list(found.values()), config | {"quantization_config": quantised, "tie_word_embeddings": False}

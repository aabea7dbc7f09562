"""ExLlamaV2's own Python on a machine without CUDA: what its modules take, and where its manual split puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine3 import replace_compiled

replace_compiled("exllamav2", "none_tensor")

import exllamav2.attn  # noqa: E402
import exllamav2.model  # noqa: E402
from exllamav2 import ExLlamaV2, ExLlamaV2Config  # noqa: E402

# The last step of a split makes streams on every card.
exllamav2.model.ExLlamaV2DeviceContext = lambda *_: None

__all__ = ["build", "device_map", "footprints"]


def build(folder: Path, tokens: int, chunk: int) -> Any:
    """The unloaded model of a folder, for a context of `tokens` and prompts read `chunk` at a time."""
    config = ExLlamaV2Config()
    config.model_dir = str(folder)
    config.prepare()
    config.max_seq_len, config.max_input_len, config.max_attention_size = tokens, chunk, chunk**2
    config.max_output_len = 16
    return ExLlamaV2(config)


def footprints(model: Any) -> list[int]:
    """Bytes of every module, the embedding first."""
    return [int(module.weight_footprint()) for module in model.modules]


def device_map(model: Any, split: list[float], flash: bool = True) -> list[int] | None:
    """The card of every module but the embedding, None where the engine says that there is not enough space."""
    exllamav2.attn.has_flash_attn = flash
    try:
        model.set_device_map(list(split))
    except AssertionError:
        return None
    return [int(module.device_idx) for module in model.modules[1:]]

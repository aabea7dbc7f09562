"""ExLlamaV2's own Python on a machine without CUDA: what its modules take, and how it splits them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine3 import replace_compiled

replace_compiled("exllamav2", "none_tensor")

import exllamav2.attn  # noqa: E402
import exllamav2.cache  # noqa: E402
import exllamav2.linear  # noqa: E402
import exllamav2.mlp  # noqa: E402
import exllamav2.model  # noqa: E402
import exllamav2.module  # noqa: E402
import exllamav2.rmsnorm  # noqa: E402
import torch  # noqa: E402
from exllamav2 import ExLlamaV2, ExLlamaV2Config  # noqa: E402
from exllamav2.tensor_p import BROADCAST_VC, TPContext  # noqa: E402

# The last step of a split makes streams on every card.
exllamav2.model.ExLlamaV2DeviceContext = lambda *_: None

__all__ = ["build", "device_map", "footprints", "parallel", "scratch", "shares", "stored"]

KINDS = {"I32": torch.int32, "I16": torch.int16, "F16": torch.half}


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


@contextmanager
def parallel(model: Any, memory: list[float], tokens: int, cache: str) -> Iterator[Any]:
    """The engine's own division of a model over cards of `memory` GiB, with `tokens` tokens of a cache class."""
    model.tp_context = TPContext(model, list(memory), tokens, getattr(exllamav2.cache, cache))
    try:
        yield model.tp_context
    finally:
        model.tp_context = None


def shares(context: Any) -> list[list[int]]:
    """Heads, columns of the feed-forward block, of the hidden state and of the vocabulary, as many as there are on each card."""
    splits = [context.kv_split, context.id_split, context.rs_split, context.vc_split]
    return [
        [sum(end - begin for card, begin, end in split if card == one) for one in range(context.num_devices)] for split in splits
    ]


def scratch(model: Any) -> list[int]:
    """Bytes of the buffer each card holds: the most that any module asks for there."""
    return [max(sizes) for sizes in zip(*(module.scratch_space_tp() for module in model.modules[1:]), strict=True)]


def stored(model: Any, context: Any) -> list[int]:
    """Bytes that its own split of every module moves to each card; the tensors have sizes and no contents."""
    sums = [0] * context.num_devices
    model.get_device_context = lambda *_: _Context()

    def move(tensor: torch.Tensor, card: Any) -> torch.Tensor:
        if isinstance(card, int):
            sums[card] += tensor.numel() * tensor.element_size()
        return tensor

    exllamav2.linear.safe_move_tensor = exllamav2.rmsnorm.safe_move_tensor = move
    exllamav2.module.ExLlamaV2Module.load_weight, torch.cuda.synchronize = _load_weight, lambda: None
    for module in model.modules[1:]:
        module.load(device_context=False)
        if isinstance(module, exllamav2.attn.ExLlamaV2Attention | exllamav2.mlp.ExLlamaV2MLP):
            module.tp_split()
        else:
            module.tp_split(BROADCAST_VC)
    return sums


class _Context:
    """A card's buffer that is never written."""

    def begin_scratch_alloc(self) -> None: ...

    def get_scratch_slice(self, nbytes: int) -> torch.Tensor:
        return torch.empty((nbytes // 2,), dtype=torch.half, device="meta")


def _load_weight(module: Any, override_key: str | None = None, cpu: bool = False) -> Any:
    """A module's tensors as its file's header describes them; the permutations, which it reads, are real."""
    key = override_key or module.key
    found = {part: _tensor(module, f"{key}.{part}") for part in ("q_weight", "q_scale", "q_scale_max", "q_groups", "bias")}
    if found["q_weight"] is None:
        return torch.nn.Parameter(_tensor(module, f"{key}.weight"), requires_grad=False)
    rows = module.in_features
    found = {part: tensor for part, tensor in found.items() if tensor is not None}
    permutations = {part: torch.zeros(rows, dtype=torch.short) for part in ("q_perm", "q_invperm")}
    return found | permutations | {"q_group_map": torch.zeros(2 * rows, dtype=torch.short)}


def _tensor(module: Any, key: str) -> Any:
    name = module.model.config.tensor_file_map.get(key)
    if name is None:
        return None
    entry = _header(name)[key]
    return torch.empty(entry["shape"], dtype=KINDS[entry["dtype"]], device="meta")


@functools.cache
def _header(name: str) -> Any:
    with Path(name).open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))

"""Meter: bytes on the one card that everything here runs on, by the driver's own count, torch's and ExLlamaV3's."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hydra_infer

if TYPE_CHECKING:
    from hydra_infer.hardware.gpu import Gpu

__all__ = ["Lacking", "accounting", "card", "filled", "loaded", "reset_peak", "torch_bytes", "used"]


class Lacking(Exception):
    """What this machine lacks, in one sentence; no fault of the program."""


def card() -> Gpu:
    """The card that CUDA_VISIBLE_DEVICES names by its number in PCI order: the first where it names none."""
    cards, number = hydra_infer.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if not number.isdecimal() or int(number) >= len(cards):
        raise Lacking(f"CUDA_VISIBLE_DEVICES={number!r}: give the number of one of the {len(cards)} cards that NVML finds here")
    return cards[int(number)]


def used() -> int:
    """Bytes in use on the card, whoever holds them."""
    one = card()
    return int(one.memory - one.free)


def torch_bytes() -> dict[str, int]:
    """torch's allocator in this process: in tensors and held from the driver, now and at most since `reset_peak`."""
    import torch

    torch.cuda.synchronize()
    return {
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def reset_peak() -> None:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()


def accounting() -> dict[str, int]:
    """What ExLlamaV3 itself says lies on the card (exllamav3 1.6.5, util/memory.py vram_accounting), for one loaded model.

    `weights` are tensors alone; `slack` is what stands empty in the blocks that small ones share.
    """
    from exllamav3.util.memory import vram_accounting

    (report,) = vram_accounting(*loaded(), ["cuda:0"])
    return {
        "weights": report.weights_direct + report.weights_arena_used,
        "slack": report.weights_arena_tail,
        "cache": report.cache,
        "state": report.recurrent,
        "statics": report.statics,
        "generator": report.generator,
        "other": report.other,
    }


def loaded() -> tuple[Any, Any, Any]:
    """The model, cache and generator of ExLlamaV3 that live in this process, whoever holds them."""
    from exllamav3 import Cache, Generator, Model

    gc.collect()
    return (
        _only(Model, lambda one: one.output_device is not None),
        _only(Cache, lambda one: one.initialized),
        _only(Generator, lambda _: True),
    )


def _only(kind: type, wanted: Callable[[Any], bool]) -> Any:
    """The one live object of a class; type(), since some proxies answer isinstance() with an import."""
    found = [one for one in gc.get_objects() if issubclass(type(one), kind) and wanted(one)]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} live objects of {kind.__name__} where one is expected")
    return found[0]


@contextmanager
def filled(left: int) -> Iterator[None]:
    """With the rest of the card taken by tensors, all but `left` bytes."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    taken, size = [], 2**30
    while size >= 2**21:
        free, _ = torch.cuda.mem_get_info()
        try:
            if free - size >= left:
                taken.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
                continue
        except torch.cuda.OutOfMemoryError:
            pass  # what is free lies in pieces: smaller ones may fit
        size //= 2
    try:
        yield
    finally:
        taken.clear()
        gc.collect()
        torch.cuda.empty_cache()

"""What ExLlamaV3 says of one configuration, as plain data: the content of a golden table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import engine3
import folders

__all__ = ["CARDS", "CONTEXTS", "DEPTHS", "MODES", "RATES", "SLOTS", "Refused", "ask"]

RATES = (2.5, 4.0, 6.0)
MODES = ("fp16", "8,8", "6,6", "4,4", "8,4", "2,2")
CONTEXTS = (8192, 32768, 131072)
SLOTS = (1, 4, 16)
DEPTHS = (0, 1, 3)

# Usable GiB per card of the tensor-parallel cases, planned at 4 bits with 32K of fp16 and of 4-bit cache for one slot.
CARDS = ((32, 24), (24, 24, 12), (80, 16))
TENSOR_CONTEXT = 32768
TENSOR_MODES = ("fp16", "4,4")

GIB = 2**30


class Refused(Exception):
    """The engine does not take this configuration, with or without a file beside it; the message is its own."""


def ask(folder: Path, config: dict[str, Any], at_rate: Callable[[list[list[Any]]], None]) -> dict[str, Any]:
    """Everything the tests compare, for one config.json.

    `folder` is filled with a model at one rate after the other; for each, `at_rate` is called with the engine's modules.
    """
    sidecar, model, engine_config = _accepted(folder, config)
    facts: dict[str, Any] = {
        "architecture": engine_config.architecture,
        "sidecar": None if sidecar is None else folders.SIDECARS[sidecar][0],
        "tensor_parallel": bool(model.caps.get("supports_tp")),
        "rates": {},
    }
    for rate in RATES:
        reached = folders.write(folder, config, model, engine_config, rate)
        read_config, read_model = engine3.build(folder)
        rows = engine3.module_bytes(read_config, read_model)
        modules = [[where, size] for _, where, size in rows if size]
        at_rate(modules)
        facts["rates"][f"{rate:g}"] = {"reached": reached, "modules": runs(modules)}
        if rate == 4.0:
            facts |= _cache(read_model)
            facts["tensor"] = _tensor(read_model) if facts["tensor_parallel"] else None
            facts["tensor_parallel"] = facts["tensor"] is not None
    return facts


def runs(values: Iterable[Any]) -> list[list[Any]]:
    """[[how many in a row, value], ...]; lists are spread: [[count, *value], ...]."""
    return [[len(list(same)), *(value if isinstance(value, list) else [value])] for value, same in groupby(values)]


def _accepted(folder: Path, config: dict[str, Any]) -> tuple[str | None, Any, Any]:
    reason = ""
    for sidecar in (None, *folders.SIDECARS):
        try:
            engine_config, model = folders.prepare(folder, config, sidecar)
        except engine3.Unaccepted as error:
            reason = reason or str(error)
        else:
            return sidecar, model, engine_config
    raise Refused(reason)


def _layers(model: Any, found: dict[int, int], divisor: int) -> list[list[int]]:
    """Runs over all transformer blocks of bytes / divisor, which must divide evenly; `found` is by the engine's own number."""
    values = []
    for block in model.modules:
        if type(block).__name__ in ("TransformerBlock", "ParallelDecoderBlock"):
            holders = {part.layer_idx for part in block if part.caps.get("kv_cache") or part.caps.get("recurrent_cache")}
            values.append(sum(found.get(index, 0) for index in holders))
    assert sum(values) == sum(found.values()), "a cache belongs to no block"
    assert not any(value % divisor for value in values), "not linear"
    return runs(value // divisor for value in values)


def _cache(model: Any) -> dict[str, Any]:
    """Cache bytes per page of 256 tokens, state bytes per slot, by layer, after checking on the grid that both are linear."""
    kv, state = {}, {}
    for mode in MODES:
        kv[mode] = _layers(model, _sizes(model, CONTEXTS[0], mode, 1, 0)[0], CONTEXTS[0] // 256)
    for depth in DEPTHS:
        state[str(depth)] = _layers(model, _sizes(model, CONTEXTS[0], "fp16", 1, depth)[1], 1)
    for mode in MODES:
        for tokens in CONTEXTS:
            for slots in SLOTS:
                found_kv, found_state = _sizes(model, tokens, mode, slots, 0)
                assert sum(found_kv.values()) == tokens // 256 * sum(n * size for n, size in kv[mode]), (mode, tokens, slots)
                assert sum(found_state.values()) == slots * sum(n * size for n, size in state["0"]), (mode, tokens, slots)
    for depth, layers in state.items():
        for slots in SLOTS:
            found_state = _sizes(model, CONTEXTS[0], "fp16", slots, int(depth))[1]
            assert sum(found_state.values()) == slots * sum(n * size for n, size in layers), (depth, slots)
    return {"cache_per_page": kv, "state_per_slot": state}


def _sizes(model: Any, tokens: int, mode: str, slots: int, depth: int) -> tuple[dict[int, int], dict[int, int]]:
    cache, kv, state = engine3.cache_bytes(model, tokens, mode, slots, depth)
    cache.detach_from_model()
    return kv, state


def _tensor(model: Any) -> dict[str, Any] | None:
    """Per cache mode: the units of every kind of module, and per set of cards the split of each and the sums.

    None where a module refuses to be divided.
    """
    found: dict[str, Any] = {}
    for mode in TENSOR_MODES:
        cache, _, _ = engine3.cache_bytes(model, TENSOR_CONTEXT, mode)
        try:
            parts = engine3.components(model)
        except (AssertionError, NotImplementedError):
            return None
        found[mode] = {",".join(map(str, cards)): _cards(parts, cards) for cards in CARDS}
        cache.detach_from_model()
    return found


def _cards(parts: list[Any], cards: Sequence[int]) -> dict[str, Any]:
    plan = engine3.tensor_split(parts, [card * GIB for card in cards])
    kinds: dict[str, list[Any]] = {}
    for part in parts:
        if part.channel_unit:
            name = re.sub(r".*\.\d+\.", "", part.key)
            kinds.setdefault(name, []).append([part.channel_width, list(part.current_split)])
    return {
        "storage": [int(size) for size in plan.estimate_storage],
        "overhead": [int(size) for size in plan.estimate_overhead],
        "units": {name: runs(values) for name, values in kinds.items()},
    }

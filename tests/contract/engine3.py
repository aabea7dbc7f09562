"""ExLlamaV3's own Python on a machine without CUDA: the compiled extension replaced, everything else real.

Building a model, its cache and its tensor-parallel plan touches only headers, so stand-ins that accept everything
and compute nothing are enough. Nothing here loads a weight.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Unaccepted", "build", "cache_bytes", "components", "module_bytes", "replace_compiled", "tensor_split"]

REPLACED = ("triton", "triton.language", "triton.runtime", "triton.runtime.autotuner", "triton.compiler")


class Unaccepted(Exception):
    """ExLlamaV3 refuses a configuration; the message is its own."""


class _Anything:
    """Stands for any object of the extension: callable, subscriptable, false, and a decorator that changes nothing."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if len(arguments) == 1 and not named and callable(arguments[0]):
            return arguments[0]
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __index__(self) -> int:
        return 0

    __int__ = __index__

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__


class _Module(types.ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


def replace_compiled(package: str, *tensors: str) -> None:
    """Put stand-ins where `package` looks for its extension; `tensors` are names that have to be real tensors."""
    for name in (*REPLACED, f"{package}_ext", f"{package}.ext"):
        sys.modules[name] = _Module(name)
    extension, door = sys.modules[f"{package}_ext"], sys.modules[f"{package}.ext"]
    setattr(door, f"{package}_ext", extension)
    door.ext_c = extension
    if tensors:
        import torch

        for name in tensors:
            setattr(door, name, torch.empty((1, 1), device="meta"))
    sys.modules["triton"].language = sys.modules["triton.language"]


replace_compiled("exllamav3")
os.environ["EXL3_FUSED_SAMPLER"] = "0"  # read at import: sampling step by step, in torch, instead of in one CUDA kernel

import torch  # noqa: E402
from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant, Config, Model  # noqa: E402
from exllamav3.model.model_tp_alloc import TPAllocator  # noqa: E402

torch.set_num_threads(1)


def build(folder: Path, component: str = "text") -> tuple[Any, Any]:
    """(config, model) of a folder. Raises Unaccepted with the engine's own words."""
    try:
        config = Config.from_directory(str(folder))
        return config, Model.from_config(config, component=component)
    except (AssertionError, ValueError, NotImplementedError, FileNotFoundError, KeyError) as error:
        words = str(error).replace(f" in {folder}/config.json", "").replace(str(folder), "")
        raise Unaccepted(f"{type(error).__name__}: {words}") from error


def module_bytes(config: Any, model: Any) -> list[tuple[str, str, int]]:
    """(key, "gpu" or "host", bytes in the file) of every top-level module, in loading order."""
    return [
        (module.key, "host" if module.caps.get("prefer_cpu") else "gpu", sum(module.get_compile_sizes(config.stc)))
        for module in model.modules
    ]


def cache_bytes(
    model: Any, tokens: int, mode: str, slots: int = 1, history: int = 0
) -> tuple[Any, dict[int, int], dict[int, int]]:
    """(cache, KV bytes by layer, recurrent bytes by layer). `mode` is "fp16" or "k,v" bits."""
    kind, bits = CacheLayer_fp16, {}
    if mode != "fp16":
        k, v = (int(part) for part in mode.split(","))
        kind, bits = CacheLayer_quant, {"k_bits": k, "v_bits": v}
    cache = Cache(model, max_num_tokens=tokens, layer_type=kind, max_batch_size=slots, max_history=history, **bits)
    kv = {instance[0]: int(layer.storage_size()) for instance, layer in cache.layers.items()}
    state = {instance[0]: int(layer.storage_size()) for instance, layer in cache.recurrent_layers.items()}
    return cache, kv, state


def components(model: Any) -> list[Any]:
    """The engine's tensor-parallel components, in order. Raises AssertionError where it cannot split a module."""
    return [part for module in model.modules for part in module.make_tp_allocation({})]


def tensor_split(parts: list[Any], memory: list[int], chunk: int = 2048, outputs: int = 32) -> Any:
    """The engine's allocator after its split of `parts` over `memory` bytes per card."""
    allocator = TPAllocator(parts, num_tokens=chunk, output_num_tokens=outputs)
    allocator.initial_split(list(memory))
    return allocator

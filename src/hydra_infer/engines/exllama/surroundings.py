"""Surroundings: looks at this process and machine for what preflight.py judges. The only file here that looks."""

from __future__ import annotations

import ast
import importlib.machinery
import multiprocessing
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...hardware import nvml
from ...hardware.host import shared_memory
from ..machine import physical_cores
from .cuda import order, visible
from .preflight import Surroundings

if TYPE_CHECKING:
    from ...hardware.gpu import Gpu

__all__ = ["look", "shown_cards"]


def shown_cards() -> list[Gpu]:
    """The cards that CUDA shows this process, in the order it numbers them in, which this settles (see cuda.py)."""
    cards = nvml.gpus()
    order(os.environ, started=_cuda_started(), cards=len(cards))
    return visible(cards, os.environ)


def look(engine: str) -> Surroundings:
    """The facts about `engine` ("exllamav3", "exllamav2") here. torch is imported only where there is a card."""
    cards = shown_cards()
    installed = find_spec(engine) is not None and find_spec("torch") is not None
    return Surroundings(
        cards=cards,
        installed=installed,
        cuda=_torch_cuda() if cards and installed else None,
        extension=_is_built(f"{engine}_ext"),
        guarded=_is_guarded(),
        # What multiprocessing itself asks before it refuses to start a process from a half-imported main module.
        worker=getattr(multiprocessing.current_process(), "_inheriting", False),
        shm=shared_memory(),
        cores=physical_cores(),
    )


def _cuda_started() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _torch_cuda() -> str | None:
    import torch

    version: str | None = torch.version.cuda
    return version


def _is_built(extension: str) -> bool:
    """Whether the compiled part is installed, or lies where torch puts what it compiles at the first import."""
    spec = find_spec(extension)
    if spec is not None and (spec.origin or "").endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        return True
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(given) if given else Path.home() / ".cache" / "torch_extensions"
    return any(root.glob(f"**/{extension}/{extension}.so")) or any(root.glob(f"**/{extension}/{extension}.pyd"))


def _is_guarded() -> bool:
    """Whether the main module asks for its own __name__ anywhere, or is no file that a worker could run (a notebook)."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return True
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True  # a console script in a zip, say: nothing to tell
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(tree))

"""Trouble: what an exception out of an engine means, in our tree of errors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from ...errors import HydraError, LoadError, OutOfMemory

__all__ = ["named", "opened"]

R = TypeVar("R")

# torch 2.13: "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of …"
DEVICE = re.compile(r"\bGPU (\d+)\b")
# exllamav3 1.6.5 model_ls.py and exllamav2 0.3.2 model.py, when a layer finds no card with room.
SPLIT = "insufficient vram"


def opened(make: Callable[[ExitStack], R], engine: str) -> R:
    """What `make` loads; where that fails, all that it left on the stack is undone, and the error is of our tree."""
    undo = ExitStack()
    try:
        return make(undo)
    except BaseException as error:  # noqa: BLE001  whatever went wrong, nothing of it may stay loaded
        # Named before anything is freed: that lets go of the frames that hold tensors.
        trouble = named(error, engine, "loading") if isinstance(error, Exception) else error
        try:
            undo.close()
        finally:
            raise trouble


def named(error: BaseException, engine: str, stage: str) -> HydraError:
    """The error of ours for one of the engine's, in `stage` ("loading", "prefill", "decode").

    The engine's frames are let go: they hold tensors on the card that is to be used again. Where they were is kept as text, in
    the error's `log`.
    """
    log = tuple(traceback.format_exception(error))
    cause: BaseException | None = error
    while cause is not None:
        cause = _without_frames(cause)
    if isinstance(error, HydraError):
        return error
    said = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "OutOfMemoryError" or SPLIT in str(error).lower():
        card = DEVICE.search(str(error))
        device = f"cuda:{card[1]}" if card else None
        named_error: HydraError = OutOfMemory(
            f"{engine} ran out of memory on {device or 'a card'} while {_DOING[stage]}: {said}",
            hint=_HINT[stage],
            device=device,
            stage=stage,
            log=log,
        )
    else:
        kind = LoadError if stage == "loading" else HydraError
        named_error = kind(f"{engine} failed while {_DOING[stage]}: {said}", log=log)
    named_error.__cause__ = error
    return named_error


_DOING = {"loading": "loading", "prefill": "reading a prompt", "decode": "generating"}
_HINT = {
    "loading": "hydra_infer.plan(…).suggestions says what would fit",
    "prefill": "load with a smaller chunk or context, or more reserve",
    "decode": "load with fewer slots, a smaller context, or more reserve",
}


def _without_frames(error: BaseException) -> BaseException | None:
    error.__traceback__ = None
    return error.__cause__ or error.__context__

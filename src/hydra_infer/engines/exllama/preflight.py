"""Preflight: what stands in the way of an ExLlama engine here, or will surprise, said before anything is loaded. Pure.

The facts are gathered in surroundings.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import LoadError, MissingExtra
from ...planner import verdict
from ...units import Size

if TYPE_CHECKING:
    from pathlib import Path

    from ...hardware.gpu import Gpu
    from ...planner.report import Plan

__all__ = ["Surroundings", "check_machine", "warnings_for"]

# Processor seconds that compiling an engine's CUDA extension takes for one architecture (nvcc 13.0, measured file by file:
# 169 and 26 CUDA sources), which the first import does on all cores.
BUILD_SECONDS = {"exllamav3": 4250, "exllamav2": 1000}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`cuda` is the CUDA version that torch was built for (None: a build without it), `extension` whether the engine's
    compiled part is there, `guarded` whether this program's main module may be run again by a worker without harm,
    `worker` whether this very process is such a run. `cards` are those that CUDA shows, `shm` bytes free in /dev/shm."""

    cards: Sequence[Gpu]
    installed: bool
    cuda: str | None
    extension: bool
    guarded: bool
    worker: bool
    shm: Size | None
    cores: int


def check_machine(engine: str, model: Path, around: Surroundings) -> None:
    """Raise what makes `engine` impossible here: LoadError, or MissingExtra with the pip command."""
    if around.worker:
        raise LoadError(
            "a worker of tensor parallel is running this script a second time",
            hint="put what the script does, hydra_infer.load first of all, under: if __name__ == '__main__':",
        )
    if not around.cards:
        raise LoadError(
            f"{model.name} needs {engine}, which runs on NVIDIA cards with CUDA, and CUDA shows none here",
            hint="a GGUF of the same model runs on this machine by llama.cpp: hydra_infer.load('model.gguf')",
        )
    if not around.installed:
        raise MissingExtra(f"{engine} is not installed", hint=f"pip install 'hydra-infer[{engine}]'")
    if around.cuda is None:
        raise LoadError(
            f"the installed torch was built without CUDA, which {engine} needs",
            hint="install torch for CUDA (pytorch.org says which index), then load again",
        )


def warnings_for(plan: Plan, around: Surroundings) -> tuple[str, ...]:
    """What will surprise, one sentence each; the plan's own warnings (who else uses a card, /dev/shm) first."""
    found = list(verdict.warnings(plan, shared_memory=around.shm))
    engine = plan.request.engine
    if not around.extension:
        minutes = math.ceil(BUILD_SECONDS[engine] / around.cores / 60)
        found.append(f"{engine}'s CUDA extension is not built yet: the first load compiles it, about {minutes} minutes")
    if plan.split == "tensor" and engine == "exllamav3" and not around.guarded:
        found.append(
            "this script has no `if __name__ == '__main__':`, and tensor parallel runs it again in every worker: put the "
            "loading under one"
        )
    return tuple(found)

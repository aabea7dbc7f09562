"""Machine: what there is to run on, and in one sentence what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import hydra_infer
from hydra_infer.hardware.host import host_memory, shared_memory
from hydra_infer.planner import overhead
from hydra_infer.units import GIB, Size

from . import judge, meter

__all__ = ["look", "remarks"]

# Room for the synthetic models, the packages and the compiled extensions.
DISK = Size(50 * GIB)


def look(state: Path) -> dict[str, Any]:
    """Facts about the machine; `remarks` are for what some later step will miss. Raises Lacking where nothing can run."""
    facts: dict[str, Any] = {"python": platform.python_version(), "executable": sys.executable, "system": platform.platform()}
    try:
        import torch
    except ImportError:
        raise meter.Lacking(f"torch is not installed for {sys.executable}: give a Python that has it, PYTHON=…") from None
    facts |= {"torch": torch.__version__, "torch_cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        raise meter.Lacking(
            f"no CUDA device: torch {torch.__version__} sees none, and NVML finds {len(hydra_infer.gpus())} cards"
        )
    before = meter.used()
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    capability, one = torch.cuda.get_device_capability(), meter.card()
    facts |= {
        "card": one.name,
        "capability": "{}.{}".format(*capability),
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "memory_bytes": int(one.memory),
        "free_bytes": int(one.free),
        "bandwidth_gb_s": one.bandwidth,
        "cuda_context_bytes": meter.used() - before,
        "processes": [process.name for process in one.processes if process.pid != os.getpid()],
        "nvcc": _nvcc(),
        "compiler": shutil.which("g++"),
        "ninja": shutil.which("ninja"),
        "python_headers": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
        "cores": os.cpu_count(),
        "ram_bytes": int(host_memory().total),
        "shm_bytes": shared_memory(),
        "disk_free_bytes": shutil.disk_usage(state).free,
    }
    bare = overhead.CONTEXT
    row = judge.bracket("bare CUDA context", bare.low, bare.likely, bare.high, facts["cuda_context_bytes"])
    return {"judged": [row], "facts": facts, "remarks": remarks(facts)}


def remarks(facts: dict[str, Any]) -> list[str]:
    """What later steps will miss, one sentence each."""
    found = [
        f"no {name}: an extension that is not built yet cannot be" for name in ("nvcc", "compiler", "ninja") if not facts[name]
    ]
    if not facts["python_headers"]:
        found.append("no Python.h: an extension that is not built yet cannot be (python3-dev)")
    if facts["disk_free_bytes"] < DISK:
        found.append(f"{Size(facts['disk_free_bytes'])} of disk are free, the synthetic models take {DISK}: --state elsewhere")
    if facts["processes"]:
        found.append(f"{', '.join(facts['processes'])} on the card: every number here may be off")
    return found


def _nvcc() -> str | None:
    from torch.utils.cpp_extension import CUDA_HOME

    path = Path(CUDA_HOME or "") / "bin" / "nvcc"
    said = _first_line(str(path) if path.exists() else "nvcc", "--version", last=True)
    release = re.search(r"cuda_[\w.]+", said or "")
    return release[0] if release else said


def _first_line(*command: str, last: bool = False) -> str | None:
    """The first (or last) line that a program says; None where it cannot be run."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None
    said = [line for line in lines if line.strip()]
    return said[-1 if last else 0].strip() if said else None

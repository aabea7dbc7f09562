"""Plan, run and route language models on your own, mixed graphics cards.

    import hydra_infer as hydra

    hydra.plan(model, gpus=["RTX 5090", "RTX 4090"])   will it fit, and how
    hydra.load(model)                                  an Engine in this process
    hydra.Router([...])                                the best server that can answer

Every name below is imported when first used, so that importing hydra_infer costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module that has it. tests/test_exports.py holds this against TYPE_CHECKING below.
_DOOR = {
    "AllBackendsFailed": "errors",
    "AsyncRouter": "router",
    "Backend": "routing.backend",
    "BackendError": "errors",
    "Chunk": "reply",
    "ConfigError": "errors",
    "ContextTooLong": "errors",
    "DeadlineExceeded": "errors",
    "DoesNotFit": "errors",
    "Engine": "engines.engine",
    "Fleet": "fleet.fleet",
    "Gpu": "hardware.gpu",
    "HydraError": "errors",
    "IncompatibleDraft": "errors",
    "LoadError": "errors",
    "MissingExtra": "errors",
    "OutOfMemory": "errors",
    "Plan": "planner.report",
    "Refused": "errors",
    "Reply": "reply",
    "Router": "router",
    "StreamBroken": "errors",
    "Survey": "planner.survey",
    "UnknownGpu": "errors",
    "UnknownModel": "errors",
    "Unreachable": "errors",
    "bench": "ops",
    "doctor": "ops.doctor.doctor",
    "gpus": "hardware.nvml",
    "load": "engines.load",
    "migrate": "ops",
    "plan": "planning",
    "survey": "planning",
    "to_n8n": "n8n",
}

if TYPE_CHECKING:
    from .engines.engine import Engine
    from .engines.load import load
    from .errors import (
        AllBackendsFailed,
        BackendError,
        ConfigError,
        ContextTooLong,
        DeadlineExceeded,
        DoesNotFit,
        HydraError,
        IncompatibleDraft,
        LoadError,
        MissingExtra,
        OutOfMemory,
        Refused,
        StreamBroken,
        UnknownGpu,
        UnknownModel,
        Unreachable,
    )
    from .fleet.fleet import Fleet
    from .hardware.gpu import Gpu
    from .hardware.nvml import gpus
    from .n8n import to_n8n
    from .ops import bench, migrate
    from .ops.doctor.doctor import doctor
    from .planner.report import Plan
    from .planner.survey import Survey
    from .planning import plan, survey
    from .reply import Chunk, Reply
    from .router import AsyncRouter, Router
    from .routing.backend import Backend

__all__ = [
    "AllBackendsFailed",
    "AsyncRouter",
    "Backend",
    "BackendError",
    "Chunk",
    "ConfigError",
    "ContextTooLong",
    "DeadlineExceeded",
    "DoesNotFit",
    "Engine",
    "Fleet",
    "Gpu",
    "HydraError",
    "IncompatibleDraft",
    "LoadError",
    "MissingExtra",
    "OutOfMemory",
    "Plan",
    "Refused",
    "Reply",
    "Router",
    "StreamBroken",
    "Survey",
    "UnknownGpu",
    "UnknownModel",
    "Unreachable",
    "__version__",
    "bench",
    "doctor",
    "gpus",
    "load",
    "migrate",
    "plan",
    "survey",
    "to_n8n",
]


def __getattr__(name: str) -> Any:
    try:
        module = _DOOR[name]
    except KeyError:
        raise AttributeError(f"module 'hydra_infer' has no attribute {name!r}") from None
    # Not importlib.import_module: n8n's sandbox guards it for everyone, while __import__ passes.
    value = getattr(__import__(f"hydra_infer.{module}", fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

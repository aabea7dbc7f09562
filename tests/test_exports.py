"""The front door: what it lists, what it loads, and that it stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import hydra_infer

HEAVY = ("torch", "httpx", "httpx2", "httpcore", "pydantic", "pynvml", "tenacity", "openai", "xllamacpp", "asyncio")


def test_the_door_lists_exactly_these_names() -> None:
    assert hydra_infer.__all__ == [
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


def test_every_name_loads_and_is_the_one_the_types_promise() -> None:
    tree = ast.parse(Path(hydra_infer.__file__).read_text(encoding="utf-8"))
    promised = {
        alias.name: node.module
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert promised == hydra_infer._DOOR
    for name in hydra_infer.__all__:
        assert getattr(hydra_infer, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(hydra_infer, "plam")
    assert "plan" in dir(hydra_infer)


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, hydra_infer; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_planning_loads_no_network_and_no_gpu_library() -> None:
    code = (
        f"import sys, hydra_infer; hydra_infer.plan; hydra_infer.Gpu; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

"""What only a card can show, as a test: `pytest -m gpu`. Otherwise it is deselected; `make gpu-check` does this and far more."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from gpu import convert

import hydra_infer


def lacking() -> str | None:
    """What this machine lacks to convert a model; None where it has it."""
    if not hydra_infer.gpus():
        return "no NVIDIA card, or no driver, is here"
    missing = [name for name in ("torch", "exllamav3") if find_spec(name) is None]
    if missing:
        return f"{sys.executable} has no {' and no '.join(missing)}"
    import torch

    return None if torch.cuda.is_available() else f"the torch of {sys.executable} sees no CUDA device"


@pytest.mark.gpu
def test_a_small_random_model_converts_stops_goes_on_and_answers(tmp_path: Path) -> None:
    if (why := lacking()) is not None:
        pytest.skip(why)
    assert [row for row in convert.convert(tmp_path, rate=4.0)["judged"] if not row["within"]] == []

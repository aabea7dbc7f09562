"""Make the notebooks of their sources, with their outputs: each notebooks/*_*.py (py:percent) becomes an .ipynb beside it.

python notebooks/build.py [NAME …]        a name is the beginning of a source's
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).parent
CELL_SECONDS = 120


def build(source: Path) -> float:
    """Execute one and write it; gives the seconds it took. Raises nbclient's CellExecutionError with the cell that failed."""
    began = time.monotonic()
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    # Times in the metadata would make every run a difference.
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    nbformat.write(notebook, source.with_suffix(".ipynb"))
    return time.monotonic() - began


def joined(outputs: list[Any]) -> list[Any]:
    """What was printed piece by piece as one output: where the pieces were cut is an accident of time."""
    kept: list[Any] = []
    for output in outputs:
        if kept and output.output_type == "stream" == kept[-1].output_type and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main() -> None:
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # its libraries warn until they are told which of two ways to go
    asked = tuple(sys.argv[1:]) or ("",)
    for source in sorted(HERE.glob("[0-9]_*.py")):
        if source.name.startswith(asked):
            print(f"{source.name:32} {build(source):5.1f} s", flush=True)


if __name__ == "__main__":
    main()

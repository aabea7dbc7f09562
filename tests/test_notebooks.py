"""The notebooks as they are kept: made of the sources beside them, run to the end, and without scripts in their outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    return found


def written(source: Path) -> list[str]:
    """The cells of a py:percent file: what stands between its marks, comments stripped where it is Markdown."""
    parts = source.read_text(encoding="utf-8").split("# %%")[1:]
    return [
        "\n".join(line.removeprefix("#").removeprefix(" ") for line in part.splitlines()[1:]).strip()
        if part.startswith(" [markdown]")
        else part.strip()
        for part in parts
    ]


def test_there_are_seven() -> None:
    assert len(SOURCES) == 7
    assert {source.with_suffix(".ipynb") for source in SOURCES} == set(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_kept_notebook_is_made_of_its_source_and_ran_without_a_word_of_trouble(source: Path) -> None:
    assert ["".join(cell["source"]).strip() for cell in cells(source)] == written(source), "make notebooks"
    outputs = [output for cell in cells(source) for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    for output in outputs:
        assert "<script" not in "".join(output.get("data", {}).get("text/html", ""))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_kept_notebook_has_nothing_of_the_machine_that_made_it(source: Path) -> None:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert str(FOLDER.parent) not in text
    assert len(text) < 100_000

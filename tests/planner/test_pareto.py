"""What a survey trades, and its picture."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from hydra_infer import ConfigError, Survey
from hydra_infer.planner.survey import COLUMNS
from hydra_infer.units import GIB


def row(name: str, context: int, bpw: float, **more: Any) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"model": name, "max_context": context, "bpw": bpw, "cache": "q8", "fits": True} | more


ROWS = (
    row("a", 8192, 6.0),
    row("beaten by d", 8192, 5.0),
    row("does not fit", 131072, 8.0, fits=False),
    row("<d>", 32768, 5.0),
    row("equal to d", 32768, 5.0),
    row("long", 65536, 3.0, needed_bytes=9 * GIB),
    row("no bits", 65536, 3.0) | {"bpw": None},
)


def test_only_what_no_other_row_beats_in_both_is_kept() -> None:
    traded = Survey(ROWS).pareto()
    assert [kept["model"] for kept in traded.rows] == ["a", "<d>", "equal to d", "long"]
    assert len(traded.every) == 5
    assert str(traded).splitlines()[1] == "         8k    6  a 6 bpw, q8"
    assert repr(traded) == "<Pareto of max_context and bpw: 4 of 5 rows>"


def test_of_what_is_needed_less_is_more() -> None:
    rows = [row("small", 8192, 4.0, needed_bytes=5 * GIB), row("large", 8192, 4.0, needed_bytes=9 * GIB)]
    assert [kept["model"] for kept in Survey(tuple(rows)).pareto("bpw", "needed_bytes").rows] == ["small"]


def test_the_picture_has_a_dot_for_each_row_and_a_name_for_each_spot_that_is_kept() -> None:
    bundle = Survey(ROWS).pareto()._repr_mimebundle_(include=None)
    svg = ElementTree.fromstring(bundle["image/svg+xml"])
    names = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text") if "bpw, q8" in (text.text or "")]
    assert names == ["a 6 bpw, q8", "<d> 5 bpw, q8", "long 3 bpw, q8"]
    circles = list(svg.iter("{http://www.w3.org/2000/svg}circle"))
    assert [circle.get("fill") != "none" for circle in circles] == [True, False, True, True, True]
    # More context stands further right, more bits higher.
    spots = {circle[0].text: (float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in circles}
    assert spots["long 3 bpw, q8"][0] > spots["a 6 bpw, q8"][0]
    assert spots["long 3 bpw, q8"][1] > spots["a 6 bpw, q8"][1]


@pytest.mark.parametrize("rows", [(), ROWS[:1]])
def test_nothing_and_one_row_have_a_picture_too(rows: tuple[dict[str, Any], ...]) -> None:
    assert ElementTree.fromstring(Survey(rows).pareto().svg()).tag.endswith("svg")


def test_another_column_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'why' is nothing to trade"):
        Survey(ROWS).pareto("why", "bpw")

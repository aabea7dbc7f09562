"""Tables in notebooks: status, usage and a fleet's plan, as HTML that needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra_infer as hydra
from hydra_infer import table

HOMELAB = Path(__file__).parents[1] / "examples" / "homelab" / "hydra.yaml"


def html_of(shown: Any) -> str:
    bundle = shown._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"] == str(shown)
    assert not re.search(r"<script|<style|class=|url\(", bundle["text/html"])
    return str(bundle["text/html"])


def test_cells_are_escaped_and_stand_where_they_are_told() -> None:
    html = table.html([("a", "b"), ("<i>", "2"), ("x", "3")], right=[1], no=[2])
    assert "&lt;i&gt;" in html
    assert html.count("text-align:right") == 3
    assert html.count("color:#c0392b") == 2
    assert html.count("white-space:nowrap") == 3


def test_status_and_usage() -> None:
    with hydra.load("echo") as engine:
        backends = [
            hydra.Backend.openai("http://gpu-box.invalid:8000", models=["m"], name="<gpu-box>"),
            hydra.Backend.engine(engine, ["m"]),
        ]
        with hydra.Router(backends) as router:
            router.chat("m", "hello")
            status, usage = html_of(router.status()), html_of(router.usage())
    assert "&lt;gpu-box&gt;" in status
    assert status.count("<tr>") == 3
    assert "color:#c0392b" in status.split("<tr>")[2]
    assert "color:#c0392b" not in status.split("<tr>")[3]
    assert [row.count("<td") for row in usage.split("<tr>")[2:]] == [8, 8]


def test_a_fleets_plan() -> None:
    html = html_of(hydra.Fleet.from_file(HOMELAB).plan())
    assert html.count("<tr>") == 8
    assert "stay together: qwen-14b + embed" in html

"""to_n8n: items of plain JSON, from everything that hydra_infer gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hydra_infer as hydra
from hydra_infer.units import Size

CONFIG = Path(__file__).parents[1] / "examples" / "homelab" / "models" / "Llama-3.1-8B.json"


def items(results: Any) -> list[dict[str, Any]]:
    """The `json` of each item, which json.dumps must leave as it is."""
    made = hydra.to_n8n(results)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert all(item.keys() == {"json"} for item in made)
    return [item["json"] for item in made]


def test_every_result_is_items() -> None:
    plan = hydra.plan(CONFIG, bpw=4.0, format="exl3", gpus=["RTX 5090"])
    survey = hydra.survey([CONFIG], gpus=["RTX 5090"], contexts=[8192, 16384], bpws=4.0, format="exl3")
    assert items(plan) == [plan.to_dict()]
    assert items(survey) == [survey.to_dict()]
    assert items(survey.rows) == list(survey.rows)
    with hydra.load("echo") as engine, hydra.Router([hydra.Backend.engine(engine, ["m"], name="e")]) as router:
        (reply,) = items(router.chat("m", "hello there"))
        assert (reply["text"], reply["backend"], reply["attempts"][0]["result"]) == ("hello there", "e", "answered")
        assert items(router.explain("m"))[0]["options"][0]["backend"] == "e"
        assert items(router.status())[0]["backends"][0]["models"] == ["m"]
        assert [row["name"] for row in items(list(router.status()))] == ["e"]
        assert items(router.usage())[0]["total"]["answers"] == 1
        assert items(router.embed("m", ["a"]))[0]["model"] == "m"


def test_a_batch_is_an_item_each_with_errors_in_place() -> None:
    with hydra.load("echo") as engine, hydra.Router([hydra.Backend.engine(engine, ["m"])]) as router:
        replies = router.batch("m", ["one"]) + router.batch("nobody", ["two"])
    first, second = items(replies)
    assert first["text"] == "one"
    assert (second["kind"], second["error"]) == ("UnknownModel", str(replies[1]))


def test_plain_data_stays_and_what_json_lacks_is_named() -> None:
    given = {"a": (1, Size(2**30)), 3: float("nan"), "c": {"d"}, "e": [None, True, "x", 0.5]}
    assert items(given) == [{"a": [1, 2**30], "3": None, "c": ["d"], "e": [None, True, "x", 0.5]}]
    assert items([]) == []
    for wrong in (7, "text", [7], {"a": object()}):
        with pytest.raises(hydra.ConfigError, match=r"item|JSON has no object"):
            hydra.to_n8n(wrong)

"""The table of many plans."""

from __future__ import annotations

import json
from pathlib import Path

from synthetic import LLAMA_1B, LLAMA_70B, exl3, plain

import hydra_infer as hydra
from hydra_infer.planner.survey import COLUMNS

CARDS = ["RTX 5090", "RTX 4090"]


def test_every_combination_is_a_row(tmp_path: Path) -> None:
    large, small = exl3(tmp_path / "large", LLAMA_70B, 4.0), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    found = hydra.survey([large, small], gpus=CARDS, contexts=(8192, "64k"), caches=("fp16", "q8"))
    rows = [(row["model"], row["cache"], row["context"], row["fits"], row["split"]) for row in found.rows]
    assert rows == [
        ("large", "fp16", 8192, True, "layers"),
        ("large", "fp16", 65536, False, "layers"),
        ("large", "q8", 8192, True, "layers"),
        ("large", "q8", 65536, True, "layers"),
        ("small", "fp16", 8192, True, "single"),
        ("small", "fp16", 65536, True, "single"),
        ("small", "q8", 8192, True, "single"),
        ("small", "q8", 65536, True, "single"),
    ]
    for row in found.rows:
        assert tuple(row) == COLUMNS
        p = hydra.plan(tmp_path / row["model"], gpus=CARDS, context=row["context"], cache=row["cache"])
        assert (row["max_context"], row["host_bytes"]) == (p.max_context, p.host)
        assert row["needed_bytes"] == sum(use.needed for use in p.devices)
        assert (row["decode_tps"] is not None) is p.fits
    assert (len(found), repr(found)) == (8, "<Survey of 8 plans, 7 fit>")


def test_what_cannot_be_planned_is_a_row_with_its_error(tmp_path: Path) -> None:
    good = exl3(tmp_path / "good", LLAMA_1B, 4.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{nope")
    found = hydra.survey([tmp_path / "broken", tmp_path / "gone", good], gpus=CARDS, caches=("fp16", "q9"))
    assert [row["fits"] for row in found.rows] == [None, None, True, None]
    assert "config.json" in found.rows[0]["error"]
    assert "gone" in found.rows[1]["error"]
    assert (found.rows[3]["model"], found.rows[3]["cache"]) == ("good", "q9")
    assert "cache='q9'" in found.rows[3]["error"]
    some = hydra.survey(good, gpus=CARDS, contexts=(0, 8192))
    assert [row["fits"] for row in some.rows] == [None, True]
    assert "context=0" in some.rows[0]["error"]
    assert all(tuple(row) == COLUMNS for row in found.rows)


def test_rates_of_a_model_that_is_not_here_yet(tmp_path: Path) -> None:
    config = plain(tmp_path / "m", LLAMA_70B) / "config.json"
    found = hydra.survey(config, gpus=CARDS, bpws=(3.0, 4.0, 6.0), format="exl3", contexts=[32768])
    assert [(row["bpw"], row["fits"]) for row in found.rows] == [(3.0, True), (4.0, True), (6.0, False)]
    assert str(found).splitlines()[0].split()[:2] == ["model", "bpw"]


def test_faces(tmp_path: Path) -> None:
    found = hydra.survey([exl3(tmp_path / "<m>", LLAMA_70B, 4.0), tmp_path / "no"], gpus=CARDS)
    lines = str(found).splitlines()
    assert lines[0].split() == ["model", "context", "cache", "fits", "split", "needed", "left", "max", "context", "tokens/s"]
    assert lines[1].startswith("<m>")
    assert " yes " in lines[1]
    assert " error " in lines[2]
    assert json.loads(found.to_json()) == list(found.rows)
    bundle = found._repr_mimebundle_(include=None)
    assert bundle["text/plain"] == str(found)
    assert "&lt;m&gt;" in bundle["text/html"]
    assert "<m>" not in bundle["text/html"]
    assert str(hydra.survey([])).startswith("model")


def test_one_of_anything_needs_no_list(tmp_path: Path) -> None:
    folder = exl3(tmp_path / "m", LLAMA_1B, 4.0)
    assert hydra.survey(str(folder), gpus="RTX 4090", slots=2).rows == hydra.survey([folder], gpus=["RTX 4090"], slots=2).rows
    one = hydra.survey(folder, gpus="RTX 4090", contexts="32k", caches="q8")
    assert [(row["context"], row["cache"]) for row in one.rows] == [(32768, "q8")]

"""Decode speed against published rows: those judged, not those the constants were fitted on."""

from __future__ import annotations

from measured.judge import decode, mean, used, worst


def test_the_rows_that_are_judged() -> None:
    judged = used(decode())
    assert len(judged) >= 25
    assert mean(judged) <= 0.04  # asked for: 0.07
    assert worst(judged) <= 0.12  # asked for: 0.15


def test_every_engine_by_itself() -> None:
    for engine in ("exllamav2", "llama.cpp"):
        judged = [each for each in used(decode()) if each.row["engine"] == engine]
        assert len(judged) >= 10
        assert mean(judged) <= 0.05


def test_several_cards() -> None:
    judged = [each for each in used(decode()) if "+" in each.row["gpus"]]
    assert {each.row["split"] for each in judged} == {"layers", "tensor"}
    assert mean(judged) <= 0.03
    assert worst(judged) <= 0.10


def test_what_a_full_cache_costs() -> None:
    judged = [each for each in used(decode()) if each.row["filled"] != "0"]
    assert len(judged) == 3
    assert worst(judged) <= 0.03


def test_few_rows_are_fitted_and_those_are_met() -> None:
    fitted = used(decode(), "fit")
    assert len(fitted) * 2 < len(used(decode()))
    assert worst(fitted) <= 0.01

"""The cost of drafting against published rows that give their acceptance."""

from __future__ import annotations

import pytest
from measured.judge import mean, speculation, used, worst
from measured.rows import llamacpp_plan


def test_the_rows_that_are_judged() -> None:
    judged = used(speculation())
    assert len(judged) >= 50
    assert mean(judged) <= 0.05  # asked for: 0.06
    assert worst(judged) <= 0.16


def test_rows_with_a_measured_mean_acceptance() -> None:
    """The others give a range, whose ends were taken for two prompts."""
    judged = [each for each in used(speculation()) if each.row["text"] == "mean"]
    assert len(judged) >= 9
    assert mean(judged) <= 0.03


def test_no_judged_row_has_its_sign_wrong() -> None:
    for each in used(speculation()):
        assert each.predicted is not None
        assert each.measured is not None
        assert (each.predicted > 1) == (each.measured > 1), each.row["id"]


def test_few_rows_are_fitted() -> None:
    fitted = used(speculation(), "fit")
    assert len(fitted) * 5 < len(used(speculation()))


def test_a_whole_plan_says_the_same() -> None:
    """RTX 5090, UD-Q4_K_XL, four tokens: 74.8 tokens per second became 162.1 (row SA04, which no constant was fitted on)."""
    row = {"model": "Qwen3.8-27B", "file": "UD-Q4_K_XL", "gpus": "RTX 5090", "split": "single"}
    plan = llamacpp_plan(row | {"context": "1024", "cache": "q4_0", "draft_tokens": "4"})
    assert plan.speed.decode_tps is not None
    assert plan.draft is not None
    assert plan.draft.speedup is not None
    assert plan.speed.judged
    assert plan.speed.decode_tps[1] == pytest.approx(74.8, rel=0.03)
    assert plan.draft.speedup[1] == pytest.approx(162.1 / 74.8, rel=0.03)
    assert plan.draft.pays
    assert plan.draft.judged

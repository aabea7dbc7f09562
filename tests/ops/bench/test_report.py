"""The verdict finds what is there and nothing else; the report survives JSON; the picture is well-formed."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from ops.bench.made_up import SETUP, report, shorter

from hydra_infer.errors import ConfigError
from hydra_infer.ops.bench.prompts import OPENINGS, TALKS
from hydra_infer.ops.bench.report import NO_DIFFERENCE, TOO_FEW, Report
from hydra_infer.ops.bench.steps import steps
from hydra_infer.ops.bench.tasks import TASKS


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.3])
def test_two_equal_sides_are_no_difference_20_times_of_20(noise: float) -> None:
    # The card gets slower all the time, which must not look like a difference either.
    assert {report(noise=noise, drift=0.002, seed=seed).verdict for seed in range(20)} == {NO_DIFFERENCE}


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.1, 1.5, 3.0])
def test_a_known_factor_is_found_within_five_percent(factor: float) -> None:
    for seed in range(20):
        found = report(factor=factor, noise=0.05, drift=0.002, seed=seed)
        assert found.decode_ratio == pytest.approx(factor, rel=0.05)
        assert found.ttft_ratio == pytest.approx(1, rel=0.05)
        decode = found.comparisons[0]
        assert (decode.measure, decode.real, decode.better) == ("decode_tps", True, "b" if factor > 1 else "a")
        assert "a's decode_tps" in found.verdict
        assert "ttft" not in found.verdict


def test_an_effect_below_the_minimum_is_none_however_sure() -> None:
    assert report(factor=1.02, noise=0.001).verdict == NO_DIFFERENCE
    assert "decode_tps" in report(factor=1.02, noise=0.001, minimum=0.01).verdict


def test_few_repetitions_tell_nothing_and_say_so() -> None:
    found = report(shorter(kinds=("chat",), parallel=(1,), repetitions=4), factor=2.0)
    assert found.verdict == TOO_FEW
    assert found.decode_ratio == pytest.approx(2)
    assert "4 pairs are too few for an interval, 10 are needed" in found.warnings[0]


def test_lower_is_better_for_seconds() -> None:
    rows = {(row.measure, row.where): row for row in report(factor=2.0).comparisons if not row.judged}
    assert rows["itl_p95", "chat"].ratio == pytest.approx(0.5)
    assert rows["itl_p95", "chat"].better == "b"
    assert rows["throughput_tps", "chat, 16 at once"].better == "b"
    assert rows["ttft", "code"].better is None
    assert ("prefill_tps", "chat") not in rows


def results(**of_group: Any) -> dict[str, dict[str, Any]]:
    """Answers to all questions, by functions of (number, side)."""
    asked = steps(shorter(quality=True, kinds=("chat",), parallel=(1,), repetitions=1))
    return {step.key: of_group[step.group](int(step.name), step.side) for step in asked if step.group in of_group}


def test_tasks_that_one_side_alone_solves_are_a_difference_when_there_are_enough() -> None:
    for lost, different in ((5, False), (12, True)):
        found = Report.of(SETUP, results(task=lambda n, side, k=lost: {"passed": side == "a" or n >= k, "said": ""}), 0.03)
        assert found.quality is not None
        assert (found.quality.a_only, found.quality.b_only) == (lost, 0)
        assert sum(score.b for score in found.quality.scores) == len(TASKS) - lost
        assert (f"a has {lost}, b 0" in found.verdict) == different


def test_likeness_by_tokens_where_told_and_by_words_where_not() -> None:
    told = results(
        agreement=lambda n, side: {"text": "one two", "tokens": ["one", " two" if side == "a" or n else " three"]},
        next=lambda n, side: {"top": {"x": -0.1, "y": -3.0} if side == "a" or n else {"x": -3.0, "y": -0.1}},
    )
    found = Report.of(SETUP, told, 0.03).quality
    assert found is not None
    assert (found.unit, found.identical, found.talks) == ("token", len(TALKS) - 1, len(TALKS))
    assert found.agreement == pytest.approx(1 - 0.5 / len(TALKS))
    assert (found.same_choice, found.openings) == (len(OPENINGS) - 1, len(OPENINGS))
    assert found.kl is not None
    assert found.kl > 0.1
    told |= results(agreement=lambda n, side: {"text": "one two", "tokens": None if side == "b" else ["one", " two"]})
    found = Report.of(SETUP, told, 0.03).quality
    assert found is not None
    assert (found.unit, found.identical) == ("word", len(TALKS))


def test_what_a_server_refuses_is_left_out_and_told() -> None:
    clean = report(factor=2.0)
    broken = {key: {"error": "too long"} if "long" in key and key[-1] == "b" else row for key, row in clean.results.items()}
    broken |= {"task/0/1/0/a": {"error": "no tools"}, "task/0/1/0/b": {"passed": True, "said": "43"}}
    found = Report.of(SETUP, broken, 0.03)
    assert {row.measure for row in found.comparisons if "long" in row.where} == set()
    assert found.decode_ratio == pytest.approx(2)
    assert found.comparisons[0].pairs == 20
    assert "b refused speed long (10 times): too long" in found.warnings
    assert "a refused task (1 times): no tools" in found.warnings
    assert found.quality is not None
    assert (found.quality.a_only, found.quality.b_only) == (0, 1)


def test_json_and_back() -> None:
    found = report(factor=1.3, noise=0.1)
    again = Report.from_json(found.to_json())
    assert again == found
    data = json.loads(found.to_json())
    assert (data["verdict"], data["comparisons"]) == (found.verdict, found.rows)
    for text in ("{", "[]", "{}", '{"setup": {}, "results": {}, "minimum": 0.1}'):
        with pytest.raises(ConfigError, match="bench"):
            Report.from_json(text)


def test_table_and_picture() -> None:
    found = report(factor=1.3, noise=0.05)
    text = str(found)
    assert text.splitlines()[-1] == f"verdict: {found.verdict}"
    assert "old" in text
    assert "decode_tps      all, one at a time" in text
    bundle = found._repr_mimebundle_()
    assert bundle["text/plain"] == text
    picture = bundle["text/html"]
    assert "<script" not in picture
    tree = ElementTree.fromstring(picture.replace("&middot;", "."))
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}circle"))) == len(found.comparisons)
    assert Report.of(SETUP, {}, 0.03).to_html().count("<svg") == 0

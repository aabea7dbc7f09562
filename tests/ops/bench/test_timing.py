"""From instants to figures."""

from __future__ import annotations

from typing import Any

import pytest

from hydra_infer.ops.bench.timing import Heard, figures, heard
from hydra_infer.reply import Reply, Usage


def answer(**facts: Any) -> Reply:
    return Reply(text="", model="m", finish_reason="length", message={}, raw={"usage": facts.pop("told", {})}, **facts)


def test_one_stream() -> None:
    one = heard(
        10.0, [10.5, 10.6, 10.7, 11.0], answer(usage=Usage(100, 9, 109), told={"prompt_tokens_details": {"cached_tokens": 50}})
    )
    found = figures([one], joules=18.0)
    assert found["ttft"] == pytest.approx(0.5)
    assert found["prefill_tps"] == pytest.approx(50 / 0.5)
    assert found["decode_tps"] == pytest.approx(9 * 3 / 4 / 0.5)  # of nine tokens in four pieces three quarters
    assert found["itl_p95"] == pytest.approx(0.3)
    assert found["throughput_tps"] == pytest.approx(9 / 1.0)
    assert found["joules_per_token"] == 2
    assert (found["tokens"], found["counted"], found["acceptance"]) == (9, True, None)


def test_streams_at_once_share_the_time_and_the_drafts() -> None:
    first = Heard(0.0, (1.0, 2.0), 2, counted=True, read=10, draft={"tokens": 10, "accepted": 9})
    second = Heard(0.5, (3.0, 4.0), 2, counted=True, read=10, draft={"tokens": 30, "accepted": 11})
    found = figures([first, second], None)
    assert found["throughput_tps"] == pytest.approx(4 / 4.0)
    assert found["acceptance"] == pytest.approx(20 / 40)
    assert found["ttft"] == pytest.approx((1.0 + 2.5) / 2)
    assert found["joules_per_token"] is None


def test_a_server_that_counts_nothing_is_counted_by_pieces_and_says_so() -> None:
    found = figures([heard(0.0, [1.0, 1.5, 2.0], answer())], None)
    assert (found["decode_tps"], found["counted"], found["prefill_tps"]) == (2.0, False, None)


def test_what_cannot_be_known_is_none() -> None:
    silent = figures([heard(0.0, [], answer(usage=Usage(5, 0, 5)))], 3.0)
    assert {value for key, value in silent.items() if key not in ("tokens", "counted")} == {None}
    single = figures([heard(0.0, [1.0], answer(usage=Usage(5, 1, 6)))], None)
    assert (single["ttft"], single["decode_tps"], single["itl_p95"]) == (1.0, None, None)

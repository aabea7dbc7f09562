"""Likeness of answers and of probabilities, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from hydra_infer.ops.bench.likeness import agreement, divergence, first_token, spoken_tokens


def test_agreement_ends_at_the_first_different_token() -> None:
    assert agreement(list("abcd"), list("abcd")) == 1
    assert agreement(list("abxd"), list("abcd")) == 0.5
    assert agreement(list("ab"), list("abcd")) == 0.5
    assert agreement([], list("abcd")) == 0
    assert agreement([], []) == 1


def test_divergence_over_what_both_list_is_the_textbooks() -> None:
    a, b = {"x": math.log(0.5), "y": math.log(0.3)}, {"x": math.log(0.25), "y": math.log(0.35)}
    expected = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.35) + 0.2 * math.log(0.2 / 0.4)
    assert divergence(a, b) == pytest.approx(expected)
    assert divergence(a, a) == 0


def test_a_token_that_one_side_does_not_list_gets_a_share_of_its_rest() -> None:
    a, b = {"x": math.log(0.9)}, {"y": math.log(0.9)}
    # Of either side's 0.1 the missing token gets one half, the rest the other.
    expected = 0.9 * math.log(0.9 / 0.05) + 0.05 * math.log(0.05 / 0.9)
    assert divergence(a, b) == pytest.approx(expected)


def test_a_missing_token_gets_no_more_than_the_least_listed() -> None:
    a, b = {"x": math.log(0.4), "y": math.log(0.2)}, {"x": math.log(0.4), "z": math.log(0.05)}
    expected = 0.2 * math.log(0.2 / 0.05) + 0.2 * math.log(0.2 / 0.05) + 0.2 * math.log(0.2 / 0.5)
    assert divergence(a, b) == pytest.approx(expected)


def test_probabilities_that_add_up_to_one_divide_by_no_zero() -> None:
    assert 10 < divergence({"x": 0.0}, {"y": 0.0}) < 20


def test_logprobs_in_the_shape_of_a_chat_and_of_a_completion() -> None:
    top = [{"token": " Paris", "logprob": -0.25}, {"token": " the", "logprob": -2.5}]
    chat = {"content": [{"token": " Paris", "logprob": -0.25, "top_logprobs": top}, {"token": ".", "logprob": -0.4}]}
    completion = {"tokens": [" Paris", "."], "top_logprobs": [{" Paris": -0.25, " the": -2.5}, {".": -0.4}]}
    for told in (chat, completion):
        assert spoken_tokens(told) == [" Paris", "."]
        assert first_token(told) == {" Paris": -0.25, " the": -2.5}
    for nothing in (None, {}, {"content": []}, {"tokens": [], "top_logprobs": []}, {"content": [], "top_logprobs": [None]}):
        assert spoken_tokens(nothing) is None
        assert first_token(nothing) is None

"""Request fields, checked: what each means, and that a wrong one is named with its value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hydra_infer.engines.exllama.params import SAMPLING, Params, known_fields
from hydra_infer.engines.exllama.seam import Constraint
from hydra_infer.errors import ConfigError

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def of(**fields: Any) -> Params:
    return Params.of({"messages": [], **fields})


def test_nothing_said() -> None:
    assert of() == Params(None, 0, {}, None, (), (), None, None)
    assert of(temperature=None, max_tokens=None, stop=None, response_format=None) == of()


def test_the_newer_name_of_max_tokens_goes_first() -> None:
    assert of(max_tokens=3).max_tokens == 3
    assert of(max_tokens=3, max_completion_tokens=4).max_tokens == 4


def test_sampling_is_kept_by_name_in_its_type() -> None:
    found = of(temperature=1, top_k=40.0, logit_bias={"7": -100}, temperature_last=True, penalty_range=-1).sampling
    assert found == {"temperature": 1.0, "top_k": 40, "logit_bias": {7: -100.0}, "temperature_last": True, "penalty_range": -1}
    assert type(found["top_k"]) is int


def test_stops_are_texts_and_ids() -> None:
    assert of(stop="a").stop == ("a",)
    assert of(stop=["a", "b"], stop_token_ids=[7]).stop == ("a", "b", 7)
    assert of(banned_strings=["x"]).banned == ("x",)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
    ],
)
def test_logprobs_of_a_chat(fields: dict[str, Any], wanted: int | None) -> None:
    assert of(**fields).top_logprobs == wanted


def test_logprobs_of_a_completion() -> None:
    assert Params.of({"prompt": "x", "logprobs": 5}).top_logprobs == 5
    assert Params.of({"prompt": "x", "logprobs": 0}).top_logprobs == 0


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type": "object"}'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, "json_schema", json.dumps(SCHEMA)),
        ({"json_schema": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"regex": "[a-z]+"}, "regex", "[a-z]+"),
        ({"grammar": 'root ::= "yes" | "no"'}, "gbnf", 'root ::= "yes" | "no"'),
        ({"grammar": 'start: "yes" | "no"'}, "lark", 'start: "yes" | "no"'),
    ],
)
def test_constraints(fields: dict[str, Any], kind: str, text: str) -> None:
    found = of(**fields).constraint
    assert found is not None
    assert (found.kind, found.text) == (kind, text)


def test_plain_text_is_no_constraint() -> None:
    assert of(response_format={"type": "text"}).constraint is None
    assert of(response_format={"type": "text"}, regex="a").constraint == Constraint("regex", "a")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1}, {"temperature": "hot"}, {"temperature": float("nan")}, {"temperature": True}, {"top_p": 1.5},
        {"top_k": 1.5}, {"min_p": -0.1}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"max_tokens": float("inf")}, {"seed": "x"},
        {"stop": [1]}, {"stop": ""}, {"stop": [""]}, {"stop_token_ids": "7"}, {"stop_token_ids": [-1]}, {"logit_bias": [1]},
        {"logit_bias": {"a": 1}}, {"logit_bias": {-1: 1}}, {"logprobs": 5}, {"top_logprobs": 5}, {"n": 2},
        {"logprobs": True, "top_logprobs": 21}, {"response_format": {"type": "xml"}}, {"temperature_last": 1},
        {"response_format": {"type": "json_schema"}}, {"json_schema": 7}, {"regex": ""}, {"regex": "a", "grammar": "b"},
        {"banned_strings": [None]}, {"min_tokens": -1},
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        of(**fields)
    assert any(name in str(caught.value) for name in fields)


def test_an_engine_takes_the_sampling_it_knows_and_what_all_do() -> None:
    known = known_fields(frozenset({"temperature"}))
    assert {"temperature", "max_tokens", "tools", "response_format", "stop"} <= known
    assert known & SAMPLING == {"temperature"}

"""Splicing: what was meant changes, every other byte stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_infer.wire.splice import NotAnObject, Text

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_numbers_escapes_and_spaces_survive() -> None:
    body = b'{ "model" : "a\\/b",\n "temperature": 0.10, "seed": 12345678901234567890, "x": "\\u00e9", "messages": [ ] }'
    assert Text(body).replace(model="m") == body.replace(b'"a\\/b"', b'"m"')


def test_only_the_top_level_key_is_changed() -> None:
    body = b'{"metadata":{"model":"inner"},"model":"outer","text":"\\"model\\":\\"x\\""}'
    assert Text(body).replace(model="new") == body.replace(b'"outer"', b'"new"')


def test_a_key_that_was_not_there_is_added() -> None:
    assert json.loads(Text(b'{"a": 1}').replace(b=[2])) == {"a": 1, "b": [2]}
    assert Text(b"{}").replace(a=1) == b'{"a":1}'
    assert Text(b" { } ").replace(a=1) == b' { "a":1} '


@given(st.dictionaries(st.text(), json_values, max_size=5), json_values, st.sampled_from([None, 1]))
def test_it_agrees_with_json(fields: dict[str, object], value: object, indent: int | None) -> None:
    text = Text(json.dumps(fields, indent=indent).encode())
    assert text.fields == fields
    assert json.loads(text.replace(model=value)) == {**fields, "model": value}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b'{"a":1}x',
        b'{"a":1,"a":2}',
        b"\xff{}",
        b"[" * 100000,
        b'{"a":' * 5000,
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(NotAnObject):
        Text(body)


@given(st.binary(max_size=60))
def test_any_bytes_are_survived(body: bytes) -> None:
    try:
        fields = Text(body).fields
    except NotAnObject:
        return
    assert json.loads(body.decode("utf-8-sig")) == fields or any(value != value for value in fields.values())

"""A little of the fuzzing in every run of the tests: sound inputs with a few changes, the same ones each time."""

from __future__ import annotations

import random

import pytest
from fuzz.targets import TARGETS
from fuzz.values import changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# YAML is parsed several times for each.
SLOW = ("edit", "fleet", "tabby", "litellm")


@pytest.mark.parametrize("parser", TARGETS)
def test_changed_inputs_break_no_word(parser: str) -> None:
    target, starts = TARGETS[parser], TARGETS[parser].starts()

    @settings(
        max_examples=8 if parser in SLOW else 60,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(st.integers(0, len(starts) - 1), st.integers(0, 2**32), st.binary(max_size=8), st.floats(0, 1))
    def change(which: int, seed: int, more: bytes, place: float) -> None:
        data = starts[which]
        if target.values:
            data = changed(data, random.Random(seed), target.words) or data
        if not target.values or seed % 3 == 0:
            at = round(place * len(data))
            data = data[:at] + more + data[at + seed % 5 :]
        target.run(data)

    change()


@pytest.mark.parametrize("parser", TARGETS)
def test_any_bytes_break_no_word(parser: str) -> None:
    @settings(
        max_examples=10 if parser in SLOW else 40,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def survive(data: bytes) -> None:
        TARGETS[parser].run(data)

    survive()

"""Sizes and token counts as people type and read them."""

from __future__ import annotations

import json
import math

import pytest

from hydra_infer.errors import ConfigError
from hydra_infer.units import GIB, MIB, Size, gib, parse_tokens


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (100 * MIB, "100.0 MiB"),
        (GIB - 1, "1.0 GiB"),
        (int(27.3 * GIB), "27.3 GiB"),
        (-2 * GIB, "-2.0 GiB"),
    ],
)
def test_a_size_prints_in_the_unit_a_reader_wants(size: int, text: str) -> None:
    assert str(Size(size)) == text
    assert f"{Size(size):>12}" == text.rjust(12)


def test_a_size_stays_an_int_and_sums_stay_sizes() -> None:
    total = sum([Size(GIB), Size(GIB)], Size(0))
    assert total == 2 * GIB
    assert isinstance(total, Size)
    assert isinstance(Size(3) - 1, Size)
    assert json.dumps(Size(5)) == "5"
    assert f"{Size(5):d}" == "5"
    assert Size(GIB * 3).gib == 3.0


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "24", None, True])
def test_a_size_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="reserve="):
        gib(value, "reserve")  # type: ignore[arg-type]


def test_gib_is_two_to_the_thirty() -> None:
    assert gib(22.5) == 22.5 * 2**30


@pytest.mark.parametrize(
    ("text", "tokens"), [("32k", 32768), ("32K", 32768), (8192, 8192), ("8_192", 8192), ("1m", 1048576), ("0.5k", 512)]
)
def test_contexts_may_be_written_short(text: str | int, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "0", 0, -1, "1.5", "many", "nan", "inf", True])
def test_a_context_that_is_none_is_refused(text: str | int) -> None:
    with pytest.raises(ConfigError, match="context="):
        parse_tokens(text)

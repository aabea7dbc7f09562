"""The SSE parser: line feeds and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_infer.wire.lines import LineTooLong
from hydra_infer.wire.sse import SSEParser, encode_event


def parse(stream: bytes, size: int = 10**9) -> list[bytes]:
    parser, events = SSEParser(), []
    for start in range(0, len(stream), size):
        events += parser.feed(stream[start : start + size])
    return events + parser.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10**9])
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b": ping - 2026\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n\ndata: last without an end", [b"a", b"last without an end"]),
        (b"data:  two spaces keep one\n\n", [b" two spaces keep one"]),
        ('data: {"t": "\u2028 \u0085 \x0b \x0c \x1c é"}\n\n'.encode(), ['{"t": "\u2028 \u0085 \x0b \x0c \x1c é"}'.encode()]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_come_out_whole_however_the_bytes_are_cut(stream: bytes, events: list[bytes], size: int) -> None:
    assert parse(stream, size) == events


@given(st.lists(st.binary(min_size=1).filter(lambda data: b"\n" not in data and b"\r" not in data)), st.integers(1, 50))
def test_whatever_was_encoded_is_parsed_back(messages: list[bytes], size: int) -> None:
    assert parse(b"".join(map(encode_event, messages)), size) == messages


@given(st.binary(), st.integers(1, 9))
def test_any_bytes_are_survived_and_cutting_changes_nothing(stream: bytes, size: int) -> None:
    assert parse(stream, size) == parse(stream)


def test_a_line_of_several_megabytes_is_an_event_like_any_other() -> None:
    line = b"x" * (3 * 2**20)
    assert parse(encode_event(line), 65536) == [line]


def test_an_endless_line_ends() -> None:
    parser = SSEParser(max_bytes=1000)
    with pytest.raises(LineTooLong, match="1000"):
        for _ in range(100):
            parser.feed(b"data: " + b"x" * 50)


def test_an_endless_event_of_many_lines_ends_too() -> None:
    parser = SSEParser(max_bytes=1000)
    with pytest.raises(LineTooLong, match="1000"):
        for _ in range(100):
            parser.feed(b"data: " + b"x" * 50 + b"\n")

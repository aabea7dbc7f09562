"""A sweep asks every length the same questions, and closes what was started for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.fault import FaultServer, chunked, plain, sse, word

import hydra_infer as hydra
from hydra_infer.engines.echo import echo
from hydra_infer.engines.engine import Engine
from hydra_infer.errors import ConfigError, HydraError, Refused

pytestmark = pytest.mark.usefixtures("no_leaks")

SHORT: dict[str, Any] = {"parallel": [1, 2], "kinds": ["chat"], "seed": 1, "progress": False}


def drafting(tokens: int) -> Any:
    """A server whose pieces are a token and the accepted ones of `tokens` drafted, of which half are."""

    def answer(body: bytes) -> Iterator[Any]:
        if not body:
            return iter(plain({"data": [{"id": "m"}]}))
        each = 1 + tokens // 2
        said = [part for _ in range(6) for part in (0.01, word(" word" * each))]
        usage: dict[str, Any] = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 6 * each, "total_tokens": 9}}
        if tokens:
            usage["timings"] = {"draft_n": 6 * tokens, "draft_n_accepted": 3 * tokens}
        return iter(chunked(*said, word("", "stop"), sse(usage), sse(b"[DONE]")))

    return answer


def test_speeds_and_acceptance_of_servers_are_read() -> None:
    with FaultServer(drafting(0)) as none, FaultServer(drafting(2)) as two, FaultServer(drafting(4)) as four:
        servers = {0: none, 2: two, 4: four}
        found = hydra.bench.sweep(lambda tokens: servers[tokens].url, lengths=[4, 2], repetitions=2, **SHORT)
        asked = {
            tokens: [json.loads(data)["messages"][0]["content"].split(". ", 1) for *_, data in server.requests if data]
            for tokens, server in servers.items()
        }
    assert [(row.parallel, row.tokens, row.acceptance) for row in found.lengths] == [
        (1, 2, 0.5),
        (1, 4, 0.5),
        (2, 2, 0.5),
        (2, 4, 0.5),
    ]
    assert found.lengths[0].speedup < found.lengths[1].speedup
    tickets = [ticket for questions in asked.values() for ticket, _ in questions]
    assert len(set(tickets)) == len(tickets) == 3 * (1 + 2) * (1 + 2)
    questions = [sorted(question for _, question in each) for each in asked.values()]
    assert questions[0] == questions[1] == questions[2]


def test_engines_are_closed_one_before_the_next() -> None:
    started: list[Engine] = []

    def start(_tokens: int) -> Engine:
        for engine in started:
            assert "closed" in repr(engine)
        started.append(echo())
        return started[-1]

    found = hydra.bench.sweep(start, lengths=[1], repetitions=1, **SHORT)
    assert len(started) == 2
    assert "closed" in repr(started[-1])
    assert (found.per_token, found.stops_at) == (None, 1)


def test_a_sweep_that_broke_is_continued_and_starts_no_length_again(tmp_path: Path) -> None:
    """Stopped in the second of three lengths: the first is not started again, and nothing that is kept is asked again."""
    started: list[int] = []
    settings: dict[str, Any] = {**SHORT, "lengths": [1, 2], "repetitions": 2, "max_tokens": 4, "file": tmp_path / "run"}

    def start(tokens: int) -> Engine:
        started.append(tokens)
        return echo()

    def stop(fraction: float, _: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hydra.bench.sweep(start, **settings | {"progress": stop, "seed": None})
    kept = (tmp_path / "run").read_bytes()
    assert kept.count(b"\n") == 1 + 4 + 2
    found = hydra.bench.sweep(start, **settings | {"seed": None})
    assert started == [0, 1, 1, 2]
    lines = (tmp_path / "run").read_bytes()
    assert lines.startswith(kept)
    keys = [json.loads(line)["step"] for line in lines.splitlines()[1:]]
    assert len(set(keys)) == len(keys) == 3 * 2 * 2
    assert hydra.bench.sweep(start, **settings | {"seed": None}).to_dict() == found.to_dict()
    assert started == [0, 1, 1, 2]
    with pytest.raises(ConfigError, match=r"another run: tokens \[0, 1, 2\], now \[0, 4\]"):
        hydra.bench.sweep(start, **settings | {"lengths": [4], "seed": None})


def test_answers_of_one_piece_are_no_speed() -> None:
    with pytest.raises(HydraError, match="drafts of 1, 1 at once: no answer took long enough"):
        hydra.bench.sweep(lambda _: echo(), lengths=[1], repetitions=2, max_tokens=1, **SHORT)


def test_what_cannot_be_is_named() -> None:
    for wrong in ({"kinds": ["chatt"]}, {"kinds": []}, {"parallel": []}, {"parallel": [0]}, {"repetitions": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            hydra.bench.sweep(lambda _: echo(), **SHORT | wrong)
    with pytest.raises(ConfigError, match="lengths"):
        hydra.bench.sweep(lambda _: "127.0.0.1:9", lengths=[0, 2])
    with pytest.raises(Refused, match="the context is 2"):
        hydra.bench.sweep(lambda _: echo(context=2), lengths=[1], repetitions=1, **SHORT)

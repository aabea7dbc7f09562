"""Two servers in one run: paced ones whose factor is known, real HTTP, refusals, a run that breaks and goes on, a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ops.bench.made_up import SETUP
from servers.fault import FaultServer, chunked, plain, sse, word

import hydra_infer as hydra
from hydra_infer.engines.echo import echo
from hydra_infer.errors import AllBackendsFailed, ConfigError, HydraError, Unreachable
from hydra_infer.hardware.energy import EnergyMeter
from hydra_infer.ops.bench.prompts import OPENINGS
from hydra_infer.ops.bench.side import Side
from hydra_infer.ops.bench.steps import Step, steps
from hydra_infer.ops.bench.tasks import TASKS

pytestmark = pytest.mark.usefixtures("no_leaks")

FAST: dict[str, Any] = {"kinds": "chat", "parallel": 1, "quality": False, "seed": 1, "progress": False}


def paced(delay: float, words: int = 10) -> Any:
    """A server that says a word each `delay` seconds, whatever it is asked, and lists one model."""

    def answer(body: bytes) -> Iterator[Any]:
        if not body:
            return iter(plain({"data": [{"id": "m"}]}))
        usage = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": words, "total_tokens": 20 + words}}
        said = [part for _ in range(words) for part in (delay, word(" word"))]
        return iter(chunked(*said, word("", "stop"), sse(usage), sse(b"[DONE]")))

    return answer


def test_the_factor_of_a_throttled_server_is_found() -> None:
    # Slow enough that a busy machine's own millisecond or two a word are no part of the factor.
    with FaultServer(paced(0.03, 8)) as a, FaultServer(paced(0.06, 8)) as b:
        report = hydra.bench.compare(a.url, b.url, repetitions=10, **FAST)
    assert report.decode_ratio == pytest.approx(0.5, rel=0.05)
    assert report.ttft_ratio is not None
    assert report.ttft_ratio > 1.5
    assert "a's decode_tps" in report.verdict
    assert {"decode_tps", "ttft", "itl_p95", "throughput_tps"} == {row["measure"] for row in report.rows}


def test_many_at_once_are_measured_at_once() -> None:
    with echo(delay=0.01, slots=1) as one, echo(delay=0.01, slots=4) as four:
        report = hydra.bench.compare(one, four, **FAST | {"parallel": [4]}, repetitions=10, max_tokens=4)
    row = next(row for row in report.comparisons if row.judged and row.measure == "throughput_tps")
    assert row.where == "chat, 4 at once"
    assert 2 < row.ratio < 5


def test_the_requests_are_greedy_and_no_two_begin_alike() -> None:
    with FaultServer(paced(0.001, 3)) as a, FaultServer(paced(0.001, 3)) as b:
        hydra.bench.compare(a.url, b.url, repetitions=3, **FAST | {"parallel": [2]})
        bodies = [json.loads(data) for server in (a, b) for method, _, _, data in server.requests if method == "POST"]
    assert len(bodies) == 2 * (1 + 3) * (1 + 2)
    assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0, 128)}
    assert len({body["messages"][0]["content"][:14] for body in bodies}) == len(bodies)


def test_a_run_that_broke_is_continued(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    calls = 0

    def breaking(body: bytes) -> Iterator[Any]:
        nonlocal calls
        calls += bool(body)
        return iter(plain({"error": {"message": "gone"}}, 502)) if body and calls == 4 else paced(0.001, 2)(body)

    with FaultServer(paced(0.001, 2)) as a, FaultServer(breaking) as b:
        settings = {**FAST, "repetitions": 5, "file": file, "seed": None}
        with pytest.raises(AllBackendsFailed):
            hydra.bench.compare(a.url, b.url, **settings)
        kept = file.read_bytes()
        assert 2 <= kept.count(b"\n") < 11
        report = hydra.bench.compare(a.url, b.url, **settings)
        asked = len(a.requests), len(b.requests)
        assert hydra.bench.compare(a.url, b.url, **settings) == report
        assert [method for method, *_ in a.requests[asked[0] :] + b.requests[asked[1] :] if method == "POST"] == []
    assert file.read_bytes().startswith(kept)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()[1:]] == [step.key for step in steps(report.setup)]
    assert report.comparisons[0].pairs == 5


def test_answers_side_by_side(tmp_path: Path) -> None:
    right = [task.right if task.group == "exact" else "{}" for task in TASKS]
    with echo() as parrot, echo(script=[*["x"] * (2 * 1 + 8 + len(OPENINGS)), *right]) as scholar:
        report = hydra.bench.compare(parrot, scholar, **FAST | {"quality": True}, repetitions=1)
    assert report.quality is not None
    assert [(score.group, score.a, score.b) for score in report.quality.scores] == [
        ("exact", 0, 20),
        ("json", 0, 0),
        ("tools", 0, 0),
    ]
    assert (report.quality.kl, report.quality.unit, report.quality.identical) == (None, "word", 0)
    assert "a has 0, b 20" in report.verdict


def test_what_a_server_refuses_does_not_stop_the_run() -> None:
    with echo(context=200) as small, echo() as large:
        report = hydra.bench.compare(small, large, **FAST | {"kinds": ["chat", "long"]}, repetitions=2, max_tokens=2)
    assert any(line.startswith("a refused speed long (2 times): ") and "the context is 200" in line for line in report.warnings)
    assert {row.where for row in report.comparisons if not row.judged} == {"chat"}


def test_an_answer_that_took_several_attempts_is_no_measurement() -> None:
    busy = plain({"error": {"message": "loading"}}, 503, retry_after="0")
    with FaultServer(busy, paced(0.001, 2)) as server, EnergyMeter() as meter:
        side = Side(hydra.Backend.openai(server.url, models=["m"]), None, meter=meter)
        first, second = (side.measure(Step("speed", "chat", "a"), SETUP) for _ in range(2))
        side.close()
    assert "asked 2 times" in first["error"]
    assert second["tokens"] == 2


def test_a_server_without_logprobs_is_asked_again_without() -> None:
    def answer(body: bytes) -> Iterator[Any]:
        return iter(plain({"error": {"message": "logprobs?"}}, 400)) if b"logprobs" in body else paced(0.001, 2)(body)

    with FaultServer(answer) as server, EnergyMeter() as meter:
        side = Side(server.url, "m", meter=meter)
        assert side.measure(Step("agreement", "0", "a"), SETUP) == {"text": " word word", "tokens": None}
        assert "logprobs?" in side.measure(Step("next", "0", "a"), SETUP)["error"]
        side.close()


def test_energy_is_counted_for_servers_of_this_machine_only() -> None:
    class Meter(EnergyMeter):
        spent = 0.0

        def joules(self) -> float:
            self.spent += 6.0
            return self.spent

    here, there = hydra.Backend.openai("localhost:1", models=["m"]), hydra.Backend.openai("gpu-box:1", models=["m"])
    for row, expected in ((here, 6.0), (there, None)):
        side = Side(row, None, meter=Meter())
        assert side._joules() == expected
        side.close()


def test_what_cannot_be_compared_is_named() -> None:
    with echo() as engine, FaultServer(plain({"data": [{"id": "m"}, {"id": "n"}]})) as two:
        cases: list[tuple[type[HydraError], str, Any, dict[str, Any]]] = [
            (ConfigError, "several models: m, n", two.url, {}),
            (ConfigError, "nothing to compare", 7, {}),
            (Unreachable, "does not answer", "127.0.0.1:9", {}),
            (ConfigError, "chatt", engine, {"kinds": ["chatt"]}),
            (ConfigError, "minimum", engine, {"minimum": 3}),
            (ConfigError, "long_tokens", engine, {"long_tokens": "many"}),
        ]
        for kind, named, other, settings in cases:
            with pytest.raises(kind, match=named):
                hydra.bench.compare(engine, other, **FAST | settings)


@pytest.mark.model
def test_the_real_small_model_with_itself() -> None:
    with hydra.load("smollm2", context=512, slots=2, threads=1, progress=False) as engine:
        report = hydra.bench.compare(engine, engine, **FAST | {"parallel": [2]}, repetitions=1, max_tokens=4)
        with EnergyMeter() as meter:
            side = Side(engine, None, meter=meter)
            talk, opening = (side.measure(Step(group, "0", "a"), report.setup) for group in ("agreement", "next"))
            side.close()
    assert report.verdict == "too few measurements to tell"
    assert {row.measure for row in report.comparisons} >= {"decode_tps", "ttft", "itl_p95", "throughput_tps"}
    assert len(talk["tokens"]) == 4
    assert "".join(talk["tokens"]) == talk["text"]
    assert len(opening["top"]) == 5

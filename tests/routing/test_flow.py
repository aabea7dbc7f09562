"""The failover flow driven by hand: no server, no event loop, no sleeping."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from tenacity.wait import wait_fixed

from hydra_infer.reply import Usage
from hydra_infer.routing.backend import Backend
from hydra_infer.routing.call import Attempt, Call, Ended, Pause, Policy, Probe, Serve, Started, Wait
from hydra_infer.routing.flow import COLD, WARM, Flow, failover
from hydra_infer.routing.ledger import Entry
from hydra_infer.routing.pool import Pool
from hydra_infer.routing.strategies import find_strategy, ordered
from hydra_infer.routing.verdict import GaveUp
from hydra_infer.wire.dialect import Look
from hydra_infer.wire.question import Fields, Question
from hydra_infer.wire.trouble import Failure, Trouble

DOWN = Failure(Trouble.UNREACHABLE, "connection refused")
POLICY = Policy(wait=wait_fixed(0.5))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Backends by short names, all serving "m" unless said otherwise, and a way to drive calls over them."""

    def __init__(self, *rows: Backend | str, policy: Policy = POLICY) -> None:
        backends = [row if isinstance(row, Backend) else backend(row) for row in rows]
        self.clock, self.policy = Clock(), policy
        self.pool = Pool(backends, cooldown=policy.cooldown, clock=self.clock)

    def call(self, *models: str, tools: bool = False, **changes: Any) -> Call:
        question = Question("/chat/completions", Fields({"model": "m", "tools": [1] if tools else []}), "m", True)
        return Call(question, models or ("m",))._replace(**changes)

    def flow(self, *models: str, **changes: Any) -> Flow:
        return failover(self.call(*models, **changes), self.pool, self.policy, ordered, self.clock)

    def drive(self, facts: dict[str, list[Any]], *models: str, **changes: Any) -> tuple[list[str], GaveUp | None]:
        """Run a call to its end: each backend's facts in turn, Started being served to its end. Gives the story."""
        flow, fact, story = self.flow(*models, **changes), None, []
        try:
            while True:
                step, fact = flow.send(fact), None
                if isinstance(step, Attempt):
                    story.append(f"{step.backend.name}:{step.model}" if step.model != "m" else step.backend.name)
                    fact = facts[step.backend.name].pop(0)
                elif isinstance(step, Serve):
                    story.append("serve")
                    fact = Ended()
                elif isinstance(step, Pause):
                    story.append(f"pause {step.seconds:g}")
                    self.clock.now += step.seconds
                elif isinstance(step, Wait):
                    story.append(f"wait {step.seconds:g}")
                    self.clock.now += step.seconds
                elif isinstance(step, Probe):
                    story.append("probe " + " ".join(row.name for row in step.backends))
        except StopIteration as stop:
            return story, stop.value

    def in_flight(self) -> list[int]:
        return [place.in_flight for place in self.pool.places]


def backend(name: str, models: Any = ("m",), **options: Any) -> Backend:
    return Backend.openai(f"http://{name}", models=models, name=name, **options)


def test_the_first_that_answers_serves_and_its_slot_is_held_until_the_end() -> None:
    bench = Bench("a", "b")
    flow = bench.flow()
    assert isinstance(flow.send(None), Attempt)
    assert bench.in_flight() == [1, 0]
    serve = flow.send(Started())
    assert isinstance(serve, Serve)
    assert [outcome.backend for outcome in serve.outcomes] == ["a"]
    assert bench.in_flight() == [1, 0]
    with pytest.raises(StopIteration):
        flow.send(Ended())
    assert bench.in_flight() == [0, 0]


def test_a_dropped_call_releases_its_slot_wherever_it_stands() -> None:
    bench = Bench("a", "b")
    for facts in ([], [DOWN], [Started()]):
        flow = bench.flow()
        flow.send(None)
        for fact in facts:
            flow.send(fact)
        flow.close()
        assert bench.in_flight() == [0, 0]


@pytest.mark.parametrize(
    "trouble",
    [Trouble.UNREACHABLE, Trouble.SILENT, Trouble.BROKEN, Trouble.FAILED, Trouble.BUSY, Trouble.LOADING, Trouble.MISCONFIGURED],
)
def test_trouble_moves_on_at_once_and_rests_the_backend(trouble: Trouble) -> None:
    bench = Bench("a", "b")
    story, verdict = bench.drive({"a": [Failure(trouble, "x", retry_after=60.0)], "b": [Started()]})
    assert (story, verdict) == (["a", "b", "serve"], None)
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]


def test_retry_after_is_obeyed_by_resting_not_by_sleeping() -> None:
    bench = Bench("a", "b")
    assert bench.drive({"a": [Failure(Trouble.BUSY, "429", retry_after=60.0)], "b": [Started()]})[0] == ["a", "b", "serve"]
    bench.clock.now += 59
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]
    bench.clock.now += 2
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_after_the_cooldown_one_request_finds_out_while_others_stay_away() -> None:
    bench = Bench("a", "b")
    bench.drive({"a": [DOWN], "b": [Started()]})
    bench.clock.now += POLICY.cooldown + 1
    probe = bench.flow()
    step = probe.send(None)
    assert isinstance(step, Attempt)
    assert step.backend.name == "a"
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]
    probe.send(Started())
    with pytest.raises(StopIteration):
        probe.send(Ended())
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_a_failed_probe_rests_again_and_a_cancelled_one_does_not_block() -> None:
    bench = Bench("a", "b")
    bench.drive({"a": [DOWN], "b": [Started()]})
    bench.clock.now += POLICY.cooldown + 1
    assert bench.drive({"a": [DOWN], "b": [Started()]})[0] == ["a", "b", "serve"]
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]
    bench.clock.now += POLICY.cooldown + 1
    flow = bench.flow()
    flow.send(None)
    flow.close()
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_a_stream_that_breaks_rests_its_backend() -> None:
    bench = Bench("a", "b")
    flow = bench.flow()
    flow.send(None)
    flow.send(Started())
    with pytest.raises(StopIteration):
        flow.send(Ended(Failure(Trouble.BROKEN, "cut")))
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]


def test_the_callers_mistake_goes_nowhere_else_and_rests_nobody() -> None:
    bench = Bench("a", "b")
    mistake = Failure(Trouble.CALLER, "HTTP 422: no", status=422)
    story, verdict = bench.drive({"a": [mistake]})
    assert story == ["a"]
    assert verdict is not None
    assert verdict.final is mistake
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_a_missing_model_rests_there_and_other_models_of_that_backend_do_not() -> None:
    bench = Bench(backend("a", ("m", "n")), backend("b", ("m", "n")))
    gone = Failure(Trouble.NO_MODEL, "HTTP 404: model not found", status=404)
    assert bench.drive({"a": [gone], "b": [Started()]})[0] == ["a", "b", "serve"]
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]
    assert bench.drive({"a": [Started()]}, "n")[0] == ["a:n", "serve"]


def test_a_missing_path_moves_on_and_rests_nobody() -> None:
    bench = Bench("a", "b")
    assert bench.drive({"a": [Failure(Trouble.NO_PATH, "404", status=404)], "b": [Started()]})[0] == ["a", "b", "serve"]
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_overflow_goes_only_to_a_larger_context() -> None:
    overflow = Failure(Trouble.OVERFLOW, "too long", status=400)
    bench = Bench(
        backend("small", context=4096), backend("same", context=4096), backend("unknown"), backend("large", context=8192)
    )
    assert bench.drive({"small": [overflow], "large": [Started()]})[0] == ["small", "large", "serve"]
    story, verdict = bench.drive({"small": [overflow], "large": [overflow]})
    assert story == ["small", "large"]
    assert verdict is not None
    assert verdict.final is overflow
    assert bench.drive({"small": [Started()]})[0] == ["small", "serve"]


def test_a_lone_backend_is_retried_with_pauses_and_never_rests() -> None:
    bench = Bench("a")
    story, verdict = bench.drive({"a": [DOWN, DOWN, DOWN]})
    assert story == ["a", "pause 0.5", "a", "pause 0.5", "a"]
    assert verdict is not None
    assert len(verdict.outcomes) == 3
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_what_a_lone_backend_repeats_is_told_once_and_counted() -> None:
    busy = Failure(Trouble.BUSY, "queue full", status=503)
    _, verdict = Bench("a").drive({"a": [DOWN, DOWN, busy]})
    assert verdict is not None
    assert [outcome.message for outcome in verdict.outcomes] == ["connection refused", "connection refused", "queue full"]
    assert verdict.error().message == "no backend answered for 'm': a: connection refused (2 times); a: queue full"


def test_a_lone_backends_retry_after_is_waited_for_when_short_and_told_when_long() -> None:
    bench = Bench("a")
    assert bench.drive({"a": [Failure(Trouble.BUSY, "429", retry_after=3.0), Started()]})[0] == ["a", "pause 3", "a", "serve"]
    assert bench.drive({"a": [Failure(Trouble.BUSY, "429", retry_after=3600.0)]})[0] == ["a"]


def test_a_lone_backend_that_loads_is_waited_for_without_spending_retries() -> None:
    bench = Bench("a")
    loading = Failure(Trouble.LOADING, "503")
    assert bench.drive({"a": [loading] * 5 + [Started()]}, ends_at=2000.0)[0][-2:] == ["a", "serve"]
    _, verdict = bench.drive({"a": [loading] * 10}, ends_at=bench.clock.now + 5)
    assert verdict is not None
    assert verdict.out_of_time
    story, verdict = bench.drive({"a": [loading] * 200})
    assert verdict is not None
    assert story.count("pause 2") == COLD / 2  # and not for ever


def test_silence_of_a_lone_backend_is_not_repeated() -> None:
    bench = Bench("a")
    assert bench.drive({"a": [Failure(Trouble.SILENT, "no token")]})[0] == ["a"]


def test_fallbacks_come_after_every_backend_of_the_model() -> None:
    bench = Bench(backend("a"), backend("b"), backend("c", ("other",)))
    story, _ = bench.drive({"a": [DOWN], "b": [DOWN], "c": [Started()]}, "m", "other")
    assert story == ["a", "b", "c:other", "serve"]


def test_when_all_rest_the_least_tired_is_tried() -> None:
    bench = Bench("a", "b")
    bench.drive({"a": [Failure(Trouble.BUSY, "x", retry_after=100.0)], "b": [Failure(Trouble.BUSY, "y", retry_after=50.0)]})
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]


def test_when_the_least_tired_fails_too_the_verdict_names_everybody() -> None:
    bench = Bench("a", "b")
    bench.drive({"a": [DOWN], "b": [DOWN]})
    _, verdict = bench.drive({"a": [DOWN], "b": [DOWN]})
    assert verdict is not None
    text = str(verdict.error())
    assert "a: connection refused" in text
    assert "b: resting 30 s more after: connection refused" in text


def test_a_full_backend_spills_to_the_same_model_before_anything_waits() -> None:
    bench = Bench(backend("a", max_parallel=1), backend("b"))
    busy = bench.flow()
    busy.send(None)
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]
    busy.close()
    assert bench.drive({"a": [Started()]})[0] == ["a", "serve"]


def test_waiting_for_a_slot_is_a_line_and_the_next_one_gets_it() -> None:
    bench = Bench(backend("a", max_parallel=1))
    first, second, third = bench.flow(), bench.flow(), bench.flow()
    first.send(None)
    waits = [flow.send(None) for flow in (second, third)]
    assert all(isinstance(step, Wait) for step in waits)
    tickets: list[Future[Any]] = [step.ticket for step in waits if isinstance(step, Wait)]
    first.close()
    assert [ticket.done() for ticket in tickets] == [True, False]
    assert isinstance(second.send(None), Attempt)
    assert bench.in_flight() == [1]
    second.close()
    assert tickets[1].done()
    third.close()
    assert bench.in_flight() == [0]


def test_a_caller_who_leaves_the_line_leaves_no_gap() -> None:
    bench = Bench(backend("a", max_parallel=1))
    first, second, third = bench.flow(), bench.flow(), bench.flow()
    first.send(None)
    second.send(None)
    step = third.send(None)
    second.close()
    first.close()
    assert isinstance(step, Wait)
    assert step.ticket.done()
    assert isinstance(third.send(None), Attempt)
    third.close()
    assert bench.in_flight() == [0]


def test_past_queue_timeout_a_full_backend_gives_way_to_the_fallbacks() -> None:
    bench = Bench(backend("a", max_parallel=1), backend("b", ("other",)))
    busy = bench.flow()
    busy.send(None)
    assert bench.drive({"b": [Started()]}, "m", "other")[0] == ["wait 5", "b:other", "serve"]


def test_without_fallbacks_the_line_is_as_patient_as_an_attempt() -> None:
    bench = Bench(backend("a", max_parallel=1))
    busy = bench.flow()
    busy.send(None)
    assert bench.drive({})[0] == ["wait 600"]
    assert bench.drive({}, ends_at=bench.clock.now + 7)[0] == ["wait 7"]


def test_the_deadline_ends_everything() -> None:
    bench = Bench("a", "b")
    story, verdict = bench.drive({}, ends_at=bench.clock.now)
    assert story == []
    assert verdict is not None
    assert verdict.out_of_time


def test_servers_that_list_their_own_models_are_asked_once() -> None:
    bench = Bench(backend("a", None), backend("b", None))
    flow = bench.flow()
    step = flow.send(None)
    assert isinstance(step, Probe)
    bench.pool.tell(step.backends[0], DOWN)
    bench.pool.tell(step.backends[1], Look(["m"]))
    attempt = flow.send(None)
    assert isinstance(attempt, Attempt)
    assert attempt.backend.name == "b"
    flow.close()
    assert bench.drive({"b": [Started()]})[0] == ["b", "serve"]


def test_a_model_that_nobody_serves_is_unknown_unless_somebody_could_not_be_asked() -> None:
    bench = Bench("a")
    _, verdict = bench.drive({}, "n")
    assert verdict is not None
    assert verdict.unknown
    assert verdict.answer()[0] == 404
    silent = Bench(backend("a", None))
    _, verdict = silent.drive({}, "n")
    assert verdict is not None
    assert not verdict.unknown
    assert "could not be asked" in str(verdict.error())


def test_tags_choose_among_backends() -> None:
    bench = Bench(backend("a"), backend("b", tags=["gpu", "big"]))
    assert bench.drive({"b": [Started()]}, tags=frozenset({"gpu"}))[0] == ["b", "serve"]
    _, verdict = bench.drive({}, tags=frozenset({"cpu"}))
    assert verdict is not None
    assert "tags cpu" in str(verdict.error())


def limits(bench: Bench, **changes: Any) -> Any:
    flow = bench.flow(**changes)
    step = flow.send(None)
    flow.close()
    assert isinstance(step, Attempt)
    return step.limits


def test_the_first_token_has_its_own_limit_except_on_the_last_candidate() -> None:
    assert limits(Bench("a", "b")).first == WARM
    assert limits(Bench("a")).first == 600
    assert limits(Bench("a", "b", policy=replace(POLICY, first_token_timeout=7.0))).first == 7
    assert limits(Bench(backend("a", first_token_timeout=3), "b")).first == 3
    assert limits(Bench("a"), timeout=9.0).first == 9


def test_the_last_candidate_is_the_last_that_is_not_resting() -> None:
    bench = Bench("a", "b")
    bench.drive({"a": [DOWN], "b": [Started()]})
    assert limits(bench).first == 600


def test_plain_calls_and_a_clients_own_timeout() -> None:
    assert limits(Bench("a", "b"), mode="plain").first == 600
    assert limits(Bench("a"), first_token_timeout=5.0).first == 5
    assert limits(Bench("a", "b"), first_token_timeout=600.0).first == WARM


def test_idle_counts_between_tokens_unless_tools_are_offered() -> None:
    assert limits(Bench("a")).idle == 60
    assert limits(Bench("a"), tools=True).idle == 600
    assert (limits(Bench("a")).whole, limits(Bench("a"), mode="stream").whole) == (600, None)


def ollama(name: str = "o", **options: Any) -> Backend:
    return Backend.ollama(f"http://{name}", {"m": "llama3.1:8b"}, name=name, **options)


def first_attempt(bench: Bench, look: Look | Failure) -> Attempt:
    """The first attempt of a call whose first backend is asked about itself before."""
    flow = bench.flow()
    step = flow.send(None)
    assert isinstance(step, Probe)
    bench.pool.tell(step.backends[0], look)
    attempt = flow.send(None)
    flow.close()
    assert isinstance(attempt, Attempt)
    return attempt


def test_a_server_that_may_have_to_load_first_gets_the_time_for_it() -> None:
    cold = first_attempt(Bench(ollama(), "b"), Look(["llama3.1:8b"], {}))
    assert cold.limits.first == COLD
    warm = first_attempt(Bench(ollama(), "b"), Look(["llama3.1:8b"], {"llama3.1:8b": 16384}))
    assert warm.limits.first == WARM


def test_the_context_is_what_was_said_or_is_loaded_or_the_default_and_stays() -> None:
    assert first_attempt(Bench(ollama(context=4096)), Look([], {"llama3.1:8b": 16384})).context == 4096
    bench = Bench(ollama())
    assert first_attempt(bench, Look([], {"llama3.1:8b": 16384})).context == 16384
    bench.pool.tell(bench.pool.places[0].backend, Look([], {}))
    flow = bench.flow()
    step = flow.send(None)
    flow.close()
    assert isinstance(step, Attempt)
    assert step.context == 16384
    assert first_attempt(Bench(ollama()), Look([], {})).context == 8192


def test_a_server_found_unreachable_when_asked_is_not_asked_again_by_the_same_call() -> None:
    bench = Bench(ollama(), "b")
    flow = bench.flow()
    probe = flow.send(None)
    assert isinstance(probe, Probe)
    bench.pool.tell(probe.backends[0], DOWN)
    attempt = flow.send(None)
    assert isinstance(attempt, Attempt)
    assert attempt.backend.name == "b"
    serve = flow.send(Started())
    assert isinstance(serve, Serve)
    assert [(outcome.backend, outcome.result) for outcome in serve.outcomes] == [("o", "unreachable"), ("b", "answered")]
    flow.close()


def test_a_burst_is_spread_by_least_busy_because_choosing_reserves() -> None:
    bench = Bench("a", "b")
    flows = [failover(bench.call(), bench.pool, bench.policy, find_strategy("least-busy"), bench.clock) for _ in range(8)]
    for flow in flows:
        flow.send(None)
    assert bench.in_flight() == [4, 4]
    for flow in flows:
        flow.close()
    assert bench.in_flight() == [0, 0]


def test_the_ledger_counts_answers_tokens_seconds_and_cost() -> None:
    bench = Bench(backend("a", input_cost_per_token=0.5, output_cost_per_token=2.0), "b")
    for ended in (Ended(None, False, 0.5, 2.0, Usage(10, 4, 14)), Ended(Failure(Trouble.BROKEN, "cut"), False, 0.1, 1.0)):
        flow = bench.flow()
        flow.send(None)
        flow.send(Started())
        with pytest.raises(StopIteration):
            flow.send(ended)
    ((name, model, entry),) = bench.pool.ledger()
    assert (name, model, entry) == ("a", "m", Entry(2, 1, 0, 1, 10, 4, 3.0, 13.0))
    assert bench.pool.ledger().total == entry
    assert "13.0000" in str(bench.pool.ledger())
    assert (bench.pool.places[0].ttft, bench.pool.places[0].decode_tps) == (0.5, 2.0)


def test_a_server_that_tells_what_it_holds_is_asked_at_each_idle_and_has_timeout_in_all() -> None:
    tabby = Backend.tabby("http://t", ["m"], name="t")
    asked, unasked = Bench(tabby), Bench(tabby)
    for bench in (asked, unasked):
        bench.pool.tell(tabby, Look(["m"], {"m": 4096}))
    assert (limits(asked, tools=True).idle, limits(asked, tools=True).silence) == (60, 600)
    assert limits(unasked).silence is None
    assert limits(Bench("a"), tools=True).silence is None


def test_an_overflow_that_names_numbers_is_believed() -> None:
    counted = Failure(Trouble.OVERFLOW, "prompt length 9000 exceeds the maximum context length is 2048", status=400)
    rows = [backend("unknown"), backend("small", context=8192), backend("large", context=16384)]
    assert Bench(*rows).drive({"unknown": [counted], "large": [Started()]})[0] == ["unknown", "large", "serve"]


@pytest.mark.parametrize("rows", [["a"], ["a", "b"]])
def test_a_backend_that_lacks_one_model_is_still_asked_for_another(rows: list[str]) -> None:
    gone = Failure(Trouble.NO_MODEL, "HTTP 404: model not found", status=404)
    bench = Bench(*(backend(name, models=["m", "n"]) for name in rows))
    story, verdict = bench.drive({name: [gone, Started()] for name in rows}, "m", "n")
    assert (story, verdict) == ([*rows, "a:n", "serve"], None)


def test_a_prompt_too_long_for_one_model_may_fit_another_of_the_same_server() -> None:
    too_long = Failure(Trouble.OVERFLOW, "the prompt is longer than the context", status=400)
    bench = Bench(backend("a", models={"m": {"name": "s", "context": 1000}, "n": {"name": "l", "context": 9000}}))
    story, verdict = bench.drive({"a": [too_long, Started()]}, "m", "n")
    assert (story, verdict) == (["a", "a:n", "serve"], None)

"""The stepper: jobs reach the engine and its results their readers; what fails fails only what it must."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines.exllama.fake_runner import FakeRunner

from hydra_infer.engines.engine import Engine
from hydra_infer.engines.exllama.driver import ExllamaDriver
from hydra_infer.engines.exllama.prompt import Prompts
from hydra_infer.engines.exllama.stepper import Stepper
from hydra_infer.engines.job import Job
from hydra_infer.errors import ConfigError, ContextTooLong, HydraError, LoadError, OutOfMemory

pytestmark = pytest.mark.usefixtures("no_leaks")


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


OOM = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 22.00 GiB"


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def engine(runner: FakeRunner) -> Iterator[Engine]:
    with Engine(ExllamaDriver(lambda: runner, Prompts(None))) as engine:
        yield engine


def stepped(stepper: Stepper, *jobs: Job) -> None:
    for job in jobs:
        stepper.enqueue(job)
    while not all(job.ended for job in jobs):
        stepper.iterate()


def test_a_completion_with_its_usage_timings_and_draft(engine: Engine) -> None:
    reply = engine.generate("ab", max_tokens=9)
    assert (reply.text, reply.finish_reason, reply.backend, reply.model) == ("hello", "stop", "exllamav3", "fake")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 5, 8)
    assert reply.raw["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert reply.timings.decode_tps == 2.0  # four tokens after the first, in two seconds
    assert reply.draft == {"tokens": 3, "accepted": 2, "acceptance": 2 / 3}
    stats = engine.stats()
    assert (stats["draft_tokens"], stats["draft_accepted"], stats["loaded"], stats["finished"]) == (3, 2, True, 1)


def test_what_is_cut_says_length(engine: Engine) -> None:
    assert engine.generate("ab", max_tokens=2).finish_reason == "length"
    assert engine.generate("ab", max_tokens=2).text == "he"


def test_what_the_engine_is_asked(engine: Engine, runner: FakeRunner) -> None:
    seen: list[Any] = []
    runner.enqueue = lambda raw: (seen.append(raw.ask), FakeRunner.enqueue(runner, raw))  # type: ignore[method-assign,assignment,func-returns-value]
    engine.generate("ab", max_tokens=99, temperature=0.5, stop=["x"], stop_token_ids=[7], seed=4, banned_strings="no")
    (ask,) = seen
    assert (ask.ids, ask.max_tokens, ask.seed) == ([1, 97, 98], 61, 4)  # no more than there is room for
    assert (ask.stop, ask.banned, ask.sampling) == ((2, "x", 7), ("no",), {"temperature": 0.5})


def test_an_option_the_engine_does_not_know_is_an_error(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="'top_k'"):
        engine.generate("ab", top_k=1)
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        engine.generate("ab", temprature=1)


def test_token_ids_are_a_prompt_too(engine: Engine) -> None:
    assert engine.submit({"prompt": [97, 98]}).take() is not None
    for wrong in ([], [1, "a"], [9999], [True], {}):
        with pytest.raises(ConfigError):
            list(engine.submit({"prompt": wrong}))


def test_a_prompt_that_leaves_no_room_is_too_long(engine: Engine) -> None:
    with pytest.raises(ContextTooLong, match="the prompt has 65 tokens, the context is 64") as caught:
        engine.generate("x" * 64)
    assert (caught.value.tokens, caught.value.context) == (65, 64)
    assert engine.generate("x").text == "hello"


def test_without_a_template_there_is_no_chat(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"fake has no chat template .*engine\.generate"):
        engine.chat("hi")


def test_embeddings_are_refused_by_name(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="exllamav3 gives no embeddings"):
        engine.embed("text")


def test_leaving_a_stream_cancels_in_the_engine(engine: Engine, runner: FakeRunner) -> None:
    runner.text, runner.context = "x" * 300_000, 400_000
    job = engine.submit({"prompt": "ab"})
    job.take()
    job.cancel()
    assert engine.tokenize("a") == [97]  # the command after it on the same thread
    assert runner.calls.count("cancel") == 1
    assert runner.jobs == []


def test_an_error_stage_fails_that_job_alone(runner: FakeRunner) -> None:
    stepper = Stepper(lambda: runner, Prompts(None))
    bad, good = Job({"prompt": "a"}), Job({"prompt": "b"})
    stepper.enqueue(bad)
    stepper.enqueue(good)
    raw = runner.jobs.pop(0)
    honest = runner.iterate
    runner.iterate = lambda: [{"job": raw, "stage": "error", "eos": True, "error": OutOfMemoryError(OOM)}, *honest()]  # type: ignore[method-assign]
    stepper.iterate()
    runner.iterate = honest  # type: ignore[method-assign]
    with pytest.raises(OutOfMemory, match="on cuda:1 while reading a prompt.*smaller chunk") as caught:
        list(bad)
    assert (caught.value.device, caught.value.stage) == ("cuda:1", "prefill")
    stepped(stepper)
    while not good.ended:
        stepper.iterate()
    assert good.answer.text == "hello"
    assert "rebuild" not in runner.calls


def test_a_step_that_fails_fails_who_was_in_it_and_the_next_is_right(runner: FakeRunner) -> None:
    stepper = Stepper(lambda: runner, Prompts(None))
    runner.faults = [OutOfMemoryError(OOM)]
    jobs = [Job({"prompt": "a"}), Job({"prompt": "b"})]
    stepped(stepper, *jobs)
    for job in jobs:
        with pytest.raises(OutOfMemory) as caught:
            list(job)
        assert caught.value.stage == "decode"
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__traceback__ is None  # its frames would keep tensors on the card
        assert "fake_runner.py" in "".join(caught.value.log)  # type: ignore[attr-defined]
    assert runner.calls == ["iterate", "rebuild"]
    later = Job({"prompt": "c"})
    stepped(stepper, later)
    assert later.answer.text == "hello"
    assert stepper.stats()["rebuilds"] == 1


def test_a_second_fault_takes_the_engine_down_until_it_is_reloaded(runner: FakeRunner) -> None:
    runners = [runner, FakeRunner(text="again")]
    stepper = Stepper(lambda: runners.pop(0), Prompts(None))
    runner.faults = [RuntimeError("CUDA error: an illegal memory access"), RuntimeError("CUDA error again")]
    stepped(stepper, Job({"prompt": "a"}))
    stepped(stepper, Job({"prompt": "b"}))
    assert runner.calls[-1] == "close"
    assert stepper.stats()["loaded"] is False
    with pytest.raises(LoadError, match=r"taken down after a fault: .*CUDA error again.*engine\.reload"):
        stepper.enqueue(Job({"prompt": "c"}))
    stepper.reload()
    job = Job({"prompt": "c"})
    stepped(stepper, job)
    assert job.answer.text == "again"


def test_an_answer_between_two_faults_forgives_the_first(runner: FakeRunner) -> None:
    stepper = Stepper(lambda: runner, Prompts(None))
    for _ in range(3):
        runner.faults = [RuntimeError("now and then")]
        stepped(stepper, Job({"prompt": "a"}))
        stepped(stepper, Job({"prompt": "b"}))
    assert "close" not in runner.calls
    assert stepper.stats()["rebuilds"] == 3


@pytest.mark.parametrize("stage", ["decode", "prefill"])
def test_any_fault_of_a_parallel_model_takes_it_down(runner: FakeRunner, stage: str) -> None:
    runner.parallel = True
    stepper = Stepper(lambda: runner, Prompts(None))
    bad, other = Job({"prompt": "a"}), Job({"prompt": "b"})
    stepper.enqueue(bad)
    stepper.enqueue(other)
    if stage == "decode":
        runner.faults = [TimeoutError("Timed out waiting for worker")]
    else:
        result = {"job": runner.jobs[0], "stage": "error", "eos": True, "error": RuntimeError("rank 1")}
        runner.iterate = lambda: [result]  # type: ignore[method-assign]
    stepper.iterate()
    for job in (bad, other):
        with pytest.raises(HydraError):
            list(job)
    assert runner.calls[-1] == "close"
    assert "rebuild" not in runner.calls
    with pytest.raises(LoadError, match="taken down"):
        stepper.enqueue(Job({"prompt": "c"}))


def test_a_generator_that_cannot_be_rebuilt_takes_the_engine_down(runner: FakeRunner) -> None:
    stepper = Stepper(lambda: runner, Prompts(None))
    runner.faults, runner.rebuild_fault = [RuntimeError("first")], RuntimeError("no more")
    job = Job({"prompt": "a"})
    stepped(stepper, job)
    with pytest.raises(HydraError, match="first"):
        list(job)
    assert runner.calls == ["iterate", "rebuild", "close"]


def test_reload_through_the_engine(runner: FakeRunner) -> None:
    runner.parallel = True
    runners = [runner, FakeRunner(text="again")]
    with Engine(ExllamaDriver(lambda: runners.pop(0), Prompts(None))) as engine:
        engine.reload()
        assert len(runners) == 1  # it was loaded: nothing to do
        runner.faults = [RuntimeError("rank 1 died")]
        with pytest.raises(HydraError, match="rank 1 died"):
            engine.generate("a")
        with pytest.raises(LoadError, match="taken down"):
            engine.generate("a")
        with pytest.raises(LoadError, match="taken down"):
            engine.tokenize("a")
        engine.reload()
        assert engine.generate("a").text == "again"


def test_what_opening_raises_reaches_the_caller() -> None:
    def fail() -> FakeRunner:
        raise OutOfMemory("no room", stage="loading")

    with pytest.raises(OutOfMemory, match="no room"):
        ExllamaDriver(fail, Prompts(None))

"""The echo engine says exactly what it is told to say."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hydra_infer.engines.driver import EngineInfo
from hydra_infer.engines.echo import EchoStepper, echo
from hydra_infer.engines.job import Job
from hydra_infer.errors import ConfigError, ContextTooLong, HydraError, Refused, StreamBroken
from hydra_infer.reply import Usage

pytestmark = pytest.mark.usefixtures("no_leaks")

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def test_it_says_back_the_last_user_message() -> None:
    with echo() as engine:
        reply = engine.chat(
            [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": [{"type": "text", "text": "say this back"}]},
            ]
        )
    assert reply.text == "say this back"
    assert reply.finish_reason == "stop"
    assert reply.model == "echo"
    assert reply.backend == "echo"
    assert reply.usage == Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
    assert reply.raw["object"] == "chat.completion"
    assert reply.message == {"role": "assistant", "content": "say this back"}


def test_it_goes_on_word_by_word_with_the_spaces() -> None:
    with echo() as engine, engine.stream("two  words\n here ") as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]
    assert pieces == ["two", "  words", "\n here", " "]


def test_a_completion_is_its_prompt() -> None:
    with echo() as engine:
        reply = engine.generate("Once upon a time", max_tokens=2)
    assert reply.text == "Once upon"
    assert reply.finish_reason == "length"
    assert reply.usage.completion_tokens == 2
    assert reply.raw["object"] == "text_completion"


def test_an_answer_ends_at_a_stop_string_even_across_pieces() -> None:
    with echo(script=["one two three", ("on", "e tw", "o"), "all of it"]) as engine:
        assert engine.chat("x", stop=["thr"]).text == "one two "
        assert engine.chat("x", stop="e t").text == "on"
        reply = engine.chat("x", stop=["", "never"])
    assert (reply.text, reply.finish_reason) == ("all of it", "stop")


def test_the_context_is_kept() -> None:
    with echo(context=4) as engine:
        assert engine.chat("one two three").text == "one"  # room for one token beside the prompt
        with pytest.raises(ContextTooLong) as caught:
            engine.chat("one two three four five")
    assert (caught.value.tokens, caught.value.context) == (5, 4)


def test_a_script_is_followed_in_order() -> None:
    script = [
        "a text",
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"content": "4", "reasoning_content": "two and two"},
        Refused("no", status=400),
        ("half ", "an ", StreamBroken("the line is dead")),
    ]
    with echo(script=script) as engine:
        assert engine.chat("1").text == "a text"
        called = engine.chat("2")
        assert called.tool_calls[0]["function"] == CALL["function"]
        assert called.tool_calls[0]["id"] == "call_1"
        assert called.finish_reason == "tool_calls"
        thought = engine.chat("3")
        assert (thought.text, thought.reasoning) == ("4", "two and two")
        with pytest.raises(Refused, match="no"):
            engine.chat("4")
        with pytest.raises(StreamBroken) as caught:
            engine.chat("5")
        assert caught.value.text == "half an "
        with pytest.raises(HydraError, match="script has no answer left"):
            engine.chat("6")


def test_tokens_come_back_as_text() -> None:
    text = "the cat and the  dog"
    with echo() as engine:
        ids = engine.tokenize(text)
        assert len(ids) == 5
        assert engine.tokenize("the cat")[0] == ids[0]
        assert engine.detokenize(ids) == text
        for wrong in ([999], [-1]):
            with pytest.raises(ConfigError):
                engine.detokenize(wrong)


def test_embeddings_depend_on_the_text_alone() -> None:
    with echo(dimensions=33) as one, echo(dimensions=33) as other:
        found = one.embed(["a b", "c", "a b"])
        assert found.embeddings == other.embed(["a b", "c", "a b"]).embeddings
        assert one.embed("c").embeddings == [found.embeddings[1]]
    first, second, third = found.embeddings
    assert first == third != second
    assert len(first) == 33
    assert math.hypot(*first) == pytest.approx(1.0)
    assert found.usage.prompt_tokens == 5


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"delay": -1.0}, {"ttft": -0.1}, {"dimensions": 0}, {"context": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        echo(**wrong)


def stepper_at(now: list[float], **options: Any) -> EchoStepper:
    info = EngineInfo("echo", "echo", 100, options.pop("slots", 1), format="none", cache="none")
    return EchoStepper(info, clock=lambda: now[0], **options)


def texts(job: Job) -> list[str]:
    return [chunk.text for chunk in iter(lambda: job.take(timeout=0) if job._chunks else None, None) if chunk.text]


def test_pieces_come_when_they_are_due() -> None:
    now = [100.0]
    stepper, job = stepper_at(now, ttft=5.0, delay=2.0), Job({"messages": [{"role": "user", "content": "a b"}]})
    stepper.enqueue(job)
    assert stepper.iterate() == 5.0
    assert texts(job) == []
    now[0] += 5.0
    assert stepper.iterate() == 2.0
    assert texts(job) == ["a"]
    now[0] += 1.0
    assert stepper.iterate() == 1.0
    now[0] += 1.0
    assert stepper.iterate() == 0.0
    assert job.state == "finished"
    assert texts(job) == [" b"]


def test_more_requests_than_slots_wait_their_turn() -> None:
    now = [0.0]
    stepper = stepper_at(now, slots=2, delay=1.0)
    jobs = [Job({"prompt": "a b"}) for _ in range(3)]
    for job in jobs:
        stepper.enqueue(job)
    stepper.iterate()
    assert [texts(job) for job in jobs] == [["a"], ["a"], []]
    stepper.cancel(jobs[0])
    stepper.iterate()
    assert texts(jobs[2]) == ["a"]


def test_a_whole_answer_is_json() -> None:
    with echo() as engine:
        assert json.loads(json.dumps(engine.chat("hello").to_dict()))["text"] == "hello"

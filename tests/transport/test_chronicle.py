"""What a Router tells while it works: to a listener, and to the log, with nothing in it that was said."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from servers.fault import CUT, FaultServer, chunked, hello, plain, word
from transport.faces import both, chat

from hydra_infer import AllBackendsFailed, Backend, Refused, Router, StreamBroken, UnknownModel
from hydra_infer.routing.events import Attempted, Event, Failed, Finished, Rested

pytestmark = pytest.mark.usefixtures("no_leaks")


def two(bad: FaultServer, good: FaultServer, **settings: Any) -> Router:
    rows = [(bad, "bad"), (good, "good")]
    return Router([Backend.openai(server.url, models=["m"], name=name, api_key="secret") for server, name in rows], **settings)


@both
def test_a_call_that_moves_on_is_told_step_by_step(face: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hydra_infer")
    told: list[Event] = []
    with FaultServer(plain({"error": "secret words"}, 500)) as bad, FaultServer(hello("good")) as good:
        router = two(bad, good, on_event=told.append, cooldown=7)
        chat(face, router)
        router.close()
    assert [(type(event), event.result) for event in told] == [
        (Rested, "failed"),
        (Attempted, "failed"),
        (Attempted, "answered"),
        (Finished, "whole"),
    ]
    assert isinstance(told[0], Rested)
    assert 6 < told[0].seconds <= 7
    assert isinstance(told[3], Finished)
    assert (told[3].backend, told[3].prompt_tokens, told[3].completion_tokens) == ("good", 1, 3)
    lines = [record for record in caplog.records if record.name == "hydra_infer"]
    assert [record.levelname for record in lines] == ["WARNING", "WARNING", "DEBUG", "DEBUG"]
    assert [(record.__dict__["event"], record.__dict__["backend"]) for record in lines] == [
        ("rest", "bad"),
        ("attempt", "bad"),
        ("attempt", "good"),
        ("end", "good"),
    ]
    assert lines[1].__dict__["status"] == 500
    said = " ".join(record.getMessage() + str(record.__dict__) for record in lines)
    assert not any(word in said for word in ("secret", "hello", "hi'"))


@pytest.mark.parametrize(
    ("script", "error", "result"),
    [
        (plain({}, 500), AllBackendsFailed, "failed"),
        (plain({"error": {"message": "bad field"}}, 400), Refused, "refused"),
    ],
)
def test_how_a_call_ends_without_an_answer(script: Any, error: type[Exception], result: str) -> None:
    told: list[Event] = []
    with (
        FaultServer(script) as server,
        Router([Backend.openai(server.url, models=["m"])], retries=0, on_event=told.append) as router,
    ):
        with pytest.raises(error):
            router.chat("m", "hi")
        assert isinstance(told[-1], Failed)
        assert (told[-1].result, told[-1].attempts) == (result, 1)
        with pytest.raises(UnknownModel):
            router.chat("n", "hi")
        assert told[-1].result == "unknown"


def test_broken_and_left_answers_are_told_apart() -> None:
    told: list[Event] = []
    cut = chunked(word("so"), CUT, end=False)
    with (
        FaultServer(cut, hello("a")) as server,
        Router([Backend.openai(server.url, models=["m"])], on_event=told.append) as router,
    ):
        with pytest.raises(StreamBroken):
            router.chat("m", "hi")
        with router.stream("m", "hi") as stream:
            next(stream)
        assert [event.result for event in told if isinstance(event, Finished)] == ["broken", "left"]


def test_a_listener_that_fails_is_told_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listener(event: Event) -> None:
        raise RuntimeError("listener")

    with FaultServer(hello("a")) as server, Router([Backend.openai(server.url, models=["m"])], on_event=listener) as router:
        assert router.chat("m", "hi").text == "hello from a"
    assert {record.getMessage() for record in caplog.records} == {"on_event failed"}

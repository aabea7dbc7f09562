"""What Engine promises whatever stands behind it; the echo engine stands in."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest

from hydra_infer.engines.echo import echo
from hydra_infer.engines.engine import Engine
from hydra_infer.errors import ConfigError, HydraError, LoadError, Refused
from hydra_infer.reply import Reply

pytestmark = pytest.mark.usefixtures("no_leaks")

SLOW = {"delay": 30.0}  # the first word at once, the next far beyond any test


@pytest.fixture
def engine() -> Iterator[Engine]:
    with echo() as engine:
        yield engine


@pytest.fixture
def slow() -> Iterator[Engine]:
    with echo(**SLOW) as engine:
        yield engine


def text_of(answer: Reply | HydraError) -> str:
    assert isinstance(answer, Reply)
    return answer.text


def test_info_says_what_is_loaded(engine: Engine) -> None:
    assert engine.info.to_dict() == {
        "name": "echo",
        "model": "echo",
        "context": 8192,
        "slots": 1,
        "format": "none",
        "cache": "none",
        "path": None,
    }
    assert repr(engine) == "<Engine echo by echo: context 8192, slots 1>"


def test_a_stream_has_the_text_so_far_and_the_reply_at_its_end(engine: Engine) -> None:
    stream = engine.stream("one two three")
    seen = ""
    for chunk in stream:
        seen += str(chunk)
        assert stream.text == seen
    assert stream.reply.text == "one two three"
    assert stream.reply.timings.ttft is not None


def test_the_reply_of_a_running_stream_is_an_error(slow: Engine) -> None:
    with slow.stream("one two") as stream:
        next(stream)
        with pytest.raises(HydraError, match="still coming"):
            _ = stream.reply
    assert stream.reply.finish_reason is None


@pytest.mark.parametrize("leave", ["with", "close", "drop"])
def test_leaving_a_stream_early_cancels(slow: Engine, leave: str) -> None:
    stream = slow.stream("one two")
    next(stream)
    assert slow.stats()["in_flight"] == 1
    if leave == "with":
        with stream:
            pass
    elif leave == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    assert (slow.stats()["in_flight"], slow.stats()["cancelled"]) == (0, 1)
    assert slow.chat("next").text == "next"  # the only slot is free


def test_a_misspelt_option_is_an_error_that_names_the_right_one(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="temprature.*did you mean 'temperature'"):
        engine.chat("x", temprature=0.5)
    with pytest.raises(ConfigError, match="zzz.*this engine knows"):
        engine.chat("x", zzz=1)
    with pytest.raises(ConfigError, match=r"engine\.stream"):
        engine.chat("x", stream=True)
    assert engine.stats()["in_flight"] == 0


@pytest.mark.parametrize("wrong", [[], 3, None, [{"content": "no role"}], ["a", "b"], {"role": "user", "content": "x"}])
def test_messages_must_be_a_text_or_messages(engine: Engine, wrong: object) -> None:
    with pytest.raises(ConfigError, match="neither a text nor a list"):
        engine.chat(wrong)  # type: ignore[arg-type]


def test_a_prompt_must_be_a_text(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="not a text"):
        engine.generate(["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("request_", [{}, {"messages": [], "prompt": "x"}])
def test_a_request_is_a_chat_or_a_completion(engine: Engine, request_: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="neither a chat nor a completion"):
        engine.submit(request_)


def test_a_request_by_hand_is_checked_for_its_shape(engine: Engine) -> None:
    for messages in ("text", [], [{"content": "no role"}]):
        with pytest.raises(ConfigError, match="list of messages"):
            engine.submit({"messages": messages})
    with pytest.raises(ConfigError, match="one text"):
        list(engine.submit({"prompt": ["a", "b"]}))


def test_submit_gives_openai_shaped_events_with_the_usage_last(engine: Engine) -> None:
    events = list(engine.submit({"messages": [{"role": "user", "content": "a b"}], "some_sampler": 1}))
    assert [event["object"] for event in events] == ["chat.completion.chunk"] * 5
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 2


def test_a_batch_keeps_the_order_and_the_errors_in_place() -> None:
    told: list[tuple[float, str]] = []
    with echo(script=["one", Refused("no"), "three"], slots=2) as engine:
        answers = engine.batch(["a", "b", 3, "c"], progress=lambda part, what: told.append((part, what)))  # type: ignore[list-item]
    assert text_of(answers[0]) == "one"
    assert isinstance(answers[1], Refused)
    assert isinstance(answers[2], ConfigError)
    assert text_of(answers[3]) == "three"
    assert told == [(0.25, "1 of 4"), (0.5, "2 of 4"), (0.75, "3 of 4"), (1.0, "4 of 4")]


def test_a_batch_of_nothing_is_nothing_and_a_wrong_option_is_one_error(engine: Engine) -> None:
    assert engine.batch([]) == []
    with pytest.raises(ConfigError, match="temperature"):
        engine.batch(["a", "b"], temprature=1)


def test_what_interrupts_a_batch_cancels_it(slow: Engine) -> None:
    def interrupt(_part: float, _what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slow.batch(["one", "two words", "three words"], progress=interrupt)
    assert (slow.stats()["in_flight"], slow.stats()["cancelled"]) == (0, 2)


def test_stats_count_what_happened() -> None:
    with echo(script=["one two", Refused("no")]) as engine:
        engine.chat("a b c")
        with pytest.raises(Refused):
            engine.chat("x")
        stats = engine.stats()
    assert {name: stats[name] for name in ("in_flight", "finished", "failed", "cancelled")} == {
        "in_flight": 0,
        "finished": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (3, 2)


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.close()
    for call in (
        lambda: engine.chat("x"),
        lambda: engine.stream("x"),
        lambda: engine.generate("x"),
        lambda: engine.batch(["x"]),
        lambda: engine.embed("x"),
        lambda: engine.tokenize("x"),
        lambda: engine.detokenize([0]),
        lambda: engine.memory(),
    ):
        with pytest.raises(LoadError, match="echo is closed"):
            call()
    assert "closed" in repr(engine)


def test_closing_ends_what_another_thread_waits_for(slow: Engine) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            slow.chat("one two")
        except LoadError as error:
            errors.append(error)

    with slow.stream("takes the only slot") as stream:
        next(stream)
        waiting = threading.Thread(target=wait)
        waiting.start()
        while slow.stats()["in_flight"] < 2:
            pass
        slow.close()
        waiting.join(5)
        with pytest.raises(LoadError, match="closed while it answered"):
            list(stream)
    assert len(errors) == 1


def test_an_embedding_needs_texts(engine: Engine) -> None:
    for wrong in ([], "", ["a", ""], [3]):
        with pytest.raises(ConfigError, match="no text to embed"):
            engine.embed(wrong)  # type: ignore[arg-type]


def test_the_same_engine_with_await(engine: Engine) -> None:
    async def use() -> None:
        aio = engine.aio
        assert (await aio.chat("hello there")).text == "hello there"
        async with aio.stream("one two") as stream:
            pieces = [chunk.text async for chunk in stream if chunk.text]
        assert pieces == ["one", " two"]
        assert stream.text == stream.reply.text == "one two"
        assert (await aio.generate("a b c", max_tokens=2)).text == "a b"
        answers = await aio.batch(["x", 3, "y"], progress=False)  # type: ignore[list-item]
        assert (text_of(answers[0]), type(answers[1]), text_of(answers[2])) == ("x", ConfigError, "y")
        assert (await aio.embed(["a"])).embeddings == engine.embed("a").embeddings
        assert await aio.detokenize(await aio.tokenize("round trip")) == "round trip"
        assert (await aio.stats())["finished"] == 5
        assert (await aio.memory()).to_dict() == {"host_bytes": None, "device_bytes": []}
        assert aio.info is engine.info
        await aio.close()
        with pytest.raises(LoadError):
            await aio.chat("x")

    asyncio.run(use())


def test_many_at_once_from_one_loop() -> None:
    async def use() -> list[str]:
        async with echo(slots=4).aio as aio:
            replies = await asyncio.gather(*(aio.chat(f"number {number}") for number in range(20)))
        return [reply.text for reply in replies]

    assert asyncio.run(use()) == [f"number {number}" for number in range(20)]


def test_a_cancelled_task_cancels_its_request(slow: Engine) -> None:
    async def use() -> None:
        task = asyncio.create_task(slow.aio.chat("one two"))
        await asyncio.sleep(0)
        assert slow.stats()["in_flight"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async for _ in slow.aio.stream("one two"):
            break
        gc.collect()

    asyncio.run(use())
    assert (slow.stats()["in_flight"], slow.stats()["cancelled"]) == (0, 2)

"""Router's own face: fields, aliases, fallbacks, batches, and what it tells about itself."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from servers.fault import FaultServer, hello, plain

import hydra_infer as hydra
from hydra_infer import AsyncRouter, Backend, ConfigError, Router

pytestmark = pytest.mark.usefixtures("no_leaks")


def sent(server: FaultServer, index: int = -1) -> dict[str, Any]:
    body = json.loads(server.requests[index][3])
    assert isinstance(body, dict)
    return body


def test_fields_travel_and_a_near_miss_is_an_error() -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        reply = router.chat("m", "hi", temperature=0, dry_multiplier=0.8, extra_body={"temprature": 1}, seed=None)
        assert sent(server) == {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0,
            "dry_multiplier": 0.8,
            "temprature": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert reply.warnings == ("the field 'dry_multiplier' is not one of OpenAI's; it was passed on as it is",)
        for slip, meant in [
            ("temprature", "temperature"),
            ("max_token", "max_tokens"),
            ("timout", "timeout"),
            ("deadlin", "deadline"),
        ]:
            with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
                router.chat("m", "hi", **{slip: 1})
        assert len(server.requests) == 1
        router.close()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda router: router.chat("m", "hi", stream=True), "router.stream"),
        (lambda router: router.chat("", "hi"), "model=''"),
        (lambda router: router.chat("m", []), "messages"),
        (lambda router: router.chat("m", [{"content": "x"}]), r"messages\[0\]"),
        (lambda router: router.chat("m", "hi", timeout=0), "timeout=0"),
        (lambda router: router.chat("m", "hi", deadline="soon"), "deadline='soon'"),
        (lambda router: router.chat("m", "hi", extra_headers={"Authorization": "x"}), "belongs to its Backend"),
        (lambda router: router.embed("m", []), "texts"),
        (lambda router: router.embed("m", ["a", 1]), "texts"),
    ],
)
def test_bad_arguments_are_named_before_anybody_is_asked(call: Any, words: str) -> None:
    router = Router([Backend.openai("nowhere.invalid", models=["m"])])
    with pytest.raises(ConfigError, match=words):
        call(router)
    router.close()


def test_settings_that_cannot_be_are_named() -> None:
    row = Backend.openai("a", models=["m"])
    with pytest.raises(ConfigError, match="list of Backends"):
        Router([])
    with pytest.raises(ConfigError, match="fallbacks names the model 'n'"):
        Router([row], fallbacks={"m": ["n"]})
    with pytest.raises(ConfigError, match="aliases names the model 'n'"):
        Router([row], aliases={"gpt-4": "n"})
    with pytest.raises(ConfigError, match="strategy='best'"):
        Router([row], strategy="best")


def test_aliases_fallbacks_and_that_a_substitute_is_visible() -> None:
    with FaultServer(plain({}, 500)) as big, FaultServer(hello("small")) as small:
        router = Router(
            [
                Backend.openai(big.url, models=["llama-70b"], name="big"),
                Backend.openai(small.url, models={"llama-8b": "l8"}, name="small"),
            ],
            aliases={"gpt-4": "llama-70b"},
            fallbacks={"llama-70b": ["llama-8b"]},
            retries=0,
        )
        reply = router.chat("gpt-4", "hi")
        assert (reply.text, reply.model, reply.backend) == ("hello from small", "llama-8b", "small")
        assert reply.warnings == ("answered by 'llama-8b' instead of 'llama-70b'",)
        with pytest.raises(hydra.AllBackendsFailed):
            router.chat("gpt-4", "hi", fallback=False)
        with pytest.raises(hydra.AllBackendsFailed):
            router.embed("llama-70b", "x")
        assert len(small.requests) == 1
        router.close()


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="a")])
        found = router.embed("m", ["first", "second"])
        assert (found.embeddings, found.usage.prompt_tokens, found.backend) == ([[1.0], [2.0]], 2, "a")
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
        router.close()


def test_complete_sends_the_prompt_as_it_is() -> None:
    body = {"object": "text_completion", "model": "x", "choices": [{"index": 0, "text": " a time", "finish_reason": "length"}]}
    with FaultServer(plain(body)) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        assert router.complete("m", "Once upon", max_tokens=3).text == " a time"
        assert server.requests[0][1] == "/v1/completions"
        assert sent(server)["prompt"] == "Once upon"
        router.close()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_batch_keeps_its_order_with_errors_in_place(face: str) -> None:
    def answer(body: bytes) -> Any:
        text = json.loads(body)["messages"][0]["content"]
        return (
            plain({}, 422)
            if text == "3"
            else plain({"choices": [{"index": 0, "message": {"content": f"<{text}>"}, "finish_reason": "stop"}]})
        )

    with FaultServer(answer) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        progress: list[float] = []
        prompts, options = [str(index) for index in range(6)], {"progress": lambda fraction, _: progress.append(fraction)}
        asked: Any = router.batch if face == "sync" else lambda *args, **more: asyncio.run(router.aio.batch(*args, **more))
        replies = asked("m", prompts, **options, parallel=2)
        assert [reply.text if isinstance(reply, hydra.Reply) else type(reply).__name__ for reply in replies] == [
            "<0>",
            "<1>",
            "<2>",
            "Refused",
            "<4>",
            "<5>",
        ]
        assert progress == [done / 6 for done in range(1, 7)]
        assert asked("m", []) == []
        router.close()


def test_leaving_a_batch_cancels_its_calls() -> None:
    async def main() -> None:
        with FaultServer([30.0]) as server:
            async with AsyncRouter([Backend.openai(server.url, models=["m"])]) as router:
                batch = asyncio.create_task(router.batch("m", ["a", "b", "c"], parallel=2))
                while len(server.requests) < 2:  # noqa: ASYNC110 - the server is a thread and knows no loop
                    await asyncio.sleep(0.01)
                batch.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await batch
                assert await asyncio.to_thread(server.left.wait, 5)
                assert len(server.requests) == 2  # the third was never asked
                assert router._board.pool.places[0].in_flight == 0

    asyncio.run(main())


def test_what_breaks_a_batch_is_raised_as_it_is() -> None:
    def refuse(fraction: float, message: str) -> None:
        raise ZeroDivisionError

    with FaultServer(hello("a")) as server, Router([Backend.openai(server.url, models=["m"])]) as router:
        with pytest.raises(ZeroDivisionError):
            router.batch("m", ["a", "b"], progress=refuse)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(router.aio.batch("m", ["a", "b"], progress=refuse))


@pytest.mark.parametrize("face", ["sync", "async"])
def test_usage_is_counted_for_every_way_of_asking(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="a", output_cost_per_token=0.001)])
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        if face == "sync":
            router.chat("m", "hi")
            list(router.stream("m", "hi"))
            router.client().post("/chat/completions", json=body)
        else:

            async def main() -> None:
                await router.aio.chat("m", "hi")
                async for _ in await router.aio.stream("m", "hi"):
                    pass
                await router.aio.client().post("/chat/completions", json=body)

            asyncio.run(main())
        ((backend, model, entry),) = router.usage()
        assert (backend, model, entry.answers, entry.completion_tokens, entry.cost) == ("a", "m", 3, 9, pytest.approx(0.009))
        assert json.loads(json.dumps(router.usage().to_dict())) == router.usage().to_dict()
        router.close()


def test_explain_asks_nobody_and_tells_why() -> None:
    with FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        router = Router(
            [Backend.openai(bad.url, models={"m": "x"}, name="bad"), Backend.openai(good.url, models=["m"], name="good")]
        )
        assert router.explain("m", "hi").order == ["bad", "good"]
        assert (bad.requests, good.requests) == ([], [])
        router.chat("m", "hi")
        told = router.explain("m")
        assert told.order == ["good"]
        assert "resting 30 s more: HTTP 500" in str(told)
        assert told.to_dict()["options"][0]["asked"] is False
        easy, hard = (
            Backend.openai("e", models=["m"], name="e", tags="easy"),
            Backend.openai("h", models=["m"], name="h", tags="hard"),
        )
        by_rule = Router([easy, hard], strategy="difficulty")
        assert (by_rule.explain("m", "hi").order, by_rule.explain("m", "x" * 3000).order) == (["e", "h"], ["h", "e"])
        with pytest.raises(hydra.UnknownModel, match="did you mean"):
            Router([Backend.openai("a", models=["mistral"])]).explain("mistrall")
        router.close()


def test_status_tells_reachable_from_not_and_keeps_secrets() -> None:
    with FaultServer(hello("a")) as server, FaultServer(plain({"error": "bad key"}, 401)) as locked:
        rows = [
            Backend.openai(server.url, name="up", api_key="sk-secret"),
            Backend.openai("127.0.0.1:9", name="down", models=["m"]),
            Backend.openai(locked.url, name="locked", models=["m"], api_key="sk-wrong"),
        ]
        router = Router(rows)
        for status in (router.status(), asyncio.run(router.aio.status())):
            assert [(row.name, row.reachable, row.models) for row in status] == [
                ("up", True, ("m",)),
                ("down", False, ("m",)),
                ("locked", False, ("m",)),
            ]
            assert status["locked"].error == "HTTP 401: bad key"
            assert not status.healthy
            assert "sk-" not in str(status) + json.dumps(status.to_dict()) + repr(router)
        assert router.models() == {"m": ["up", "down", "locked"]}
        router.close()


def test_two_backends_at_one_address_keep_apart() -> None:
    rows = [Backend.openai("a", models=["m"], tags="x"), Backend.openai("a", models=["n"], tags="y")]
    assert repr(Router(rows)) == "Router(a, a#2)"


def test_one_router_from_many_threads_and_several_loops() -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        texts: list[str] = []

        def sync() -> None:
            texts.extend(router.chat("m", "hi").text for _ in range(5))

        def loop() -> None:
            async def main() -> None:
                replies = await asyncio.gather(*(router.aio.chat("m", "hi") for _ in range(5)))
                texts.extend(reply.text for reply in replies)

            asyncio.run(main())

        threads = [threading.Thread(target=target) for target in [sync] * 8 + [loop] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert texts == ["hello from a"] * 60
        assert router._board.pool.places[0].in_flight == 0
        router.close()


def test_an_async_router_of_its_own() -> None:
    async def main(url: str) -> str:
        async with AsyncRouter([Backend.openai(url, models=["m"])], strategy="shuffle") as router:
            assert router.explain("m").strategy == "shuffle"
            found = await router.embed("m", "x")
            assert len(found.embeddings) == 2
            assert list(await router.models()) == ["m"]
            return (await router.chat("m", "hi")).text

    with FaultServer(hello("a")) as server:
        assert asyncio.run(main(server.url)) == "hello from a"


def test_an_async_stream_opens_in_every_way_that_is_usual() -> None:
    async def main(router: Router) -> list[str]:
        texts = ["".join([chunk.text async for chunk in router.aio.stream("m", "hi")])]
        async with router.aio.stream("m", "hi") as stream:
            texts.append("".join([chunk.text async for chunk in stream]))
        awaited = await router.aio.stream("m", "hi")
        texts.append("".join([chunk.text async for chunk in awaited]))
        router.aio.stream("m", "hi")  # not used: nobody is asked
        with pytest.raises(ConfigError, match="did you mean"):
            router.aio.stream("m", "hi", temprature=0)
        return [*texts, stream.reply.text]

    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        assert asyncio.run(main(router)) == ["hello from a"] * 4
        assert len(server.requests) == 3
        router.close()

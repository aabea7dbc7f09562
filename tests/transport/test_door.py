"""The Router under foreign SDKs: bytes, headers, errors, and the openai package itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import httpx2
import openai
import pytest
from servers.fault import CUT, FaultServer, chunked, hello, plain, sse, word
from servers.ollama import OllamaServer
from transport.faces import FACES

from hydra_infer import Backend, Router
from hydra_infer.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_leaks")

FAMILIES = {"httpx": httpx, "httpx2": httpx2}
every_door = pytest.mark.parametrize(
    ("face", "family"), [(face, family) for face in FACES for family in FAMILIES], indirect=["face"]
)


def send(face: str, router: Router, family: str, method: str, path: str, body: bytes = b"", **more: Any) -> Any:
    """One request through router.client(family), by either face, read to its end."""
    if face == "sync":
        with router.client(family) as client:
            return client.request(method, f"http://hydra.invalid{path}", content=body, **more)

    async def main() -> Any:
        async with router.aio.client(family) as client:
            return await client.request(method, f"http://hydra.invalid{path}", content=body, **more)

    return asyncio.run(main())


def ask(face: str, router: Router, family: str, **fields: Any) -> Any:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    return send(face, router, family, "POST", "/v1/chat/completions", body)


def events(response: Any) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in response.content.split(b"\n\n") if line]
    return [line if line == b"[DONE]" else json.loads(line) for line in lines]


@every_door
def test_a_body_passes_through_with_only_the_models_name_changed(face: str, family: str) -> None:
    data = b'{"model":"m", "messages": [{"role":"user","content":"\\u00e9"}], "min_p": 0.050, "new": {"a":[1, 2.0]}}'
    answer = (
        b'{"id":"x", "model":"local", "object":"chat.completion", "n": 1.50, "choices":[{"index":0,"message":{"content":"hi"}}]}'
    )
    with FaultServer(plain(answer)) as server:
        router = Router([Backend.openai(server.url, models={"m": "local/name"}, api_key="right")])
        headers = {"authorization": "Bearer wrong", "cookie": "a=b", "x-stainless-lang": "python", "traceparent": "00-1-2-01"}
        response = send(face, router, family, "POST", "/v1/chat/completions", data, headers=headers)
        assert server.requests[0][3] == data.replace(b'"m"', b'"local/name"')
        sent = server.requests[0][2]
        assert sent["authorization"] == "Bearer right"
        assert sent["traceparent"] == "00-1-2-01"
        assert not {"cookie", "x-stainless-lang"} & sent.keys()
        assert response.content == answer.replace(b'"local"', b'"m"')
        assert response.headers["x-hydra-model"] == "m"
        router.close()


@every_door
def test_a_stream_passes_through_and_the_usage_we_asked_for_is_taken_out(face: str, family: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="a")])
        got = events(ask(face, router, family, stream=True))
        assert got[-1] == b"[DONE]"
        assert "".join(event["choices"][0]["delta"]["content"] for event in got[:-1]) == "hello from a"
        assert {event["model"] for event in got[:-1]} == {"m"}
        asked = events(ask(face, router, family, stream=True, stream_options={"include_usage": True}))
        assert asked[-2]["usage"]["total_tokens"] == 4
        router.close()


@every_door
def test_failover_shows_in_the_headers(face: str, family: str) -> None:
    with FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        router = Router([Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")])
        response = ask(face, router, family)
        assert response.json()["choices"][0]["message"]["content"] == "hello from good"
        assert response.headers["x-hydra-backend"] == "good"
        assert response.headers["x-hydra-attempts"] == "bad=failed, good=answered"
        router.close()


@every_door
def test_a_broken_stream_ends_in_an_error_event_with_the_text_so_far(face: str, family: str) -> None:
    with FaultServer(chunked(word("so"), word(" far"), CUT, end=False)) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="bad")])
        last = events(ask(face, router, family, stream=True))[-1]
        assert (last["error"]["code"], last["error"]["backend"], last["error"]["text"]) == ("stream_broken", "bad", "so far")
        router.close()


@every_door
def test_everything_that_fails_is_answered_and_nothing_raises_through_the_client(face: str, family: str) -> None:
    with FaultServer(plain({"detail": "broken"}, 500)) as bad:
        router = Router([Backend.openai(bad.url, models=["m"], name="bad")], retries=0)
        failed = ask(face, router, family)
        assert (failed.status_code, failed.headers["x-should-retry"]) == (503, "false")
        assert failed.json()["error"]["attempts"][0]["backend"] == "bad"
        unknown = send(face, router, family, "POST", "/v1/chat/completions", b'{"model": "n"}')
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        for body in (b"", b"[]", b"{}", b'{"model": 1}', b'{"model": "m", "stream": "yes"}'):
            assert send(face, router, family, "POST", "/v1/chat/completions", body).status_code == 400
        assert send(face, router, family, "GET", "/v1/chat/completions").status_code == 405
        assert send(face, router, family, "POST", "/v1/responses", b"{}").status_code == 400
        assert send(face, router, family, "GET", "/v1/responses/resp_1").status_code == 404
        assert send(face, router, family, "POST", "/v1/audio/speech", b"{}").status_code == 501
        router.close()


@every_door
def test_the_callers_mistake_is_returned_as_it_came(face: str, family: str) -> None:
    mistake = {"error": {"message": "no", "type": "invalid_request_error", "extra": 1}}
    with FaultServer(plain(mistake, 422)) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        response = ask(face, router, family)
        assert (response.status_code, response.json(), response.headers["x-should-retry"]) == (422, mistake, "false")
        router.close()


@every_door
def test_a_clients_own_timeout_bounds_a_plain_call_and_a_streams_first_token(face: str, family: str) -> None:
    with FaultServer([30.0]) as stuck, FaultServer(hello("good")) as good:
        router = Router([Backend.openai(stuck.url, models=["m"]), Backend.openai(good.url, models=["m"])])
        body = b'{"model": "m", "messages": []}'
        late = send(face, router, family, "POST", "/v1/chat/completions", body, timeout=0.3)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        streamed = send(
            face, router, family, "POST", "/v1/chat/completions", b'{"model": "m", "messages": [], "stream": true}', timeout=0.3
        )
        assert streamed.headers["x-hydra-backend"] == good.url.removeprefix("http://")
        router.close()


@every_door
def test_the_model_list_is_the_routers(face: str, family: str) -> None:
    with FaultServer(plain({"data": [{"id": "theirs"}]})) as server:
        router = Router(
            [Backend.openai(server.url, name="a"), Backend.openai("dead.invalid", models=["m"], name="b")], aliases={"gpt-4": "m"}
        )
        rows = send(face, router, family, "GET", "/v1/models").json()["data"]
        assert [(row["id"], row["owned_by"]) for row in rows] == [("theirs", "a"), ("m", "b"), ("gpt-4", "b")]
        router.close()


@every_door
def test_a_server_that_does_not_stream_still_gives_a_stream(face: str, family: str) -> None:
    body = {
        "model": "local",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
    }
    with FaultServer(plain(body)) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        first, done = events(ask(face, router, family, stream=True))
        assert (first["choices"][0]["delta"]["content"], first["object"], done) == ("whole", "chat.completion.chunk", b"[DONE]")
        router.close()


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="httpx3"):
        Router([Backend.openai("a")]).client("httpx3")


MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_openai_package_sync(family: str) -> None:
    with FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        router = Router([Backend.openai(bad.url, models=["m"]), Backend.openai(good.url, models=["m"])], cooldown=0.001)
        made = openai.OpenAI(base_url="http://hydra.invalid/v1", api_key="-", http_client=router.client(family))
        for client in (made, router.openai()):
            reply = client.chat.completions.create(model="m", messages=MESSAGES)
            assert (reply.choices[0].message.content, reply.model) == ("hello from good", "m")
            pieces = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "hello from good"
            assert [row.id for row in client.models.list()] == ["m"]
            vectors = client.embeddings.create(model="m", input=["x", "y"], encoding_format="float")
            assert [row.embedding for row in sorted(vectors.data, key=lambda row: row.index)] == [[1.0], [2.0]]
            client.close()
        assert router.chat("m", "hi").text == "hello from good"  # an SDK closing its client closes nothing of ours
        router.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_openai_package_async(family: str) -> None:
    async def main() -> None:
        made = openai.AsyncOpenAI(base_url="http://hydra.invalid/v1", api_key="-", http_client=router.aio.client(family))
        for client in (made, router.aio.openai()):
            reply = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert reply.choices[0].message.content == "hello from good"
            pieces = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            assert "".join([piece.choices[0].delta.content or "" async for piece in pieces]) == "hello from good"
            replies = await asyncio.gather(*(client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(20)))
            assert len(replies) == 20
            await client.close()
        await router.aio.close()

    with FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        router = Router([Backend.openai(bad.url, models=["m"]), Backend.openai(good.url, models=["m"])])
        asyncio.run(main())
        router.close()


def test_a_broken_stream_is_an_api_error_with_a_body_in_the_openai_package() -> None:
    with FaultServer(chunked(word("so far"), sse({"error": "aborted"}))) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        pieces = []
        with pytest.raises(openai.APIError) as caught:
            for piece in router.openai().chat.completions.create(model="m", messages=MESSAGES, stream=True):
                pieces.append(piece)  # noqa: PERF402 - what had come must be there when it raises
        assert len(pieces) == 1
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["text"] == "so far"
        router.close()


def test_sdks_do_not_retry_what_the_router_has_given_up() -> None:
    with FaultServer(plain({}, 500)) as bad:
        router = Router([Backend.openai(bad.url, models=["m"])], retries=0)
        client = openai.OpenAI(
            base_url="http://hydra.invalid/v1", api_key="-", http_client=router.client("httpx2"), max_retries=2
        )
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="m", messages=MESSAGES)
        assert len(bad.requests) == 1
        router.close()


def test_no_foreign_environment_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        assert router.openai().chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == "hello from a"
        assert "sk-from" not in str(server.requests)
        router.close()


# ---- the Responses API -----------------------------------------------------------------------------------------------

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


def test_responses_plain_streamed_and_with_a_tool(ollama_server: OllamaServer) -> None:
    with Router([Backend.ollama(ollama_server.url, {"m": "llama3.1:8b"})]) as router:
        create = router.openai().responses.create
        assert create(model="m", input="one two", instructions="be brief").output_text == "one two"
        events = list(create(model="m", input="one two", stream=True))
        assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["one", " two"]
        assert events[-1].type == "response.completed"
        assert events[-1].response.usage is not None
        assert events[-1].response.usage.output_tokens == 2
        first = create(model="m", input="how is it?", tools=[WEATHER])
        called = first.output[0]
        assert called.type == "function_call"
        assert (called.name, called.arguments) == ("weather", '{"city": "Basel"}')
        result: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "sunny"}
        told: Any = [{"role": "user", "content": "how is it?"}, called.model_dump(), result]
        assert create(model="m", input=told, tools=[WEATHER]).output_text == "sunny"
        with pytest.raises(openai.NotFoundError, match="chat completions"):
            create(model="m", input="hi", previous_response_id="resp_1")


def test_responses_from_an_event_loop_and_one_that_breaks(ollama_server: OllamaServer) -> None:
    async def main(router: Router) -> None:
        async with router.aio.openai() as client:
            assert (await client.responses.create(model="m", input="one two")).output_text == "one two"
            events: list[Any] = []
            with pytest.raises(openai.APIError, match="out of memory") as caught:
                async for event in await client.responses.create(model="m", input="[[oom_mid]][[delay:0.02]]a b c d", stream=True):
                    events.append(event)  # noqa: PERF401 - what had come must be there when the stream breaks
            assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "a b c"
            assert isinstance(caught.value.body, dict)
            assert caught.value.body["text"] == "a b c"

    with Router([Backend.ollama(ollama_server.url, {"m": "llama3.1:8b"})]) as router:
        asyncio.run(main(router))

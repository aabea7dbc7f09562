"""Web clients on `serve`, word for word: Open WebUI (backend/open_webui/routers/openai.py) and SillyTavern
(src/endpoints/backends/chat-completions.js and text-completions.js). What they send was read in their sources, not copied."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from servers.fault import FaultServer, plain
from servers.listening import listening
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, Router
from hydra_infer.serve import App

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = "ours"


@contextlib.contextmanager
def fleet(api_key: str | None = KEY, **options: Any) -> Iterator[tuple[httpx.Client, FaultServer]]:
    """A client without a base of its own, of a server over one that fails and a TabbyAPI; and the one that fails."""
    with FaultServer(plain({}, 500)) as bad, TabbyServer(["Llama-70B"], "Llama-70B") as tabby:
        backends = [
            Backend.openai(bad.url, models=["llama"], name="bad"),
            Backend.tabby(tabby.url, {"llama": "Llama-70B"}, api_key=API_KEY, name="tabby"),
        ]
        with (
            Router(backends, retries=0) as router,
            listening(App(router, api_key=api_key, **options)) as (url, _),
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield client, bad


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream that ends as OpenAI's does."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")  # by which both tell a stream from a refusal
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def text(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def test_open_webui_lists_chats_and_names_the_chat() -> None:
    # With ENABLE_FORWARD_USER_INFO_HEADERS; names are percent-encoded.
    person = {"X-OpenWebUI-User-Name": "J%C3%B8rgen", "X-OpenWebUI-User-Id": "1", "X-OpenWebUI-Chat-Id": "c-1"}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **person}
    with fleet() as (client, bad):
        listed = client.get("/v1/models", headers=headers).json()
        assert [row["id"] for row in listed["data"]] == ["llama"]
        body = {
            "model": "llama",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "params": {},
            "features": {"web_search": False},
            "temperature": 0.7,
            "logit_bias": {},
        }
        events = chunks(client.post("/v1/chat/completions", headers=headers, json=body))
        assert text(events) == "one two"
        assert events[-1]["usage"]["completion_tokens"] == 2
        assert bad.requests[-1][1] == "/v1/chat/completions"  # it was asked first, and the client saw nothing of it
        assert not {"authorization", *map(str.lower, person)} & bad.requests[-1][2].keys()

        title = {
            "model": "llama",
            "messages": [{"role": "user", "content": "title"}],
            "stream": False,
            "max_completion_tokens": 1000,
        }
        assert (
            client.post("/v1/chat/completions", headers=headers, json=title).json()["choices"][0]["message"]["content"] == "title"
        )


def test_open_webui_checks_a_connection_and_shows_why_it_failed() -> None:
    with fleet() as (client, _):
        for key in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}):
            refused = client.get("/v1/models", headers=key)
            assert refused.status_code == 401
            assert "API key" in refused.json()["error"]["message"]
        unknown = client.post(
            "/v1/chat/completions",
            headers={"Authorization": f"Bearer {KEY}"},
            json={"model": "gone", "messages": [{"role": "user", "content": "hi"}], "stream": True},
        )
        assert (unknown.status_code, "gone" in unknown.json()["error"]["message"]) == (404, True)


def test_open_webui_in_the_browser_asks_for_leave_first() -> None:
    """A direct connection: the page's own fetch. What a browser makes of these headers is tests/browser's to say."""
    origin = "http://localhost:3000"
    asking = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    with fleet(cors=origin) as (client, _):
        leave = client.options("/v1/chat/completions", headers=asking)  # a preflight carries no key
        assert leave.is_success
        assert leave.headers["access-control-allow-origin"] == origin
        listed = client.get("/v1/models", headers={"Origin": origin, "Authorization": f"Bearer {KEY}"})
        assert listed.headers["access-control-allow-origin"] == origin
        refused = client.get("/v1/models", headers={"Origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            origin,
        )  # so that the page can say why


@pytest.mark.parametrize("base", ["/v1", "/v1/", ""])
def test_sillytavern_as_a_custom_source(base: str) -> None:
    """Its address may end in a slash, to which it adds one more; without a key in its settings it still sends the header."""
    headers = {"Authorization": "Bearer null", "Content-Type": "application/json"}
    with fleet(api_key=None) as (client, _):
        assert [row["id"] for row in client.get(f"{base}/models", headers=headers).json()["data"]] == ["llama"]
        # JSON.stringify leaves undefined fields out; what its settings do not know travels as null or empty.
        body = {
            "messages": [
                {"role": "system", "content": "Write the next reply."},
                {"role": "assistant", "content": "Hello, traveller."},
                {"role": "user", "content": "one two", "name": "You"},
            ],
            "model": "llama",
            "temperature": 1,
            "max_tokens": 300,
            "stream": True,
            "presence_penalty": -0.5,
            "frequency_penalty": 0,
            "top_p": 1,
            "top_k": 0,
            "stop": [],
            "logit_bias": {},
            "seed": -1,
            "logprobs": False,
        }
        assert text(chunks(client.post(f"{base}/chat/completions", headers=headers, json=body))) == "one two"
        whole = client.post(f"{base}/chat/completions", headers=headers, json={**body, "stream": False}).json()
        assert whole["choices"][0]["message"]["content"] == "one two"


def test_sillytavern_as_a_generic_text_completion() -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with FaultServer(plain({"choices": [{"index": 0, "text": " far away", "finish_reason": "stop"}]})) as server:
        with (
            Router([Backend.openai(server.url, models=["llama"])]) as router,
            listening(App(router, api_key=KEY)) as (url, _),
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            body = {
                "model": "llama",
                "prompt": "Once,",
                "max_tokens": 64,
                "temperature": 0.7,
                "top_p": 0.5,
                "presence_penalty": 0,
                "stop": ["\nYou:"],
                "seed": -1,
                "stream": False,
            }
            answer = client.post("/v1/completions", headers=headers, json=body)
            assert answer.json()["choices"][0]["text"] == " far away"
        assert json.loads(server.requests[-1][3]) == body  # nothing added, nothing lost


def test_when_every_server_is_down_they_show_a_sentence_and_do_not_ask_again() -> None:
    with (
        FaultServer(plain({}, 500)) as bad,
        Router([Backend.openai(bad.url, models=["m"])], retries=0) as router,
        listening(App(router)) as (url, _),
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 503  # SillyTavern asks up to five times again after 429, and after nothing else
        assert answer.json()["error"]["message"]
        assert len(bad.requests) == 1

"""The Router as a server, under a real uvicorn, asked by the openai package and by hand."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from servers.fault import CUT, FaultServer, chunked, hello, plain, word
from servers.listening import listening
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, ConfigError, Router
from hydra_infer.serve import OWN, App, serve
from hydra_infer.wire.question import PATHS

pytestmark = pytest.mark.usefixtures("no_leaks")

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@contextlib.contextmanager
def serving(*backends: Backend, **options: Any) -> Iterator[httpx.Client]:
    """A client of a server over these backends."""
    with (
        Router(list(backends), retries=0) as router,
        listening(App(router, **options)) as (url, _),
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def test_the_openai_package_plain_and_streamed() -> None:
    with FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        backends = [
            Backend.openai(bad.url, models=["m"], name="bad"),
            Backend.openai(good.url, models=["m"], name="good", api_key="theirs"),
        ]
        with serving(*backends, api_key="ours") as client:
            sdk = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="ours", max_retries=0)
            messages: Any = BODY["messages"]
            assert sdk.chat.completions.create(model="m", messages=messages).choices[0].message.content == "hello from good"
            pieces = sdk.chat.completions.create(model="m", messages=messages, stream=True)
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "hello from good"
            assert [row.id for row in sdk.models.list()] == ["m"]
            assert len(sdk.embeddings.create(model="m", input="x", encoding_format="float").data) == 2
            sdk.close()
        assert {headers["authorization"] for _, _, headers, _ in good.requests} == {"Bearer theirs"}


def test_the_responses_api_by_the_openai_package(tabby_server: TabbyServer) -> None:
    with serving(Backend.tabby(tabby_server.url, {"m": "Llama-70B"}, api_key=API_KEY)) as client:
        sdk = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="-", max_retries=0)
        assert sdk.responses.create(model="m", input="one two").output_text == "one two"
        with sdk.responses.stream(model="m", input="one two") as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            assert (deltas, stream.get_final_response().output_text) == (["one", " two"], "one two")
        tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
        called = sdk.responses.create(model="m", input="how is it?", tools=[tool])
        assert [(item.type, getattr(item, "name", "")) for item in called.output] == [("function_call", "weather")]
        sdk.close()


def test_keys_health_metrics_and_paths() -> None:
    with FaultServer(hello("a")) as server, serving(Backend.openai(server.url, models=["m"], name="a"), api_key="ours") as client:
        assert client.get("/health").json() == {"status": "ok"}
        for key in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer ünknown".encode("latin-1")}):
            assert client.post("/v1/chat/completions", json=BODY, headers=key).status_code == 401
        assert server.requests == []
        right = {"authorization": "Bearer ours"}
        assert client.post("/v1/chat/completions", json={**BODY, "stream": True}, headers=right).headers["x-hydra-backend"] == "a"
        assert 'hydra_completion_tokens_total{backend="a",model="m"} 3' in client.get("/metrics", headers=right).text
        kept = client.post("/v1/responses", json={"model": "m", "input": "hi", "previous_response_id": "resp_1"}, headers=right)
        assert (kept.status_code, "switch the client to chat completions" in kept.json()["error"]["message"]) == (404, True)
        assert client.post("/v1/chat/completions", content=b"{", headers=right).status_code == 400
        assert "access-control-allow-origin" not in client.get("/health").headers


def test_cors_only_for_the_origin_that_was_named() -> None:
    with serving(Backend.openai("nobody.invalid", models=["m"]), cors="http://localhost:3000") as client:
        told = client.options("/v1/chat/completions").headers
        assert told["access-control-allow-origin"] == "http://localhost:3000"
        assert "authorization" in told["access-control-allow-headers"].split(", ")  # the wildcard does not cover it


def test_a_silent_server_is_bridged_by_pings_and_a_late_failure_is_an_error_event() -> None:
    slow = FaultServer([0.5, *chunked(word("late"), 0.5, word("", "stop"))], [0.5, *plain({}, 500)], [0.5, *plain({}, 500)])
    with slow as server, serving(Backend.openai(server.url, models=["m"]), ping=0.1) as client:
        answer = client.post("/v1/chat/completions", json={**BODY, "stream": True}).text
        assert answer.startswith(": ping")
        assert answer.index("late") < answer.rindex(": ping") < answer.index("[DONE]")
        late = client.post("/v1/chat/completions", json={**BODY, "stream": True})
        assert late.status_code == 200
        assert json.loads(late.text.split("data: ")[1])["error"]["code"] == "all_backends_failed"
        plain_call = client.post("/v1/chat/completions", json={**BODY, "stream": False})
        assert plain_call.status_code == 503  # nothing was committed before it was known


def test_a_broken_stream_tells_the_text_so_far() -> None:
    with (
        FaultServer(chunked(word("so"), word(" far"), CUT, end=False)) as server,
        serving(Backend.openai(server.url, models=["m"])) as client,
    ):
        last = client.post("/v1/chat/completions", json={**BODY, "stream": True}).text.split("data: ")[-1]
        assert json.loads(last)["error"]["text"] == "so far"


@pytest.mark.parametrize(
    "script", [[30.0], chunked(word("one"), *[word("more"), 0.05] * 400)], ids=["before a token", "in mid-stream"]
)
def test_a_client_that_leaves_stops_the_work(script: list[Any]) -> None:
    with FaultServer(script) as server, serving(Backend.openai(server.url, models=["m"], max_parallel=1)) as client:
        with (
            contextlib.suppress(httpx.ReadTimeout),
            client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}, timeout=0.3) as answer,
        ):
            next(answer.iter_bytes())
        assert server.left.wait(5)


def test_routers_that_ask_each_other_in_a_circle_stop() -> None:
    with FaultServer(hello("a")) as server, serving(Backend.openai(server.url, models=["m"])) as client:
        assert client.post("/v1/chat/completions", json=BODY, headers={"x-hydra-hops": "2"}).status_code == 200
        assert server.requests[-1][2]["x-hydra-hops"] == "3"
        for hops in ("3", "many"):
            assert client.post("/v1/chat/completions", json=BODY, headers={"x-hydra-hops": hops}).status_code == 508


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-box", ""])
def test_an_open_door_beyond_loopback_is_refused(host: str) -> None:
    with Router([Backend.openai("a", models=["m"])]) as router, pytest.raises(ConfigError, match=f"host='{host}'"):
        serve(router, host=host)


def test_what_is_described_is_what_is_answered() -> None:
    """Every place, by every method; `make test-schema` compares what is in the answers."""
    with FaultServer(hello("a")) as server, serving(Backend.openai(server.url, models=["m"]), api_key="ours") as client:
        described = client.get("/openapi.json").json()
        places = {path: {method.upper() for method in methods} for path, methods in described["paths"].items()}
        assert places.keys() == {*OWN, "/v1/models", "/v1/responses", *(f"/v1{path}" for path in PATHS)}
        right = {"authorization": "Bearer ours"}
        for path, methods in places.items():
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "QUERY"):
                if path == "/live/events" and method in methods:
                    continue  # its answer has no end
                needs_key = "security" in described["paths"][path].get(method.lower(), {})
                if method in methods:
                    assert client.request(method, path, json=BODY).status_code == (401 if needs_key else 200), (method, path)
                asked = {"model": "m", "input": "x"} if path.endswith(("/embeddings", "/responses")) else BODY
                answer = client.request(method, path, json=asked, headers=right)
                assert answer.status_code == (200 if method in methods else 405), (method, path)
                if method not in methods:
                    assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods


@pytest.mark.parametrize("hops", ["²", "9" * 5000, "-1", "1e1"])
def test_hops_that_are_no_number_are_a_circle(hops: str) -> None:
    with serving(Backend.openai("nobody.invalid", models=["m"])) as client:
        answer = client.get("/v1/models", headers=[(b"x-hydra-hops", hops.encode("latin-1"))])
        assert (answer.status_code, len(answer.text) < 300) == (508, True)


def test_a_web_page_cannot_ask_as_a_form_does() -> None:
    """A request of these types is sent to any address without a preflight; without a key it would be answered."""
    with FaultServer(hello("a")) as server, serving(Backend.openai(server.url, models=["m"])) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = client.post("/v1/chat/completions", content=json.dumps(BODY), headers={"content-type": kind})
            assert answer.status_code == 415
        assert server.requests == []
        said = {"content-type": "application/json; charset=utf-8"}
        assert client.post("/v1/chat/completions", content=json.dumps(BODY), headers=said).status_code == 200
        assert client.post("/v1/chat/completions", content=json.dumps(BODY)).status_code == 200


def test_a_models_name_is_no_header() -> None:
    """Names come from servers; one with a line break in it would begin another header."""
    name = "m\r\nset-cookie: a=b"
    with FaultServer(hello("a")) as server, serving(Backend.openai(server.url, models=[name])) as client:
        answer = client.post("/v1/chat/completions", json={**BODY, "model": name})
        assert (answer.status_code, answer.headers["x-hydra-model"]) == (200, "m??set-cookie: a=b")
        assert "set-cookie" not in answer.headers


def test_a_client_that_does_not_go_on_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.serve.BODY_SECONDS", 0.2)
    with serving(Backend.openai("nobody.invalid", models=["m"])) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=10) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_refusal_that_is_no_json_is_told_as_json() -> None:
    page = plain(b"<h1>Bad Request</h1>", 400, "text/html")
    with FaultServer(page) as server, serving(Backend.openai(server.url, models=["m"])) as client:
        answer = client.post("/v1/chat/completions", json=BODY)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
        assert answer.json()["error"]["code"] == "bad_request"


def test_a_port_that_cannot_be_is_named() -> None:
    with Router([Backend.openai("http://a", models=["m"])]) as router, pytest.raises(ConfigError, match="port=80999 is no port"):
        serve(router, port=80999)

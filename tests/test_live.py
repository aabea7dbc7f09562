"""The live page over HTTP: what its events say, who may see them, and that it costs nothing while nobody looks."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from servers.fault import FaultServer, hello, plain
from servers.listening import listening
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, Router
from hydra_infer.live import Live
from hydra_infer.serve import App, serve

pytestmark = pytest.mark.usefixtures("no_leaks")


@contextlib.contextmanager
def shown(*backends: Backend, **options: Any) -> Iterator[tuple[httpx.Client, Router, App]]:
    """A server over these backends whose page is quick."""
    with Router(list(backends), retries=0) as router:
        app = App(router, **options)
        app.live = Live(router._board, tick=0.01, look=0.05)
        with listening(app) as (url, server):
            app.live.closing = lambda: server.should_exit
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                yield client, router, app


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_the_events_tell_of_servers_models_tokens_and_failovers() -> None:
    with TabbyServer(["Llama-70B"], "Llama-70B") as tabby, FaultServer(plain({}, 500)) as bad, FaultServer(hello("good")) as good:
        backends = [
            Backend.openai(bad.url, models=["m"], name="bad"),
            Backend.openai(good.url, models=["m"], name="good", max_parallel=2),
            Backend.tabby(tabby.url, {"llama": "Llama-70B"}, api_key=API_KEY, name="tabby"),
            Backend.openai("http://127.0.0.1:9", models=["x"], name="gone"),
        ]
        with shown(*backends) as (client, router, _), client.stream("GET", "/live/events") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            coming = events(answer)
            first = next(coming)
            assert [(row["name"], row["reachable"]) for row in first["backends"]] == [
                ("bad", False),
                ("good", True),
                ("tabby", True),
                ("gone", False),
            ]
            assert [row["loaded"] for row in first["backends"]] == [None, None, ["Llama-70B"], None]
            assert [row["slots"] for row in first["backends"]][:2] == [None, 2]
            assert (first["queued"], first["troubles"], first["completion_tokens"]) == (0, [], 0)

            router.chat("m", "hi")
            seen = next(event for event in coming if event["answers"])
            texts = [re.sub(r"\d+\.\d+ s", "… s", trouble["text"]) for trouble in seen["troubles"]]
            assert texts == [
                "bad: left alone for … s, failed for m",
                "bad: failed for m after … s",
                "good: answered for m after … s, attempt 2",
            ]
            assert [trouble["good"] for trouble in seen["troubles"]] == [False, False, True]
            assert abs(seen["troubles"][0]["at"] - time.time()) < 60
            assert (seen["completion_tokens"], seen["backends"][0]["state"]) == (3, "resting")


def test_calls_in_line_are_counted() -> None:
    with (
        FaultServer(hello("a")) as server,
        shown(Backend.openai(server.url, models=["m"], max_parallel=1)) as (client, router, _),
    ):
        pool = router._board.pool
        assert pool.reserve(pool.places[0])
        ticket = pool.queue(pool.places)
        with client.stream("GET", "/live/events", timeout=5) as answer:
            seen = next(events(answer))
        assert (seen["queued"], seen["backends"][0]["in_flight"], seen["backends"][0]["state"]) == (1, 1, "full")
        pool.leave(ticket)
        pool.release(pool.places[0])
        assert (pool.waiting(), router.status().queued) == (0, 0)


def test_nobody_is_asked_while_nobody_looks_and_once_for_all_who_do() -> None:
    with FaultServer(hello("a")) as server, shown(Backend.openai(server.url, models=["m"])) as (client, _, app):
        client.get("/")
        assert server.requests == []
        app.live._every = 60.0
        with client.stream("GET", "/live/events") as one, client.stream("GET", "/live/events") as two:
            comings = events(one), events(two)
            assert next(comings[0]) == next(comings[1])
            assert app.live.watchers == 2
        assert len(server.requests) == 1
        ends_at = time.monotonic() + 5
        while app.live._looking is not None:
            assert time.monotonic() < ends_at
            time.sleep(0.01)
        assert (app.live.watchers, app.live._looks) == (0, None)


def test_the_page_needs_no_key_tells_nothing_and_its_events_do() -> None:
    with FaultServer(hello("a")) as server:
        backends = [Backend.openai(server.url, models=["m"], name="secret-box", api_key="theirs")]
        with shown(*backends, api_key="ours") as (client, _, _):
            page = client.get("/")
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "secret-box" not in page.text
            for wrong in ({}, {"authorization": "Bearer wrong"}):
                assert client.get("/live/events", headers=wrong).status_code == 401
            assert client.get("/live/events?key=ours").status_code == 401  # keys do not belong in addresses
            with client.stream("GET", "/live/events", headers={"authorization": "Bearer ours"}) as answer:
                told = json.dumps(next(events(answer)))
            assert "secret-box" in told
            assert "theirs" not in told
            assert "ours" not in told
            assert client.post("/", headers={"authorization": "Bearer ours"}).status_code == 405


def test_the_page_may_run_its_own_script_and_fetch_nothing_from_elsewhere() -> None:
    with shown(Backend.openai("http://127.0.0.1:9", models=["m"])) as (client, _, _):
        page = client.get("/")
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; connect-src 'self'; img-src data:; script-src 'sha256-")
        assert "unsafe" not in policy
        assert not re.search(r"https?://|innerHTML|\son\w+=| style=", page.text)
        assert client.head("/").status_code == 200


def test_a_server_that_stops_does_not_wait_for_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[uvicorn.Server] = []

    class Known(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(uvicorn, "Server", Known)
    with FaultServer(hello("a")) as server, Router([Backend.openai(server.url, models=["m"])]) as router:
        thread = threading.Thread(target=serve, args=(router,), kwargs={"port": 0}, name="hydra-test-serve")
        thread.start()
        while not (made and made[0].started):
            assert thread.is_alive()
            time.sleep(0.01)
        port = made[0].servers[0].sockets[0].getsockname()[1]
        with httpx.stream("GET", f"http://127.0.0.1:{port}/live/events", timeout=20, trust_env=False) as answer:
            coming = events(answer)
            next(coming)
            made[0].should_exit = True
            list(coming)  # ends
        thread.join(20)
        assert not thread.is_alive()

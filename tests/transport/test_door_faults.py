"""The same faults through foreign clients: httpx and httpx2, plain and streamed, sync and async."""

from __future__ import annotations

from typing import Any

import pytest
from servers.fault import FaultServer, hello
from transport.test_door import ask, events, every_door
from transport.test_failover import AFTER_THE_FIRST_TOKEN, BEFORE_AN_ANSWER

from hydra_infer import Backend, Router

pytestmark = pytest.mark.usefixtures("no_leaks")


def routed(*servers: FaultServer, **settings: Any) -> Router:
    backends = [
        Backend.openai(server.url, models=["m"], name=name) for server, name in zip(servers, ("bad", "good"), strict=True)
    ]
    return Router(backends, **settings)


@every_door
@pytest.mark.parametrize("fault", BEFORE_AN_ANSWER)
def test_before_an_answer_the_next_one_answers(face: str, family: str, fault: str) -> None:
    with FaultServer(BEFORE_AN_ANSWER[fault]) as bad, FaultServer(hello("good")) as well:
        router = routed(bad, well, first_token_timeout=0.2, timeout=0.3)
        streamed = ask(face, router, family, stream=True)
        said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events(streamed)[:-1])
        assert (streamed.status_code, said, events(streamed)[-1]) == (200, "hello from good", b"[DONE]")
        assert streamed.headers["x-hydra-backend"] == "good"
        assert [len(bad.requests), len(well.requests)] == [1, 1]
        router.close()
        router = routed(bad, well, timeout=0.3)
        whole = ask(face, router, family)
        assert (whole.status_code, whole.json()["choices"][0]["message"]["content"]) == (200, "hello from good")
        assert [len(bad.requests), len(well.requests)] == [2, 2]
        router.close()


@every_door
@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
def test_after_the_first_token_the_stream_ends_in_an_error_event_with_the_text(face: str, family: str, fault: str) -> None:
    with FaultServer(AFTER_THE_FIRST_TOKEN[fault]) as bad, FaultServer(hello("good")) as well:
        router = routed(bad, well, idle_timeout=0.2)
        answer = ask(face, router, family, stream=True)
        assert answer.status_code == 200
        *_, last = events(answer)
        assert last["error"]["text"] == "so far"
        assert b"[DONE]" not in events(answer)
        assert well.requests == []
        router.close()

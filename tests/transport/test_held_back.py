"""Silence with tools offered: TabbyAPI and Ollama hold a tool call back and send it whole, so they are asked first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers.fault import FaultServer, chunked, plain, sse
from transport.faces import both, stream

from hydra_infer import Backend, DeadlineExceeded, Router, StreamBroken

pytestmark = pytest.mark.usefixtures("no_leaks")

TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}]
LOADED = plain({"id": "m", "parameters": {"max_seq_len": 4096}})
PING = b": ping\r\n\r\n"
PIECES = [
    {"index": index, "id": f"c{index}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for index in range(64)
]


def piece(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **({"eos_reason": "stop_token"} if finish else {})}
    return sse({"object": "chat.completion.chunk", "model": "m", "choices": [choice]})


class Tabby(FaultServer):
    """Says a word, then pings for so many seconds, then sends 64 tool calls at once; `loaded` answers the looks."""

    def __init__(self, seconds: float, *loaded: Any) -> None:
        self._loaded = list(loaded) or [LOADED]
        pings = [part for _ in range(int(seconds / 0.1)) for part in (0.1, PING)]
        self._pieces = [piece({"content": "Well: "}), *pings, piece({"tool_calls": PIECES}, "tool_calls"), sse(b"[DONE]")]
        super().__init__(self._answer)

    def _answer(self, body: bytes) -> Any:
        if body:
            return chunked(*self._pieces)
        path = self.requests[-1][1]
        if path == "/v1/models":
            return plain({"data": [{"id": "m"}]})
        return self._loaded.pop(0) if len(self._loaded) > 1 else self._loaded[0]

    def looks(self) -> int:
        return sum(path == "/v1/model" for _, path, _, _ in self.requests) - 1  # the first look comes before the call


def router(server: FaultServer, **settings: Any) -> Router:
    return Router([Backend.tabby(server.url, ["m"])], **{"idle_timeout": 0.3, "timeout": 20.0, **settings})


@both
def test_a_tool_call_of_64_pieces_after_a_silence_of_pings_arrives_whole(face: str) -> None:
    with Tabby(1.2) as server:
        asking = router(server)
        reply = stream(face, asking, [], tools=TOOLS)
        assert len(reply.tool_calls) == 64
        assert (reply.text, reply.finish_reason) == ("Well: ", "tool_calls")
        assert server.looks() >= 2  # once at each idle_timeout
        asking.close()


@both
def test_a_model_that_is_unloaded_meanwhile_breaks_the_stream(face: str) -> None:
    gone = plain({"detail": "No models are currently loaded."}, 503)
    with Tabby(20.0, LOADED, LOADED, gone) as server:
        asking, pieces = router(server), []  # type: tuple[Router, list[str]]
        with pytest.raises(StreamBroken, match="the model is not loaded there now") as broken:
            stream(face, asking, pieces, tools=TOOLS)
        assert (broken.value.text, server.looks()) == ("Well: ", 2)
        asking.close()


@both
@pytest.mark.parametrize("look", [plain({"id": "other"}), plain(b"<html>"), [30.0]], ids=["another", "nonsense", "silence"])
def test_only_a_clear_yes_goes_on(face: str, look: Any) -> None:
    with Tabby(20.0, LOADED, look) as server:
        asking = router(server)
        with pytest.raises(StreamBroken):
            stream(face, asking, [], tools=TOOLS)
        asking.close()


@both
def test_the_gap_ends_at_timeout_and_the_call_at_its_deadline(face: str) -> None:
    with Tabby(20.0) as server:
        asking = router(server, timeout=0.8)
        with pytest.raises(StreamBroken, match="for that long within timeout"):
            stream(face, asking, [], tools=TOOLS)
        with pytest.raises(DeadlineExceeded):
            stream(face, asking, [], tools=TOOLS, deadline=0.5)
        asking.close()


@both
def test_without_tools_nobody_is_asked(face: str) -> None:
    with Tabby(20.0) as server:
        asking = router(server)
        with pytest.raises(StreamBroken, match="within idle_timeout"):
            stream(face, asking, [])
        assert server.looks() == 0
        asking.close()


@both
def test_ollama_is_asked_by_its_own_path(face: str) -> None:
    def line(**fields: Any) -> bytes:
        return json.dumps(fields).encode() + b"\n"

    call = {"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, "done": False}
    body = chunked(line(message={"content": "Well"}), 0.8, line(**call), line(done=True, done_reason="stop"))
    loaded = plain({"models": [{"name": "m", "context_length": 4096}]})
    with FaultServer(plain({"models": [{"name": "m"}]}), loaded, body, loaded) as server:
        asking = Router([Backend.ollama(server.url, ["m"])], idle_timeout=0.3)
        assert stream(face, asking, [], tools=TOOLS).tool_calls[0]["function"]["name"] == "f"
        assert [path for _, path, _, _ in server.requests][2:] == ["/api/chat", "/api/ps", "/api/ps"]
        asking.close()

"""What a call does with its bytes: each body parsed once, and passed on as it came where nothing must be said otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from servers.fault import FaultServer, chunked, plain, sse, word
from transport.faces import both

from hydra_infer import Backend, Router
from hydra_infer.wire import bounds, splice

pytestmark = pytest.mark.usefixtures("no_leaks")

ANSWER = {"object": "chat.completion", "model": "local", "choices": [{"index": 0, "message": {"content": "x" * 99}}]}
QUESTION = b'{ "model":"m", "messages":[{"role":"user","content":"hi"}], "temperature":0.50 }'
STREAMED = QUESTION.replace(b'"temperature"', b'"stream":true, "temperature"')
CHUNKS = 20


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what is parsed as JSON from now on; strings and numbers left out."""
    lengths: list[int] = []
    scan, loads = splice._scan, json.loads

    def scanned(text: str) -> Any:
        lengths.append(len(text))
        return scan(text)

    def loaded(text: Any, **options: Any) -> Any:
        lengths.append(len(text))
        return loads(text, **options)

    class Decoder(json.JSONDecoder):
        def raw_decode(self, text: str, start: int = 0) -> tuple[Any, int]:
            lengths.append(len(text))
            return super().raw_decode(text, start)

    monkeypatch.setattr(splice, "_scan", scanned)
    monkeypatch.setattr(bounds, "_decoder", Decoder())
    monkeypatch.setattr(json, "loads", loaded)
    return lengths


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is written as JSON from now on, texts left out: those are names."""
    values: list[Any] = []
    dumps = json.dumps

    def dumped(value: Any, **options: Any) -> str:
        if not isinstance(value, str):
            values.append(value)
        return dumps(value, **options)

    monkeypatch.setattr(json, "dumps", dumped)
    return values


def asked(face: str, server: FaultServer, question: bytes, local_name: str) -> bytes:
    """The bytes that a foreign client gets."""
    router = Router([Backend.openai(server.url, models={"m": local_name})])
    desk = router.desk()
    if face == "sync":
        _, body = desk.handle("POST", "/v1/chat/completions", (), question, None)
        whole = b"".join(body)
    else:

        async def main() -> bytes:
            _, body = await desk.ahandle("POST", "/v1/chat/completions", (), question, None)
            return b"".join([part async for part in body])

        whole = asyncio.run(main())
    router.close()
    return whole


def pieces(model: str) -> Iterator[bytes]:
    for number in range(CHUNKS):
        yield word(f"{number} ", model=model)
    yield word("", "stop", model=model)


@both
def test_a_whole_body_is_parsed_once_and_passed_on_untouched(face: str, parsed: list[int], written: list[Any]) -> None:
    data = json.dumps({**ANSWER, "model": "m"}, indent=2).encode()
    written.clear()
    with FaultServer(plain(data)) as server:
        assert asked(face, server, QUESTION, "m") == data
        assert server.requests[0][3] == QUESTION
    assert parsed == [len(QUESTION), len(data)]
    assert written == []


@both
def test_another_name_changes_the_name_and_nothing_else(face: str, parsed: list[int], written: list[Any]) -> None:
    data = json.dumps(ANSWER, indent=2).encode()
    written.clear()
    with FaultServer(plain(data)) as server:
        assert asked(face, server, QUESTION, "local") == data.replace(b'"local"', b'"m"')
        assert server.requests[0][3] == QUESTION.replace(b'"m"', b'"local"')
    assert parsed == [len(QUESTION), len(data)]
    assert written == []


@both
@pytest.mark.parametrize("name", ["m", "local"])
def test_each_chunk_is_parsed_once_and_passed_on_untouched(face: str, name: str, parsed: list[int], written: list[Any]) -> None:
    sent, wanted = list(pieces(name)), b"".join(pieces("m")) + b"data: [DONE]\n\n"
    with FaultServer(chunked(*sent, sse(b"[DONE]"))) as server:
        written.clear()
        assert asked(face, server, STREAMED, name) == wanted
    assert parsed == [len(STREAMED), *(len(piece) - len("data: \n\n") for piece in sent)]
    assert written == [{"include_usage": True}]  # what the question gets that its caller did not say

"""The TabbyAPI stand-in against what the real application answered, request by request (tests/data/tabby_answers.json)."""

from __future__ import annotations

import functools
import json
import threading
import time
from typing import Any

import httpx
import pytest
from servers.mind import by_engine, words
from servers.ollama import OllamaServer
from servers.recorded import differences
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer

import hydra_infer as hydra

NO_EXL2 = (
    "Models quantized with 'exl2' require the exllamav2 backend, which is no longer supported. "
    "Please use an exl3 or unquantized model."
)
NO_CONFIG = "Failed to load config.json from models/draft"
ENGINE_MISSING = "The exllamav3 backend is selected, but required dependencies are not installed."
# The folders of the two recorded runs, in the order in which the file system listed them.
WITHOUT_ENGINE = {
    ".cache": Folder(),
    "FakeA-8B-exl3-4.0bpw": Folder(fails=ENGINE_MISSING),
    "FakeB-70B-EXL2-3.5bpw": Folder(fails=NO_EXL2),
    "draft": Folder(fails=NO_CONFIG),
}
WITH_ENGINE = {
    "Draft-1B-exl3": Folder(modules=4),
    "empty-folder": Folder(fails="no config.json"),
    "Slow-70B-exl3-4.0bpw": Folder(modules=20),
    "Oom-70B-exl3-6.0bpw": Folder(modules=12, fails="Insufficient VRAM in split for model and cache", fails_at=7),
    "Good-8B-exl3-4.0bpw": Folder(),
    "Legacy-70B-EXL2-3.5bpw": Folder(fails=NO_EXL2),
    "Good-70B-exl3-4.0bpw": Folder(),
    "NoTemplate-8B-exl3": Folder(template=False),
}
API, ADMIN = {"authorization": f"Bearer {API_KEY}"}, {"authorization": f"Bearer {ADMIN_KEY}"}
MESSAGES = [{"role": "user", "content": "one two three"}]


def test_without_a_model_it_answers_as_recorded() -> None:
    with TabbyServer(WITHOUT_ENGINE) as server:
        assert differences(server.url, "without an engine") == {}


def test_with_models_it_answers_as_recorded() -> None:
    with TabbyServer(WITH_ENGINE, mind=functools.partial(words, count=12), ping=1.0) as server:
        assert differences(server.url, "with an engine") == {}


# ---- what no single answer shows -------------------------------------------------------------------------------------


def test_an_unload_cuts_a_plain_answer_as_if_it_had_stopped_and_leaves_a_stream_hanging() -> None:
    with TabbyServer(["A"], "A", ping=0.05) as server, httpx.Client(base_url=server.url, headers=API, trust_env=False) as client:
        body = {"messages": [{"role": "user", "content": "[[n:400]][[delay:0.01]]"}]}
        plain: list[Any] = []
        asking = threading.Thread(target=lambda: plain.append(client.post("/v1/chat/completions", json=body).json()))
        asking.start()
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()
            while "tok" not in next(lines):
                pass
            assert client.post("/v1/model/unload", headers=ADMIN).status_code == 200
            asking.join()
            pings = [
                line for line, _ in zip((line for line in lines if line), range(8), strict=False) if line.startswith(": ping")
            ]
            assert pings
        assert server.left.wait(5)
        choice = plain[0]["choices"][0]
        assert (choice["finish_reason"], choice["eos_reason"], choice["stop_str"]) == ("stop", None, None)
        assert client.get("/v1/model").status_code == 503


def test_a_load_goes_on_without_its_client_and_another_one_queues_behind_it() -> None:
    folders = {"A": Folder(seconds=0.3), "B": Folder(seconds=0.1)}
    with TabbyServer(folders) as server, httpx.Client(base_url=server.url, headers=ADMIN, trust_env=False) as client:
        with client.stream("POST", "/v1/model/load", json={"model_name": "A"}) as loading:
            next(loading.iter_bytes())
        chat = client.post("/v1/chat/completions", json={"model": "A", "messages": MESSAGES})
        assert (chat.status_code, chat.text) == (500, "Internal Server Error")
        client.close()  # the server may end a connection on which it failed, and a request on it would be lost
        assert httpx.get(f"{server.url}/health", trust_env=False).json()["status"] == "healthy"  # all the same
        again = httpx.post(f"{server.url}/v1/model/load", json={"model_name": "B"}, headers=ADMIN, trust_env=False)
        assert again.text.endswith('"status":"finished"}\r\n\r\n')
        assert ([load["model_name"] for load in server.loads], server.loaded) == (["A", "B"], "B")


def test_tools_are_called_whole_at_the_end_and_thinking_is_told_apart() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}
    with (
        TabbyServer(["A"], "A", reasoning=True) as server,
        httpx.Client(base_url=server.url, headers=API, trust_env=False) as client,
    ):
        body = {"messages": [{"role": "user", "content": "[[think]]hi"}], "stream": True}
        thought = client.post("/v1/chat/completions", json=body).text
        assert thought.count("reasoning_content") == 2
        called = client.post("/v1/chat/completions", json={**body, "messages": MESSAGES, "tools": [tool]}).text.split("\r\n\r\n")
        choice = json.loads(called[0].removeprefix("data: "))["choices"][0]
        assert (choice["finish_reason"], choice["delta"]["tool_calls"][0]["function"]["arguments"]) == ("tool_calls", "{}")
        assert called[1:] == ["data: [DONE]", ""]


def test_who_asks_beyond_its_slots_waits_in_line() -> None:
    with TabbyServer(["A"], "A", slots=1) as server, httpx.Client(base_url=server.url, headers=API, trust_env=False) as client:
        ended: list[int] = []

        def call(number: int) -> None:
            client.post("/v1/completions", json={"prompt": "[[n:5]][[delay:0.02]]", "max_tokens": 5})
            ended.append(number)

        callers = [threading.Thread(target=call, args=(number,)) for number in range(3)]
        for number, caller in enumerate(callers):
            caller.start()
            while len(server.requests) <= number:
                time.sleep(0.01)
        for caller in callers:
            caller.join()
        assert ended == [0, 1, 2]


@pytest.mark.model
def test_real_tokens() -> None:
    with (
        hydra.load("smollm2", context=512, threads=1, progress=False) as engine,
        TabbyServer(["SmolLM2"], "SmolLM2", mind=by_engine(engine)) as tabby,
        OllamaServer(["smollm2"], mind=by_engine(engine)) as ollama,
        hydra.Router(
            [
                hydra.Backend.tabby(tabby.url, {"m": "SmolLM2"}, api_key=API_KEY, name="tabby"),
                hydra.Backend.ollama(ollama.url, {"m": "smollm2"}, name="ollama"),
            ]
        ) as router,
    ):
        asked = {"max_tokens": 12, "temperature": 0}
        first = router.chat("m", "What is the capital of France?", **asked)
        tabby.close()
        second = router.chat("m", "What is the capital of France?", **asked)
        assert (first.backend, second.backend) == ("tabby", "ollama")
        assert first.text == second.text == engine.chat("What is the capital of France?", **asked).text

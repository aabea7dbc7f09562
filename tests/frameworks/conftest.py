"""A Router for foreign clients: TabbyAPI has nothing loaded, so every call moves on to Ollama and is translated both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.ollama import OllamaServer
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, Router


@pytest.fixture
def router() -> Iterator[Router]:
    with TabbyServer(["Llama-70B"]) as tabby, OllamaServer(["llama3.1:8b"]) as ollama:
        backends = [
            Backend.tabby(tabby.url, {"llama": "Llama-70B"}, api_key=API_KEY, name="tabby"),
            Backend.ollama(ollama.url, {"llama": "llama3.1:8b"}, name="ollama"),
        ]
        with Router(backends, cooldown=0.01) as router:
            yield router
            assert {backend for backend, _, _ in router.usage()} <= {"ollama"}
            assert "/v1/models" in tabby.paths  # it was asked, and found empty

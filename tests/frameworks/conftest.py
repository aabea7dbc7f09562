"""A Router for foreign clients: TabbyAPI has nothing loaded, so every call moves on to Ollama and is translated both ways."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What this environment has, whatever the verbosity."""
    terminalreporter.write_line("with " + ", ".join(_named()))


def _named() -> Iterator[str]:
    packages = "openai openai-agents pydantic-ai-slim langchain-openai langchain-core llama-index-core smolagents httpx httpx2"
    for package in packages.split():
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue  # the other environment has it

"""What all tests share."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from servers.ollama import OllamaServer
from servers.tabby import TabbyServer


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there before the first test is nobody's leak. Looking through it after each would take a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """A test leaves no thread of ours running (named hydra-*), and no object whose end raises a warning."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    ends_at = time.monotonic() + 5
    while left := [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("hydra-")]:
        assert time.monotonic() < ends_at, f"threads left running: {left}"
        time.sleep(0.01)


@pytest.fixture
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The face to ask by; "async-httpcore" stands for a machine without aiohttp."""
    face, _, library = request.param.partition("-")
    if library == "httpcore":
        monkeypatch.setitem(sys.modules, "aiohttp", None)
    return face


@pytest.fixture
def tabby_server() -> Iterator[TabbyServer]:
    """TabbyAPI with one model, loaded."""
    with TabbyServer(["Llama-70B"], "Llama-70B") as server:
        yield server


@pytest.fixture
def ollama_server() -> Iterator[OllamaServer]:
    """Ollama with one model, on disk."""
    with OllamaServer(["llama3.1:8b"]) as server:
        yield server

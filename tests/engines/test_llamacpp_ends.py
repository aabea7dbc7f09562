"""Every way in which a llama.cpp engine can end: nothing of it is left, and everybody hears of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from hydra_infer import planning
from hydra_infer.engines.engine import Engine
from hydra_infer.engines.load import load
from hydra_infer.errors import LoadError, StreamBroken
from hydra_infer.models.bundled import model_file

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("no_leaks")]

LONG = "Write a very long story about the sea."


@pytest.fixture
def own() -> Iterator[Engine]:
    """An engine that a test may break."""
    with load("smollm2", context=512, threads=1, progress=False) as engine:
        yield engine


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what another thread or process is about to bring about."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_a_server_that_dies_in_mid_stream(own: Engine) -> None:
    stream = own.stream(LONG, max_tokens=400)
    with pytest.raises(StreamBroken, match="ended with status") as caught:
        for chunk in stream:
            if chunk.text and stream.text == chunk.text:
                os.kill(own.stats()["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
    assert caught.value.text
    assert caught.value.text.startswith(stream.text)
    assert caught.value.backend == "llamacpp"
    for call in (lambda: own.chat("Hi"), lambda: own.embed("x"), lambda: own.tokenize("x")):
        with pytest.raises(LoadError, match="ended with status"):
            call()
    assert own.stats()["alive"] is False
    assert own.memory().host is None


def test_closing_leaves_nothing_and_loading_again_works() -> None:
    pids = []
    for _ in range(2):
        engine = load("smollm2", context=256, threads=1, progress=False)
        pids.append(engine.stats()["pid"])
        stream = engine.stream(LONG, max_tokens=200)
        next(stream)
        engine.close()
        with pytest.raises(LoadError, match="closed while it answered"):
            list(stream)
        with pytest.raises(LoadError, match="is closed"):
            engine.chat("Hi")
    for pid in pids:
        assert gone(pid)


def test_an_engine_that_is_forgotten_takes_its_process_along() -> None:
    engine = load("smollm2", context=256, threads=1, progress=False)
    pid = engine.stats()["pid"]
    del engine
    eventually(lambda: gone(pid))


def test_progress_and_a_plan() -> None:
    told: list[tuple[float, str]] = []
    plan = planning.plan(model_file("smollm2"), gpus=[], context=256, slots=2, cache="q8")
    with load(plan, threads=1, progress=lambda part, what: told.append((part, what))) as engine:
        assert (engine.info.context, engine.info.slots, engine.info.cache) == (256, 2, "q8_0")
        assert engine.info.model == "SmolLM2-135M-Instruct.Q4_1"
        assert engine.chat("Hi", max_tokens=2).text
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert told[-1] == (1.0, "SmolLM2-135M-Instruct.Q4_1 is loaded")
    assert all(0.0 <= part <= 1.0 for part in parts)


def test_an_exception_while_loading_ends_the_process() -> None:
    def interrupt(_part: float, _what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load("smollm2", context=256, threads=1, progress=interrupt)


def gone(pid: int) -> bool:
    """Whether a child of ours is neither running nor waiting to be collected."""
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    return False

"""Loading: progress reaches the caller on its own thread, and whatever the caller raises cancels the load."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from hydra_infer.engines.loading import Loading
from hydra_infer.errors import LoadError


def test_progress_is_told_in_order_on_the_callers_thread() -> None:
    told: list[tuple[float, str, int]] = []
    loading = Loading(lambda fraction, message: told.append((fraction, message, threading.get_ident())))
    ready: Future[str] = Future()

    def load() -> None:
        for step in range(4):
            loading.report(step / 4, f"module {step}")
        ready.set_result("model")

    thread = threading.Thread(target=load)
    thread.start()
    loading.wait(ready)
    thread.join()
    assert [(fraction, message) for fraction, message, _ in told] == [(step / 4, f"module {step}") for step in range(4)]
    assert {ident for _, _, ident in told} == {threading.get_ident()}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("stop")])
def test_what_the_caller_raises_ends_the_load_at_its_next_step(error: BaseException) -> None:
    def refuse(fraction: float, _message: str) -> None:
        if fraction >= 0.5:
            raise error

    loading = Loading(refuse)
    ready: Future[str] = Future()
    steps: list[int] = []
    seen = threading.Event()

    def load() -> None:
        try:
            for step in range(1000):
                loading.report(0.5, "module")
                steps.append(step)
                seen.wait(0.01)
        except LoadError as cancelled:
            ready.set_exception(cancelled)

    thread = threading.Thread(target=load)
    thread.start()
    with pytest.raises(type(error)):
        loading.wait(ready)
    thread.join()
    assert len(steps) < 1000
    with pytest.raises(LoadError, match="cancelled"):
        ready.result()
    with pytest.raises(LoadError, match="cancelled"):
        loading.check()

"""The engine's thread: everything happens on it, every job ends, and it ends with the program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from hydra_infer.engines.job import Job
from hydra_infer.engines.thread import EngineThread
from hydra_infer.errors import HydraError, LoadError

pytestmark = pytest.mark.usefixtures("no_leaks")


class FakeStepper:
    """Gives each job one token per step, three in all; faults are attributes."""

    def __init__(self) -> None:
        self.threads: dict[str, set[int]] = {}
        self.left: dict[Job, int] = {}
        self.closed = False
        self.enqueue_error: Exception | None = None
        self.iterate_error: Exception | None = None
        self.cancel_error: Exception | None = None
        self.endless = False

    def enqueue(self, job: Job) -> None:
        self._note("enqueue")
        if self.enqueue_error:
            raise self.enqueue_error
        self.left[job] = 3

    def iterate(self) -> float:
        self._note("iterate")
        if self.iterate_error:
            raise self.iterate_error
        for job in list(self.left):
            job.put({"choices": [{"index": 0, "text": "x", "finish_reason": None}]})
            self.left[job] -= not self.endless
            if not self.left[job]:
                del self.left[job]
                job.finish()
        return 0.0

    def cancel(self, job: Job) -> None:
        self._note("cancel")
        if self.cancel_error:
            raise self.cancel_error
        self.left.pop(job, None)

    def close(self) -> None:
        self._note("close")
        self.closed = True

    def _note(self, what: str) -> None:
        self.threads.setdefault(what, set()).add(threading.get_ident())


@pytest.fixture
def stepper() -> FakeStepper:
    return FakeStepper()


@pytest.fixture
def thread(stepper: FakeStepper) -> Iterator[EngineThread]:
    thread = EngineThread(lambda: stepper)
    yield thread
    thread.close()


def test_everything_happens_on_the_one_thread(thread: EngineThread, stepper: FakeStepper) -> None:
    job = Job({}, on_cancel=thread.cancel)
    stepper.endless = True
    thread.submit(job)
    job.take()
    job.cancel()
    assert thread.call(threading.get_ident).result(5) == thread.ident
    thread.close()
    assert stepper.threads == {name: {thread.ident} for name in ("enqueue", "iterate", "cancel", "close")}
    assert thread.ident != threading.get_ident()


def test_an_event_loop_never_iterates(thread: EngineThread, stepper: FakeStepper) -> None:
    async def ask() -> tuple[int, int]:
        jobs = [Job({}) for _ in range(4)]
        for job in jobs:
            thread.submit(job)
        read = [event for job in jobs async for event in job]
        return threading.get_ident(), len(read)

    loop_thread, count = asyncio.run(ask())
    assert count == 12
    assert stepper.threads["iterate"] == {thread.ident}
    assert loop_thread not in stepper.threads["iterate"]


def test_what_making_raises_reaches_the_caller() -> None:
    def make() -> FakeStepper:
        raise LoadError("no such card")

    with pytest.raises(LoadError, match="no such card"):
        EngineThread(make)


def test_a_job_that_is_refused_harms_no_other(thread: EngineThread, stepper: FakeStepper) -> None:
    stepper.enqueue_error = AssertionError("too long")
    refused = Job({})
    thread.submit(refused)
    with pytest.raises(HydraError, match="AssertionError: too long"):
        list(refused)
    stepper.enqueue_error = None
    other = Job({})
    thread.submit(other)
    assert len(list(other)) == 3


def test_a_failing_step_fails_all_that_are_in_flight_and_nothing_later(thread: EngineThread, stepper: FakeStepper) -> None:
    stepper.endless = True
    jobs = [Job({}), Job({})]
    for job in jobs:
        thread.submit(job)
        job.take()
    stepper.iterate_error = RuntimeError("CUDA error")
    for job in jobs:
        with pytest.raises(HydraError, match="CUDA error"):
            list(job)
    stepper.iterate_error, stepper.endless = None, False
    assert stepper.left == {}
    later = Job({})
    thread.submit(later)
    assert len(list(later)) == 3


def test_an_engine_that_cannot_drop_a_job_is_over(thread: EngineThread, stepper: FakeStepper) -> None:
    stepper.endless = True
    stepper.cancel_error = RuntimeError("stuck")
    first, second = Job({}, on_cancel=thread.cancel), Job({})
    thread.submit(first)
    thread.submit(second)
    second.take()
    first.cancel()
    with pytest.raises(HydraError, match="stuck"):
        list(second)
    with pytest.raises(LoadError, match="stuck"):
        thread.submit(Job({}))


def test_closing_fails_what_is_in_flight(thread: EngineThread, stepper: FakeStepper) -> None:
    stepper.endless = True
    job = Job({})
    thread.submit(job)
    job.take()
    thread.close()
    with pytest.raises(LoadError, match="closed while it answered"):
        list(job)
    assert stepper.closed
    assert not thread.alive
    thread.close()
    with pytest.raises(LoadError, match="closed"):
        thread.submit(Job({}))
    thread.cancel(job)  # too late, and no error


def test_a_job_cancelled_before_it_was_taken_in_is_never_begun(thread: EngineThread, stepper: FakeStepper) -> None:
    job = Job({}, on_cancel=thread.cancel)
    job.cancel()
    thread.submit(job)
    thread.call(lambda: None).result(5)
    assert "enqueue" not in stepper.threads


def test_an_error_in_a_call_is_the_callers(thread: EngineThread) -> None:
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0).result(5)
    assert thread.call(lambda: 2).result(5) == 2


def test_a_program_that_forgets_to_close_still_ends() -> None:
    program = "import hydra_infer.engines.echo as e; engine = e.echo(); print(engine.chat('bye').text)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "bye\n"
    assert done.stderr == ""

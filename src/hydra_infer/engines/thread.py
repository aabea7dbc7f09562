"""EngineThread: the one thread that owns an engine which works step by step, from its loading to its end.

ExLlamaV3's tensor-parallel workers die with the thread that started them (PR_SET_PDEATHSIG, exllamav3 1.6.5,
model/model_tp.py), and CUDA work on an event loop would block it: so one long-lived thread does everything, and callers
only leave it messages.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ..errors import HydraError, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .job import Job

__all__ = ["EngineThread", "Stepper"]

T = TypeVar("T")

# How often a thread with nothing to do looks whether the program is over: long enough to cost nothing, short enough
# that nobody notices it at exit.
IDLE_POLL = 0.5


class Stepper(Protocol):
    """An engine that works in steps; every method is called on its EngineThread and nowhere else."""

    def enqueue(self, job: Job) -> None:
        """Take a job in. What it raises is that job's error."""

    def iterate(self) -> float:
        """One step for all jobs: puts events into them, finishes or fails each.

        Gives the seconds until there is something to do again; 0 for an engine that computes all the time. What it
        raises fails every job in flight.
        """

    def cancel(self, job: Job) -> None:
        """Drop a job; one that is not known is no error."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Stepper)


class EngineThread(Generic[S]):
    """Runs the Stepper that `make` builds (`stepper`), on one thread, until `close()` or the end of the program.

    The constructor returns when `make` has, and raises what it raised; `wait` does its waiting, on the caller's thread, and
    may do more meanwhile. The thread is not a daemon (it would be cut off inside CUDA at exit); instead it ends by itself
    when it is idle and the main thread is over.
    """

    def __init__(
        self,
        make: Callable[[], S],
        *,
        name: str = "hydra-engine",
        wait: Callable[[Future[S]], object] = Future.result,
    ) -> None:
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # Reentrant: cancel() may come out of a __del__ while this very thread is inside another call.
        self._door = threading.RLock()
        self._closed = False
        self._fault: HydraError | None = None
        self._active: list[Job] = []
        ready: Future[S] = Future()
        self._thread = threading.Thread(target=self._run, args=(make, ready), name=name)
        self._thread.start()
        try:
            wait(ready)
            self.stepper: S = ready.result()
        except BaseException:
            self._closed = True  # when the wait was interrupted, what is being made is closed again at once
            raise

    @property
    def ident(self) -> int | None:
        """The thread's identifier, as threading.get_ident() gives it."""
        return self._thread.ident

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Give a job to the engine. Raises LoadError when it is closed."""
        self._tell(lambda: self._enqueue(job))

    def cancel(self, job: Job) -> None:
        """Have the engine drop a job; nothing happens when the engine is closed."""
        with self._door:
            if not self._closed:
                self._commands.put(lambda: self._drop(job))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` on the thread, between two steps. Raises LoadError when the engine is closed."""
        future: Future[T] = Future()
        self._tell(lambda: _run_into(future, function))
        return future

    def close(self) -> None:
        """Fail what is in flight, close the engine, end the thread. Must not be called on the thread itself."""
        with self._door:
            self._closed = True
            self._commands.put(lambda: None)  # wakes it
        self._thread.join()

    def _tell(self, command: Callable[[], None]) -> None:
        with self._door:
            if self._closed:
                why = f"the engine ended: {self._fault}" if self._fault else "the engine is closed"
                raise LoadError(why, hint="load the model again")
            self._commands.put(command)

    # ---- on the thread

    def _run(self, make: Callable[[], S], ready: Future[S]) -> None:
        try:
            stepper = make()
        except BaseException as error:  # noqa: BLE001  whoever waits for `ready` must get it
            ready.set_exception(error)
            return
        self.stepper = stepper
        ready.set_result(stepper)
        pause = IDLE_POLL
        while not self._closed:
            self._obey(pause)
            pause = self._step() if self._active else IDLE_POLL
        # Nothing new comes in now, but whoever was let in before is waiting for an answer.
        self._obey(0)
        for job in self._active:
            job.fail(self._fault or LoadError("the engine was closed while it answered", hint="load the model again"))
        stepper.close()

    def _obey(self, pause: float) -> None:
        """Wait up to `pause` seconds for a command, then carry out all that are there."""
        try:
            command = self._commands.get(timeout=min(pause, IDLE_POLL)) if pause else self._commands.get_nowait()
            while True:
                command()
                command = self._commands.get_nowait()
        except queue.Empty:
            pass
        if not self._active and not threading.main_thread().is_alive():
            self._shut()

    def _step(self) -> float:
        try:
            pause = self.stepper.iterate()
        except Exception as error:  # noqa: BLE001  whatever an engine raises, its jobs must end
            pause = 0.0
            for job in self._active:
                self._drop(job)
                job.fail(_named(error))
        self._active = [job for job in self._active if not job.ended]
        return pause

    def _enqueue(self, job: Job) -> None:
        if job.ended:
            return
        if self._fault is not None:
            job.fail(self._fault)
            return
        try:
            self.stepper.enqueue(job)
        except Exception as error:  # noqa: BLE001  it is this job's error, and only this job's
            job.fail(_named(error))
        else:
            self._active.append(job)

    def _drop(self, job: Job) -> None:
        if self._fault is None:
            try:
                self.stepper.cancel(job)
            except Exception as error:  # noqa: BLE001  an engine that cannot even drop a job is over
                self._fault = _named(error)
                self._shut()

    def _shut(self) -> None:
        with self._door:
            self._closed = True


def _run_into(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001  it belongs to whoever holds the future
        future.set_exception(error)


def _named(error: Exception) -> HydraError:
    if isinstance(error, HydraError):
        return error
    named = HydraError(f"the engine failed: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named

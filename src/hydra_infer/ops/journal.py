"""The journal of a job that changes something in several steps: each is on the disk before it is done, so that none is forgotten.

    with Journal(path) as journal:                  # nobody else changes anything by this journal meanwhile
        if journal.job is None:                     # else: one that was interrupted, to be finished or undone first
            journal.begin("switch", server="tabby", new="A", old="B")
        for name in journal.job.left(("unload", "load", "verify")):
            with journal.step(name):                # written before the step; and again after it, unless it raised
                do(name, journal.job.facts)         # may run a second time: nobody knows how far it came the first
        journal.end("done")

A process that is killed leaves a job without an end, and its lock is free: that is what "interrupted" means. `find` looks for
one without taking the journal. The file is lines of JSON that are only ever added to; no secret belongs into it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import ConfigError, HydraError

__all__ = ["Job", "Journal", "beside", "find", "lock", "replay", "settle"]

# A look at the journal holds it for a moment; whoever wants to write waits that long for it.
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the journal tells it. `facts` are those it was begun with and those of its steps, later ones winning.

    `begun` and `done` are names of steps in the order of the file; `outcome` is None until its end was written. `at` is when
    it began, in ISO 8601.
    """

    kind: str
    at: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    begun: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    outcome: str | None = None

    @property
    def doing(self) -> str | None:
        """The step that was begun last and not done: it may have happened, in part or as a whole."""
        return self.begun[-1] if self.begun and self.begun[-1] not in self.done else None

    def left(self, steps: Sequence[str]) -> list[str]:
        """Those of `steps` that are not done, in their order."""
        return [name for name in steps if name not in self.done]


def replay(data: bytes, where: str = "the journal") -> tuple[Job, ...]:
    """Every job in a journal's bytes, in order. A last line without an end was never written, and is left out.

    Raises ConfigError naming the line for anything else that is no journal.
    """
    jobs: list[Job] = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            entry = json.loads(line)
            if "begin" in entry:
                jobs.append(Job(entry["begin"], entry["at"], entry["facts"]))
            else:
                jobs[-1] = _after(jobs[-1], entry)
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{where}:{number} is no line of a journal", hint="was it edited? move the file away") from error
    return tuple(jobs)


def _after(job: Job, entry: dict[str, Any]) -> Job:
    if job.outcome is not None:
        raise ValueError("a step after the end")
    if "end" in entry:
        return replace(job, outcome=entry["end"])
    facts = {**job.facts, **entry["facts"]}
    if "doing" in entry:
        return replace(job, facts=facts, begun=(*job.begun, entry["doing"]))
    return replace(job, facts=facts, done=(*job.done, entry["done"]))


def beside(file: str | os.PathLike[str]) -> Path:
    """Where the journal of the jobs of one configuration file lies: beside it, so that whoever uses the file finds it."""
    return Path(f"{os.fspath(file)}.journal")


def find(path: str | os.PathLike[str]) -> tuple[Job, bool] | None:
    """The last job where it has no end, and whether somebody is at it now; None where all ended. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            busy = not lock(file)
            jobs = replay(file.read(), os.fspath(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    return (jobs[-1], busy) if jobs and jobs[-1].outcome is None else None


class Journal:
    """The one who may write. `job` is the job that is open: begun here, or found interrupted."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Takes the journal, making the file where there is none.

        Raises ConfigError for a file that is none or cannot be written, HydraError where another process has it.
        """
        self._path = Path(path)
        try:
            made = not self._path.exists()
            self._file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if made:
                settle(self._path.parent)
            self._take()
            self._file.seek(0)
            data = self._file.read()
            jobs = replay(data, str(self._path))
            self._file.truncate(data.rfind(b"\n") + 1)
        except OSError as error:
            self._file.close()
            raise self._unwritable(error) from error
        except BaseException:
            self._file.close()
            raise
        self.job: Job | None = jobs[-1] if jobs and jobs[-1].outcome is None else None

    def begin(self, kind: str, **facts: Any) -> Job:
        """Open a job; `facts` are JSON. Raises HydraError where one is open already."""
        if self.job is not None:
            raise HydraError(f"the {self.job.kind} of {self.job.at} is not over", hint="finish or undo it first")
        at = _now()
        self._add({"begin": kind, "at": at, "facts": facts})
        self.job = Job(kind, at, facts)
        return self.job

    @contextmanager
    def step(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Around one step. What is put into the dict that it gives are facts found out, kept when the step is done."""
        self._enter({"doing": name, "at": _now(), "facts": facts})
        found: dict[str, Any] = {}
        yield found
        self._enter({"done": name, "at": _now(), "facts": found})

    def end(self, outcome: str) -> None:
        """Close the job: in a word, how it ended."""
        self._enter({"end": outcome, "at": _now()})
        self.job = None

    def close(self) -> None:
        """Let others have the journal. A job that is open stays so."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> None:
        ends_at = time.monotonic() + _LOOK_SECONDS
        while not lock(self._file):
            if time.monotonic() >= ends_at:
                raise HydraError(f"another process is at work by {self._path}", hint="wait until it is done")
            time.sleep(0.02)

    def _enter(self, entry: dict[str, Any]) -> None:
        if self.job is None:
            raise HydraError("no job is open in this journal")
        after = _after(self.job, entry)
        self._add(entry)
        self.job = after

    def _add(self, entry: Mapping[str, Any]) -> None:
        """On the disk, whole, when this returns; else nothing of it is. What it announces has then not been done."""
        line, size = json.dumps(entry).encode() + b"\n", os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # what stays is a line without an end, which readers leave out
                self._file.truncate(size)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> HydraError:
        return ConfigError(f"{self._path} cannot be written: {error.strerror}", hint="without it nothing is changed")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def settle(folder: Path) -> None:
    """A new name is on the disk when its folder is. Windows opens no folders, and keeps names by itself."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock(file: IO[bytes]) -> bool:
    """Take the file's lock, which goes when the file is closed or the process ends in any way; False where another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # a byte beyond anything written: readers are not shut out
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True

"""Cutover and rollback: a Move carried out by a journal, so that a run that was killed is finished or undone by the next one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.progress import Progress, reporting
from ...errors import ConfigError, HydraError
from ..commands import run
from ..journal import Job, Journal, find, replay, settle
from .ladder import climb
from .move import Move
from .swap import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["State", "cutover", "rollback", "status"]

_JOURNAL = "journal"
Act = Callable[[str, Side], None]


@dataclass(frozen=True, slots=True)
class State:
    """How far a migration is. `sides` tells for each file and link whether it is "old", "new" or (None) neither.

    `interrupted` is the step at which a run ended before its time, `towards` where that run was going; both None at rest.
    """

    folder: str
    sides: dict[str, Side | None]
    interrupted: str | None = None
    towards: Side | None = None
    busy: bool = False

    @property
    def side(self) -> Side | None:
        """Where everything is; None where not everything is on one side."""
        found = set(self.sides.values())
        return found.pop() if len(found) == 1 else None

    @property
    def settled(self) -> bool:
        """Whether all is on one side, and no run is to be finished."""
        return self.side is not None and self.interrupted is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": self.folder,
            "side": self.side,
            "sides": dict(self.sides),
            "settled": self.settled,
            "interrupted": self.interrupted,
            "towards": self.towards,
            "busy": self.busy,
        }

    def __str__(self) -> str:
        lines = [f"{side or 'changed by hand':8} {path}" for path, side in self.sides.items()]
        if self.busy:
            lines.append(f"a run is at work, at {self.interrupted}, towards the {self.towards} state")
        elif self.interrupted is not None:
            lines.append(
                f"interrupted at {self.interrupted}, on the way to the {self.towards} state: `hydra-infer migrate "
                + (f"cutover {self.folder}` goes on, " if self.towards == "new" else "")
                + f"`hydra-infer migrate rollback {self.folder}` leads back"
            )
        elif not self.sides:
            lines.append(f"nothing was begun in {self.folder}")
        return "\n".join(lines)


def cutover(
    folder: str | os.PathLike[str],
    move: Move | None = None,
    *,
    api_key: str | None = None,
    timeout: float = 600.0,
    progress: Progress = None,
) -> State:
    """Carry out the move, or go on with one that was interrupted (then `move` may be left out).

    `folder` holds the journal and the move, with the whole text of both forms, readable by its owner alone. Before each step
    a line is on the disk. When a step fails, or the new server does not serve within `timeout` seconds, everything is put
    back and the old server started; then the error is raised, saying so. `api_key` is the servers'.
    """
    place = _made(folder)
    with Journal(place / _JOURNAL) as journal:
        if journal.job is None:
            if move is None:
                raise ConfigError(f"no cutover was interrupted in {place}", hint="say what is to change")
            if move.changes:
                _check(move)
                _keep(place, move)
                journal.begin("cutover", move=move.name, towards="new")
        else:
            move = _continued(place, journal.job, move)
            _check(move)
        if journal.job is not None:
            with _acting(move, api_key, timeout, progress) as act:
                _forward(journal, move, act, place)
    return status(place)


def rollback(
    folder: str | os.PathLike[str], *, api_key: str | None = None, timeout: float = 600.0, progress: Progress = None
) -> State:
    """Back to what was before the last cutover in this folder, whether it came to its end or was interrupted.

    Raises ConfigError where there was none; what fails on the way is raised, and the next call goes on.
    """
    place = Path(folder).absolute()
    if not (place / _JOURNAL).is_file():
        raise ConfigError(f"there was no cutover in {place}")
    with Journal(place / _JOURNAL) as journal:
        job = journal.job or _last(place)
        if job is None:
            raise ConfigError(f"there was no cutover in {place}")
        move = _kept(place, job)
        _check(move)
        if journal.job is None and job.outcome == "new":
            journal.begin("rollback", move=job.facts["move"], towards="old")
        if journal.job is not None:
            with _acting(move, api_key, timeout, progress) as act:
                _towards(journal, move, "old", act)
    return status(place)


def status(folder: str | os.PathLike[str]) -> State:
    """Where everything is now; changes nothing. Raises ConfigError for a journal that is none."""
    place = Path(folder).absolute()
    found = find(place / _JOURNAL)
    job = found[0] if found else _last(place)
    if job is None:
        return State(str(place), {})
    sides = {swap.path: swap.side for swap in _kept(place, job).swaps}
    if found is None:
        return State(str(place), sides)
    return State(str(place), sides, job.begun[-1] if job.begun else "its beginning", _heading(job), busy=found[1])


def _check(move: Move) -> None:
    """Before a server is stopped: nothing is begun that a changed file would stop half-way."""
    for swap in move.swaps:
        swap.check()


def _forward(journal: Journal, move: Move, act: Act, place: Path) -> None:
    try:
        _towards(journal, move, "new", act)
    except HydraError as error:
        try:
            _towards(journal, move, "old", act)
        except HydraError as worse:
            raise HydraError(
                f"the cutover failed: {error.message}; and going back failed: {worse.message}",
                hint=f"mend that, then hydra-infer migrate rollback {place} goes on",
            ) from error
        raise HydraError(f"the cutover failed, and the old state is back: {error.message}", hint=error.hint) from error


def _towards(journal: Journal, move: Move, side: Side, act: Act) -> None:
    """Every step, from the first, even after an interruption: each may be done twice, and nobody knows what happened since."""
    for name in move.steps:
        with journal.step(name, towards=side):
            act(name, side)
    journal.end(side)


@contextmanager
def _acting(move: Move, api_key: str | None, timeout: float, progress: Progress) -> Iterator[Act]:
    """What a step does: a swap, a command, or the wait for the server."""
    swaps = {swap.name: swap for swap in move.swaps}
    with reporting(progress) as report:

        def act(name: str, side: Side) -> None:
            report(move.steps.index(name) / len(move.steps), f"{name} ({side})")
            if name in swaps:
                swaps[name].put(side)
            elif name == "verify":
                climb(move.server(side), api_key=api_key, timeout=timeout)
            else:
                _run(getattr(move, name), timeout)

        yield act
        report(1.0, "done")


def _run(words: tuple[str, ...], timeout: float) -> None:
    ran = run(words, timeout)
    if ran.status != 0:
        why = ran.trouble or (f"it ended with status {ran.status}" if ran.status is not None else "it did not end")
        raise HydraError(f"`{shlex.join(words)}` failed: {why}")


def _heading(job: Job) -> Side:
    return "old" if job.facts["towards"] == "old" else "new"


def _continued(place: Path, job: Job, move: Move | None) -> Move:
    """The interrupted move, where going on with it is what was asked for."""
    if _heading(job) == "old":
        raise HydraError("a way back was interrupted", hint=f"hydra-infer migrate rollback {place} goes on with it")
    kept = _kept(place, job)
    if move is not None and not move.same_aim(kept):
        raise ConfigError(
            f"another cutover was interrupted in {place}",
            hint=f"hydra-infer migrate rollback {place} undoes it, cutover {place} ends it",
        )
    return kept


def _last(place: Path) -> Job | None:
    file = place / _JOURNAL
    jobs = replay(file.read_bytes(), str(file)) if file.is_file() else ()
    return jobs[-1] if jobs else None


def _made(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder).absolute()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{place} cannot be made: {error.strerror}", hint="nothing was changed") from error
    return place


def _keep(place: Path, move: Move) -> None:
    """The move on the disk before anything is begun. Its name is its digest, so a file that is there is the same."""
    aside = place / f"{move.name}.new"
    with open(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(move.to_json())
        file.flush()
        os.fsync(file.fileno())
    aside.replace(place / move.name)
    settle(place)


def _kept(place: Path, job: Job) -> Move:
    file = place / job.facts["move"]
    try:
        return Move.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="the journal needs it: put it back") from error

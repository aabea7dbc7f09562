"""switch: another model on a server, proven to answer, or the old one put back; journalled, so that a kill half-way is mended."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..engines.progress import Progress
from ..errors import ConfigError, DoesNotFit, HydraError, LoadError
from ..fleet.fleet import Fleet
from ..router import Router
from ..routing.backend import Backend
from ..transport.upstream import HttpLine, LineFailed
from ..transport.watch import Watch, quick
from ..units import parse_tokens
from ..wire.dialect import DIALECTS
from ..wire.lifecycle import LIFECYCLES
from ..wire.openai import Target
from .asking import ask
from .canary import canary
from .journal import Job, Journal, beside, find

__all__ = ["Switched", "raise_if_unfit", "settle", "switch", "unsettled"]

_KIND = "switch"
_STEPS = ("load", "verify")
_BACK = "put back"
# A server says that a load is over a moment before it has the model.
_SETTLING, _SETTLED_WITHIN = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch came to. `outcome` is "done", or "undone" where `before` is loaded again; `note` says why."""

    server: str
    model: str
    outcome: str
    before: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        was = f" (before: {', '.join(self.before)})" if self.before else ""
        said = f"{self.server} serves {self.model}{was}"
        if self.outcome != "done":
            said = f"{self.server} has {', '.join(self.before) or 'no model'} again, not {self.model}"
        return said + (f": {self.note}" if self.note else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def switch(
    fleet: Fleet | str | os.PathLike[str],
    model: str,
    *,
    backend: str | None = None,
    context: int | str | None = None,
    cache: str | None = None,
    force: bool = False,
    progress: Progress = None,
    seconds: float = 600.0,
) -> Switched:
    """Have a server of the fleet serve `model`: plan, load, prove it by one token; what was loaded before is put back on failure.

    The server is the one named by `backend`, else the first TabbyAPI or Ollama that lists the model. `context`, `cache`, `force`
    and `progress` are as in Router.load; `seconds` bounds the load and, again, the first token. A switch that was interrupted
    is settled first: the same one is finished, another one undone. The journal lies beside the fleet file. What the fleet file's
    own plan refuses is refused before anybody is asked.

    Raises DoesNotFit with nothing changed, and LoadError, Refused or AllBackendsFailed that say what is loaded now.
    """
    fleet = fleet if isinstance(fleet, Fleet) else Fleet.from_file(fleet)
    row, said = _server(fleet, model, backend)
    if not force:
        _raise_if_unfit(fleet, row.name, said, context, cache)
    with Journal(beside(fleet.path)) as journal:
        if journal.job is not None:
            same = (journal.job.facts.get("server"), journal.job.facts.get("model")) == (row.name, said)
            settled = _settle(fleet, journal, seconds, progress, undo=not same)
            if same and settled.outcome == "done":
                return settled
        journal.begin(
            _KIND, server=row.name, model=said, context=context, cache=cache, force=force, before=_held(row), url=row.url
        )
        return _forward(fleet, journal, seconds, progress)


def raise_if_unfit(
    fleet: Fleet, model: str, *, backend: str | None = None, context: int | str | None = None, cache: str | None = None
) -> None:
    """DoesNotFit where the fleet file's own plan says that its server could not load the model, even if nothing else ran there.

    What the file does not let plan passes. Arguments and other errors are switch()'s.
    """
    row, said = _server(fleet, model, backend)
    _raise_if_unfit(fleet, row.name, said, context, cache)


def settle(
    fleet: Fleet | str | os.PathLike[str], *, undo: bool = False, progress: Progress = None, seconds: float = 600.0
) -> Switched | None:
    """Finish the fleet's interrupted switch, or undo it: put back what was loaded. None where there is none."""
    fleet = fleet if isinstance(fleet, Fleet) else Fleet.from_file(fleet)
    if find(beside(fleet.path)) is None:
        return None
    with Journal(beside(fleet.path)) as journal:
        return _settle(fleet, journal, seconds, progress, undo=undo) if journal.job is not None else None


def unsettled(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The interrupted switch of the fleet file at `path`, in words, and what mends it; None where there is none to mend now."""
    found = find(beside(path))
    if found is None or found[1]:
        return None
    job, file = found[0], os.fspath(path)
    where = f" at {job.doing!r}" if job.doing else ""
    return (
        f"the {job.kind} to {job.facts.get('model')} on {job.facts.get('server')} of {job.at} was interrupted{where}",
        f"hydra-infer switch --fleet {file} --resume finishes it, --undo puts back what was loaded",
    )


# ---- one switch ----------------------------------------------------------------------------------------------


def _settle(fleet: Fleet, journal: Journal, seconds: float, progress: Progress, *, undo: bool) -> Switched:
    job = _job(journal)
    if job.kind != _KIND:
        raise HydraError(f"the {job.kind} of {job.at} is not over, and is not a switch", hint=f"hydra-infer {job.kind}")
    if undo or _BACK in job.begun:  # a way back that was begun is gone to its end
        return _back(fleet, journal, seconds, "it was interrupted")
    return _forward(fleet, journal, seconds, progress)


def _forward(fleet: Fleet, journal: Journal, seconds: float, progress: Progress) -> Switched:
    """The steps that are left; each may have been done in part before."""
    began, job = time.monotonic(), _job(journal)
    row, said = _server(fleet, job.facts["model"], job.facts["server"])
    untouched = not job.begun
    try:
        for step in job.left(_STEPS):
            with journal.step(step):
                if step == "load":
                    _load(row, said, job.facts, seconds, progress)
                else:
                    canary(row, said, embeds=_embeds(fleet, row.name, said), seconds=seconds)
    except HydraError as error:
        if untouched and isinstance(error, DoesNotFit):  # planned before anything was done
            journal.end("refused")
            raise
        raise _undone(fleet, journal, seconds, error) from error
    journal.end("done")
    return Switched(row.name, said, "done", _names(job), seconds=round(time.monotonic() - began, 3))


def _load(row: Backend, said: str, facts: Mapping[str, Any], seconds: float, progress: Progress) -> None:
    wish = {name: facts[name] for name in ("context", "cache", "force")}
    with Router([row], retries=0) as router:
        router.load(said, progress=progress, deadline=seconds, **wish)


def _undone(fleet: Fleet, journal: Journal, seconds: float, error: HydraError) -> HydraError:
    """The error to raise once things are as they were; where that fails too, the job stays open and says so."""
    try:
        back = _back(fleet, journal, seconds, error.message)
    except HydraError as second:
        return LoadError(
            f"{error.message}; and what was loaded before could not be put back: {second.message}",
            hint=f"hydra-infer switch --fleet {fleet.path} --undo tries again",
        )
    return LoadError(str(back), hint=error.hint)


def _back(fleet: Fleet, journal: Journal, seconds: float, why: str) -> Switched:
    """Load again what was loaded before and no longer is, with the settings that it had."""
    began, job = time.monotonic(), _job(journal)
    said, server = job.facts["model"], job.facts["server"]
    row = next((one for one in fleet.settings()["backends"] if one.name == server), None)
    if row is None:
        raise ConfigError(
            f"{fleet.path} has no server {server!r} any more, which has to get back its model", hint="name it again"
        )
    with journal.step(_BACK):
        now = {name for name, _ in _held(row)}
        for name, settings in job.facts["before"]:
            if name not in now:
                _bring(row, name, settings, seconds)
        if LIFECYCLES[row.kind].alone and now and not job.facts["before"]:
            with Router([replace(row, models=None)], retries=0) as router:
                router.unload(*now, deadline=seconds)
    journal.end("undone")
    return Switched(row.name, said, "undone", _names(job), why, round(time.monotonic() - began, 3))


def _names(job: Job) -> tuple[str, ...]:
    return tuple(name for name, _ in job.facts["before"])


def _job(journal: Journal) -> Job:
    assert journal.job is not None, "the callers opened or found one"
    return journal.job


# ---- the server ----------------------------------------------------------------------------------------------


def _server(fleet: Fleet, model: str, backend: str | None) -> tuple[Backend, str]:
    """The server that is to serve it, with its keys, and the model's name in the file."""
    settings = fleet.settings()
    said = settings["aliases"].get(model, model)
    able = [row for row in settings["backends"] if row.kind in LIFECYCLES and backend in (None, row.name)]
    for row in able:
        if row.models is None or said in row.models:
            return row, said
    who = f"{backend} does not list" if backend else "no TabbyAPI and no Ollama of the fleet lists"
    known = sorted({name for row in able for name in row.models or ()})
    raise ConfigError(f"{who} {model!r}", hint=f"there are {', '.join(known) or 'none'}")


def _raise_if_unfit(fleet: Fleet, server: str, said: str, context: int | str | None, cache: str | None) -> None:
    row = fleet.foresee(server, said, context=None if context is None else parse_tokens(context), cache=cache)
    if row is not None and row.plan is not None:
        row.plan.raise_if_unfit()


def _embeds(fleet: Fleet, server: str, said: str) -> bool:
    models = fleet.tables.servers[server].models or {}
    return said in models and models[said].embeds


def _held(row: Backend) -> list[tuple[str, dict[str, Any]]]:
    """What it has loaded, each with the settings that load it so again. Raises LoadError where it does not say."""
    dialect, words = DIALECTS[row.kind], LIFECYCLES[row.kind]
    assert dialect.loaded_path is not None
    assert dialect.read_loaded is not None
    answer = ask(row, dialect.loaded_path, headers=row.headers())
    if answer.status == 503:  # TabbyAPI's answer when nothing is loaded
        return []
    if answer.status != 200:
        reason = answer.trouble or f"status {answer.status}"
        raise LoadError(f"{row.name} does not say what it has loaded: {reason}", hint="hydra-infer doctor says more")
    try:
        if words.remember is not None:
            return [words.remember(answer.body)]
        found = dialect.read_loaded(answer.body)
    except ValueError as error:
        raise LoadError(f"{row.name} does not say what it has loaded: {error}") from error
    return [(name, {"options": {"num_ctx": context}} if context else {}) for name, context in found.items()]


def _bring(row: Backend, name: str, settings: Mapping[str, Any], seconds: float) -> None:
    """Have a model loaded by the server's own name and settings. Raises LoadError."""
    words = LIFECYCLES[row.kind]
    reading, line = words.loading(), HttpLine(row)
    try:
        request = words.load(Target(row.url, name, row.admin_headers()), settings)
        response = line.send(request, Watch(quick(seconds), time.monotonic))
        reading.head(response.status, response.headers)
        while piece := response.read():
            reading.feed(piece)
        reading.end()
        response.close()
    except LineFailed as error:
        raise LoadError(f"{row.name} did not load {name!r}: {error.failure.message}") from error
    finally:
        line.close()
    if reading.failure is not None:
        raise LoadError(f"{row.name} did not load {name!r}: {reading.failure.message}")
    ends_at = time.monotonic() + _SETTLED_WITHIN
    while name not in {held for held, _ in _held(row)}:
        if time.monotonic() >= ends_at:
            raise LoadError(f"{row.name} said that {name!r} is loaded, and then did not have it")
        time.sleep(_SETTLING)

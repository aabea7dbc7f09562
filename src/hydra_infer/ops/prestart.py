"""prestart, for ExecStartPre: refuse to start a TabbyAPI that cannot work, and wait for memory that is being given back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..configs import tabby
from ..configs.disk import read
from ..errors import ConfigError, HydraError
from .doctor.cards import CardFacts, check_cards
from .doctor.files import check_tokens, told
from .doctor.folders import check_folder, folder_facts
from .doctor.machine import Machine
from .doctor.report import Finding, Report, unseen
from .orphan import Instance, end, proof, recorded
from .processes import Listener, Process, holder, process
from .tabby_plan import TabbyConfig, visible
from .units import PRESTART_WAIT

__all__ = ["Means", "prestart"]

# The driver gives memory back within a second of a process's end.
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Means:
    """What prestart looks and acts with; tests give others."""

    machine: Machine = field(default_factory=Machine)
    end: Callable[[Process], bool] = end
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def prestart(
    config: str | os.PathLike[str],
    *,
    wait: float = PRESTART_WAIT,
    kill_orphan: bool = False,
    python: str | None = None,
    record: str | os.PathLike[str] | None = None,
    means: Means | None = None,
) -> Report:
    """Whether the TabbyAPI of this config.yml may start on this machine: its report is `healthy` then.

    An error is a configuration or a model that cannot be loaded, a port that somebody has, or memory that is not free after
    `wait` seconds. A process is ended only with `kill_orphan`, and only one that is proven to be this instance's own left-over:
    it is in this unit's cgroup, it is the one in `record`, or it runs the same `python` on the same config. Warnings stop
    nothing.
    """
    means = means or Means()
    path = Path(config).absolute()
    version = means.machine.commit_date(path.parent)
    found = list(_linted(path, version, per_model=False))
    if _stops(found):
        return Report.of(found)
    if not TabbyConfig.read(path)["network.disable_auth"]:
        found += check_tokens(path.with_name("api_tokens.yml"))
    folder = TabbyConfig.folder_in(path)
    if folder is not None:
        found += check_folder(folder_facts(folder, means.machine.root), where=str(path), tabby=True)
        if (folder / "tabby_config.yml").is_file():
            found += _linted(folder / "tabby_config.yml", version, per_model=True)
    if _stops(found):
        return Report.of(found)
    was = None if record is None else recorded(Path(record))
    instance = Instance(path, python, _unit_of(means), was)
    return Report.of([*found, *_waited(TabbyConfig.read(path), instance, means, wait, kill_orphan=kill_orphan)])


def _unit_of(means: Means) -> str | None:
    """The cgroup that is ours to clear: of the unit that runs us as one of its commands, itself or by one shell.

    A cgroup alone says too little: of cron's, or of an editor's, every job that these ever started is a member.
    """
    me = process(os.getpid(), means.machine.root)
    # systemd.exec(5), since version 248: the process that the unit's command became.
    mine = means.environment.get("SYSTEMD_EXEC_PID") in (str(os.getpid()), str(os.getppid()))
    return me.group if me is not None and mine else None


def _linted(path: Path, version: str | None, *, per_model: bool) -> Iterator[Finding]:
    """What TabbyAPI does not start with, or load, is an error; all else that the linter says is a warning."""
    try:
        text = read(path)
    except ConfigError as error:
        yield Finding("error", str(path), error.message, "TabbyAPI starts on its defaults, without a model", "correct the path")
        return
    for one in tabby.lint(text, per_model=per_model, version=version):
        yield told(one, path, "error" if one.stops else "warning")


# ---- the port and the memory -----------------------------------------------------------------------------------


def _waited(config: TabbyConfig, instance: Instance, means: Means, wait: float, *, kill_orphan: bool) -> list[Finding]:
    """What is still in the way when the time is over; a port that is taken is not waited for."""
    ends_at, ended = means.clock() + wait, set[Process]()
    while True:
        there, port = _port(config, means)
        memory, holders = _memory(config, means)
        if not _stops(port) and not _stops(memory):
            return [*port, *memory]
        orphans = {one: why for one in (there, *holders) if one is not None and (why := proof(one, instance)) is not None}
        if kill_orphan and not orphans.keys() <= ended:
            for orphan in orphans.keys() - ended:
                means.end(orphan)
                ended.add(orphan)
        elif _stops(port) or means.clock() >= ends_at:
            return [*port, *memory, *(_left_over(one, why) for one, why in orphans.items())]
        else:
            means.sleep(_PAUSE)


def _stops(findings: list[Finding]) -> bool:
    return any(one.severity == "error" for one in findings)


def _left_over(orphan: Process, why: str) -> Finding:
    return Finding(
        "error",
        str(orphan),
        "it is a left-over of this server",
        f"{why}, and it holds what the new one needs",
        f"prestart --kill-orphan ends it, or: kill {orphan.pid}",
    )


def _port(config: TabbyConfig, means: Means) -> tuple[Process | None, list[Finding]]:
    """Who has the port that this server is to listen on."""
    listeners = means.machine.listeners()
    host, port = str(config["network.host"]), int(config["network.port"])
    if isinstance(listeners, str):
        return None, [unseen(str(config.path), f"who has port {port}: {listeners}")]
    taken_by = holder(listeners, host, port)
    if taken_by is None:
        return None, []
    return taken_by.process, [_occupied(config, taken_by)]


def _occupied(config: TabbyConfig, by: Listener) -> Finding:
    who = f"kill {by.process.pid}" if by.process else f"as root: ss -ltnp sport = :{by.port}"
    return Finding(
        "error",
        str(config.path),
        f"port {by.port} belongs to {by.who}",
        "TabbyAPI would take the next port and say so nowhere; clients would talk to that process",
        f"end it yourself if it may go ({who}), or choose another network.port",
    )


def _memory(config: TabbyConfig, means: Means) -> tuple[list[Finding], list[Process]]:
    """Whether the model fits into what is free now, and who holds the rest."""
    if config.model_folder is None:
        return [], []
    where, model = str(config.path), config.model_folder.name
    cards = visible(means.machine.gpus(), means.environment)
    if not cards:
        return list(check_cards(CardFacts(cards), where)), []
    try:
        plan = config.plan(cards)
    except ConfigError as error:
        return [Finding("error", where, error.message, "TabbyAPI does not load the model so", error.hint or "correct it")], []
    except HydraError as error:
        return [unseen(where, f"whether {model} fits: {error}")], []
    if plan.fits:
        return [], []
    pids = dict.fromkeys(one.pid for card in cards for one in card.processes)
    holders = [one for pid in pids if (one := process(pid, means.machine.root)) is not None]
    who = ", ".join(map(str, holders)) or "nobody that the driver names"
    return [
        Finding(
            "error",
            where,
            f"{model} does not fit: {plan.why}",
            f"the load would end with 'Insufficient VRAM', at every restart anew; on the cards: {who}",
            "end what holds the memory, or change what the plan says",
        )
    ], holders

"""doctor(): look at a fleet from here, judge what was seen, and say what mends it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.secrets import HIDDEN
from ...errors import ConfigError, HydraError
from ...fleet.address import is_loopback, port_of
from ...fleet.forecast import forecast
from ...fleet.keys import key_of
from ..journal import beside
from ..switch import unsettled
from .answers import check_answers
from .cards import check_draft, check_room
from .files import check_litellm_file
from .machine import Machine, ModelHere, ServiceHere, alone, inspect
from .report import Finding, Report, unseen
from .server import ServerFacts, Wanted, answers_of

if TYPE_CHECKING:
    from ...fleet.fleet import Fleet
    from ...fleet.schema import FleetFile, Model, Server
    from ...fleet.source import Source
    from ...routing.backend import Backend

__all__ = ["doctor", "examine"]

_PLANNED_WITH = ("context", "cache", "split", "gpu_split", "reserve", "slots", "chunk")
# A machine that is off is noticed in 5 s; one that is on looks at its disks and cards within a minute.
_SSH, _SSH_SECONDS = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--"), 60.0


def doctor(
    fleet: Fleet | str | os.PathLike[str] | None = None,
    *,
    tabby_config: str | os.PathLike[str] | None = None,
    litellm_config: str | os.PathLike[str] | None = None,
    services: Sequence[ServiceHere] | None = None,
    seconds: float = 3.0,
    read_disk: bool = False,
    machine: Machine | None = None,
) -> Report:
    """What is wrong with a fleet (a Fleet or its file), with a TabbyAPI's config.yml, or with a LiteLLM proxy's config.yaml.

    Reads only, and is safe beside working servers: nothing is loaded, generated or written. Servers are asked at once,
    `seconds` each; machines are looked at where the file says cards: this machine, and by ssh where a host says ssh:. What could
    not be looked at is a finding too. `read_disk` reads 256 MB of a model to time it. `services` are looked at on this machine.
    """
    from ...fleet.fleet import Fleet

    means = machine or Machine(read_disk=read_disk)
    if fleet is None and tabby_config is None and litellm_config is None and services is None:
        raise ConfigError("doctor needs a fleet, or a file to look at", hint="hydra-infer init URL… writes a fleet's first file")
    found: list[Finding] = []
    if fleet is not None:
        one = fleet if isinstance(fleet, Fleet) else Fleet.from_file(fleet)
        found += one.doctor(seconds=seconds, machine=means)
    if tabby_config is not None:
        found += alone(Path(tabby_config), means)
    if litellm_config is not None:
        found += check_litellm_file(Path(litellm_config), os.environ)
    found += inspect(services or (), means)
    return Report.of(found)


def examine(
    file: FleetFile, source: Source, backend: Callable[..., Backend], *, seconds: float = 3.0, machine: Machine | None = None
) -> Report:
    """The same for a fleet file that is read; `backend` makes a server's row from its name and keys."""
    found = list(_interrupted(source))
    found += _literals(file, source)
    keys, troubles = _keys(file, source)
    rows = [backend(name, **keys[name]) for name in file.servers]
    with ThreadPoolExecutor(len(rows), "hydra-doctor") as threads:
        answers = dict(zip(file.servers, threads.map(lambda row: answers_of(row, seconds), rows), strict=True))
    for name, row in zip(file.servers, rows, strict=True):
        found += troubles[name] or check_answers(
            ServerFacts(
                name,
                row.kind,
                row.url,
                answers[name],
                _wanted(file.servers[name]),
                _has_cards(file, name),
                row.api_key is not None,
                row.admin_key is not None,
            )
        )
    idle = {name for name, one in answers.items() if "model" not in one or one["model"].status in (0, 503)}
    found += _plans(file, source)
    found += _machines(file, source, {row.name: row.url for row in rows}, idle, machine or Machine())
    return Report.of(_without(found, [key for row in rows for key in (row.api_key, row.admin_key) if key]))


def _without(found: Sequence[Finding], keys: Sequence[str]) -> Iterator[Finding]:
    """Whatever others wrote, a journal's lines for one, is shown without the fleet's own keys."""
    for one in found:
        hidden = {name: text for name in ("what", "why", "mend") if any(key in (text := getattr(one, name)) for key in keys)}
        for key in sorted(keys, key=len, reverse=True):
            hidden = {name: text.replace(key, HIDDEN) for name, text in hidden.items()}
        yield replace(one, **hidden)


def _interrupted(source: Source) -> Iterator[Finding]:
    path = str(beside(source.path))
    try:
        told = unsettled(source.path)
    except HydraError as error:
        yield Finding("error", path, str(error), "nothing can be switched until it is readable", "move the file away")
        return
    if told is not None:
        what, mend = told
        yield Finding("error", path, what, "the server may have no model loaded, or another one than before", mend)


def _keys(file: FleetFile, source: Source) -> tuple[dict[str, dict[str, str | None]], dict[str, list[Finding]]]:
    """Each server's keys; one that is not where the file says is a finding, and nothing is asked with it."""
    keys: dict[str, dict[str, str | None]] = {}
    troubles: dict[str, list[Finding]] = {name: [] for name in file.servers}
    for name in file.servers:
        keys[name] = {}
        for which in ("api_key", "admin_key"):
            try:
                keys[name][which] = key_of(file, source, name, which, os.environ)
            except ConfigError as error:
                keys[name][which] = None
                why = "a router cannot be made from the file, and the server could not be looked at"
                troubles[name].append(Finding("error", name, str(error), why, "set it where doctor and the router run"))
    return keys, troubles


def _literals(file: FleetFile, source: Source) -> Iterator[Finding]:
    readable = os.name == "posix" and source.path.stat().st_mode & 0o004  # Windows has no such bits, and reports them set
    for name, server in file.servers.items():
        if readable and any(key is not None and key.literal for key in (server.api_key, server.admin_key)):
            yield Finding(
                "warning",
                str(source.path),
                f"the key of {name} stands in it, and everybody on this machine can read it",
                "whoever logs in here has the key",
                f"chmod 600 {source.path}, or {{env: NAME}} in its place",
            )


def _wanted(server: Server) -> tuple[Wanted, ...] | None:
    if server.models is None:
        return None
    return tuple(Wanted(said, one.name or said, one.context, one.embeds) for said, one in server.models.items())


def _has_cards(file: FleetFile, name: str) -> bool | None:
    host = file.hosts.get(file.servers[name].host or "")
    return None if host is None or host.cards is None else bool(host.cards)


def _plans(file: FleetFile, source: Source) -> Iterator[Finding]:
    """The verdict on each model, on cards that nothing else uses."""
    for row in forecast(file, source).rows:
        if file.servers[row.server].kind not in ("tabby", "ollama") or row.host == "":
            continue
        if row.error is not None:
            yield unseen(row.server, f"whether {row.model} fits: {row.error}")
        elif row.plan is not None:
            yield from check_room(row.plan, row.server, row.model, now=False)
            yield from check_draft(row.plan, row.server, row.model)
        elif row.fits is False:
            why = "it takes them by the fleet file; loading it ends on the CPU, or not at all"
            yield Finding(
                "error", row.server, f"{row.model} does not fit its cards: {row.takes}", why, "a smaller one, or more cards"
            )


# ---- machines ------------------------------------------------------------------------------------------------


def _machines(file: FleetFile, source: Source, urls: dict[str, str], idle: set[str], machine: Machine) -> Iterator[Finding]:
    """Those that can be looked at, at the same time: this one, and others by ssh."""

    def look(name: str) -> list[Finding]:
        services = [
            _service(file, source, server, urls[server], idle=server in idle)
            for server, row in file.servers.items()
            if row.host == name and row.kind in ("tabby", "ollama")
        ]
        host = file.hosts[name]
        if host.here:
            return list(inspect(services, machine))
        if host.ssh is not None:
            return list(_by_ssh(name, host.ssh, services, machine))
        return [unseen(name, "the machine itself", "ssh: in the fleet file says how it is reached")] if services else []

    with ThreadPoolExecutor(max(1, len(file.hosts)), "hydra-doctor") as threads:
        for found in threads.map(look, file.hosts):
            yield from found


def _service(file: FleetFile, source: Source, name: str, url: str, *, idle: bool) -> ServiceHere:
    server = file.servers[name]
    folder = None if server.model_dir is None else source.folder / Path(server.model_dir).expanduser()
    models = (server.models or {}) if folder is not None and server.kind == "tabby" else {}
    return ServiceHere(
        name=name,
        kind=server.kind,
        port=port_of(url, server.kind),
        unit=f"{name}.service" if server.kind == "tabby" else "ollama.service",
        folder=server.service.folder if server.service else None,
        python=server.service.python if server.service else None,
        models=tuple(_model(folder or Path(), model.name or said, model) for said, model in models.items()),
        cards=None if server.use_cards is None else tuple(server.use_cards),
        parallel=server.max_parallel,
        shared=not is_loopback(url),
        idle=idle,
    )


def _model(folder: Path, local_name: str, model: Model) -> ModelHere:
    options = {name: value for name in _PLANNED_WITH if (value := getattr(model, name)) is not None}
    if model.draft is not None:
        files = model.draft.name if model.draft.name in ("mtp", "ngram") else str(folder / model.draft.name)
        options |= {"draft": files, "draft_tokens": model.draft.tokens}
    return ModelHere(str(folder / local_name), options)


def _by_ssh(host: str, destination: str, services: Sequence[ServiceHere], machine: Machine) -> Iterator[Finding]:
    """The same look by the hydra-infer that is installed there."""
    asked = ["hydra-infer", "doctor", "--json", "--look", json.dumps([one.to_dict() for one in services])]
    ran = machine.run([*_SSH, destination, shlex.join(asked)], _SSH_SECONDS)
    try:
        yield from Report.from_dict(json.loads(ran.out), host)
    except (ValueError, RecursionError):  # ConfigError among them: no JSON, or not a doctor's
        reason = {127: "hydra-infer is not installed there"}.get(ran.status or 0, ran.trouble or "it answered nothing usable")
        yield unseen(host, f"the machine itself: {reason}", f"try: ssh {destination} hydra-infer --version")

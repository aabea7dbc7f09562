"""watch: after a start, prove that the right process serves the right port and the right model, by one token."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..configs.disk import read
from ..configs.document import parse
from ..errors import ConfigError, HydraError
from ..fleet.fleet import Fleet
from ..routing.backend import Backend
from ..wire.dialect import DIALECTS
from .asking import Answer, ask
from .canary import canary
from .doctor.report import Finding, Report, unseen
from .orphan import record as keep
from .prestart import Means
from .processes import Process, holder, process
from .tabby_plan import TabbyConfig

__all__ = ["watch", "watch_fleet"]

_EVERYWHERE = ("0.0.0.0", "::", "")
_PAUSE = 1.0


def watch(
    config: str | os.PathLike[str],
    *,
    pid: int | None = None,
    wait: float = 600.0,
    record: str | os.PathLike[str] | None = None,
    means: Means | None = None,
) -> Report:
    """Wait until the TabbyAPI of this config.yml serves, `wait` seconds at most, and say what is wrong with who does.

    It climbs the ladder: the process lives (`pid`, systemd's $MAINPID), it and nobody else has the configured port, it answers,
    it has the configured model loaded, and that answers with one token. The key is taken from api_tokens.yml beside the config.
    `record` is a file that is to hold who serves, for prestart's proof. Healthy: all of that is so.
    """
    means, path = means or Means(), Path(config).absolute()
    said = TabbyConfig.read(path)
    return Report.of(_climb(said, _backend(said), pid, wait, None if record is None else Path(record), means))


def _climb(
    said: TabbyConfig, backend: Backend, pid: int | None, wait: float, record: Path | None, means: Means
) -> Iterator[Finding]:
    where, ends_at, root = str(said.path), means.clock() + wait, means.machine.root
    while True:
        if pid is not None and process(pid, root) is None:
            yield _wrong(where, f"its process {pid} has ended", "its log says why: journalctl -u UNIT, or hydra-infer prestart")
            return
        serving = _serving(said, means)
        if serving is not None and not _is_ours(serving, said, pid, root):
            yield _wrong(where, f"port {said['network.port']} belongs to {serving}", "end that, and restart the server")
            return
        answer = ask(backend, "/v1/model", headers=backend.headers())
        trouble = _not_yet(answer)
        if trouble is None:
            break
        if means.clock() >= ends_at:
            yield _wrong(where, f"it does not serve after {wait:g} s: {trouble}", "its log shows how far the load is")
            return
        means.sleep(_PAUSE)
    if serving is None:
        yield unseen(where, f"whose process has port {said['network.port']}", "run watch as its user, or as root")
    problem = _model(said, backend, answer)
    if problem is not None:
        yield problem
    elif record is not None and serving is not None:
        keep(record, serving)


def _not_yet(answer: Answer) -> str | None:
    """Why it cannot be judged yet; None where it can."""
    if answer.status == 0:
        return answer.trouble
    return "no model is loaded (or one is being loaded)" if answer.status == 503 else None


def _serving(said: TabbyConfig, means: Means) -> Process | None:
    """Who has the configured port, as far as the system tells."""
    rows = means.machine.listeners()
    there = None if isinstance(rows, str) else holder(rows, str(said["network.host"]), int(said["network.port"]))
    return there.process if there is not None else None


def _is_ours(serving: Process, said: TabbyConfig, pid: int | None, root: Path) -> bool:
    """The process that was named, or one of the same service; else one that runs in the config's own folder."""
    if pid is None:
        return serving.folder == str(said.path.parent)
    main = process(pid, root)
    return serving.pid == pid or (main is not None and main.unit is not None and serving.group == main.group)


def _model(said: TabbyConfig, backend: Backend, answer: Answer) -> Finding | None:
    where = str(said.path)
    if answer.status == 401:
        return _wrong(where, "it refuses the key in api_tokens.yml", "another TabbyAPI has the port, or the file was replaced")
    name, wanted = answer.get("id"), said["model.model_name"]
    if wanted and name != wanted:
        return _wrong(where, f"it has {name!r} loaded, not {wanted!r}", "restart it, or hydra-infer switch")
    return _canary(where, backend, str(name))


def _canary(where: str, backend: Backend, model: str, *, embeds: bool = False) -> Finding | None:
    try:
        canary(backend, model, embeds=embeds)
    except HydraError as error:
        return _wrong(where, f"{model} does not answer: {error}", "restart it: a status page can be well while nothing answers")
    return None


def _wrong(where: str, what: str, mend: str) -> Finding:
    return Finding("error", where, what, "clients get errors, or another model's answers", mend)


def _backend(said: TabbyConfig) -> Backend:
    host = str(said["network.host"])
    address = "127.0.0.1" if host in _EVERYWHERE else host
    return Backend.tabby(f"http://{address}:{said['network.port']}", api_key=_key(said), name=str(said.path))


def _key(said: TabbyConfig) -> str | None:
    path = said.path.with_name("api_tokens.yml")
    if said["network.disable_auth"] or not path.is_file():
        return None
    root: Any = parse(read(path), str(path))
    key = root.get("api_key") if isinstance(root, dict) else None
    found = key[0] if isinstance(key, list) and key else key
    if not isinstance(found, str):
        raise ConfigError(f"{path} has no api_key", hint="TabbyAPI writes one at its start")
    return str(found)


# ---- a whole fleet ---------------------------------------------------------------------------------------------


def watch_fleet(fleet: Fleet | str | os.PathLike[str]) -> Report:
    """Have each server of the fleet answer with one token by each model that it has loaded; nothing is loaded for it."""
    fleet = fleet if isinstance(fleet, Fleet) else Fleet.from_file(fleet)
    rows: list[Backend] = fleet.settings()["backends"]
    embeds = {
        (name, said): model.embeds
        for name, server in fleet.tables.servers.items()
        for said, model in (server.models or {}).items()
    }
    with ThreadPoolExecutor(len(rows), "hydra-watch") as threads:
        return Report.of(one for found in threads.map(lambda row: list(_served(row, embeds)), rows) for one in found)


def _served(row: Backend, embeds: Mapping[tuple[str, str], bool]) -> Iterator[Finding]:
    dialect = DIALECTS[row.kind]
    answer = ask(row, dialect.loaded_path or dialect.list_path, headers=row.headers())
    names = dialect.read_loaded if dialect.read_loaded is not None else dialect.read_list
    try:
        there = list(names(answer.body)) if answer.status == 200 else None
    except ValueError:
        there = None
    if there is None:
        reason = _not_yet(answer) or f"its answer, of status {answer.status}, names no models"
        yield _wrong(row.name, f"it does not serve: {reason}", "hydra-infer doctor says more")
        return
    said = {one: one for one in there} if row.models is None else {name: local.name for name, local in row.models.items()}
    loaded = [name for name, local in said.items() if local in there]
    if not loaded:
        yield unseen(row.name, "whether it answers: none of its models is loaded", "hydra-infer load MODEL --fleet FILE")
    # Ollama tells what it has loaded, and TabbyAPI has one; of a list of what might be asked for, the first must do.
    for name in loaded if row.kind == "ollama" else loaded[:1]:
        problem = _canary(row.name, row, name, embeds=embeds.get((row.name, name), False))
        if problem is not None:
            yield problem

"""What doctor looks at on one machine, here or by ssh: cards, services, files and mounts. Reads only; each look has an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...configs.tabby_keys import keys_at
from ...errors import ConfigError, HydraError
from ...hardware import nvml
from ...hardware.gpu import Gpu
from ...planning import plan
from .. import processes, units
from ..commands import Run, run
from ..storage import links, mount_of, read_speed
from ..tabby_plan import TabbyConfig, visible
from .cards import CardFacts, check_cards, check_draft, check_room, emptied
from .files import check_tabby_file
from .folders import check_folder, folder_facts
from .packages import check_packages, cuda_of, packages
from .report import Finding, unseen
from .services import ServiceFacts, check_service
from .storage import check_storage

__all__ = ["Machine", "ModelHere", "ServiceHere", "alone", "inspect", "services_in"]

# Where TabbyAPI's own start script makes its environment.
_PYTHON = "venv/bin/python"


@dataclass(frozen=True, slots=True)
class ModelHere:
    """A model's folder, and what it is planned with (arguments of plan())."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceHere:
    """A server that runs on the machine. `folder` and `python` are TabbyAPI's, `cards` which of the machine's it may use.

    `idle`: it has no model loaded, so that its models must fit into what is free now.
    """

    name: str
    kind: str
    port: int
    unit: str
    folder: str | None = None
    python: str | None = None
    models: tuple[ModelHere, ...] = ()
    cards: tuple[int, ...] | None = None
    parallel: int | None = None
    shared: bool = False
    idle: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which services_in reads: it is sent to other machines, and holds no key."""
        return asdict(self)


def services_in(text: str) -> list[ServiceHere]:
    """The services in a JSON list of what their to_dict() gives. Raises ConfigError for anything else."""
    try:
        return [
            ServiceHere(
                **{
                    **row,
                    "models": tuple(ModelHere(**one) for one in row["models"]),
                    "cards": None if row["cards"] is None else tuple(row["cards"]),
                }
            )
            for row in json.loads(text)
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"that is no list of services to look at: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Machine:
    """The means of looking; tests give others. `root` is where /proc, /sys and /etc are."""

    root: Path = Path("/")
    run: Run = run
    gpus: Callable[[], Sequence[Gpu]] = nvml.gpus
    read_disk: bool = False

    def listeners(self) -> Sequence[processes.Listener] | str:
        """Who listens where, or why that cannot be seen."""
        try:
            return processes.listeners(self.root)
        except HydraError as error:
            return str(error)

    def driver(self) -> str | None:
        """The NVIDIA driver's version."""
        try:
            return (self.root / "sys/module/nvidia/version").read_text().strip()
        except OSError:
            return None  # no such driver, or not Linux

    def commit_date(self, folder: str | Path) -> str | None:
        """The ISO date of a checkout's commit; None where the folder is none, or git does not tell."""
        ran = self.run(["git", "-C", str(folder), "log", "-1", "--format=%cs"], 5.0)
        return (ran.out.strip() or None) if ran.status == 0 else None


def inspect(services: Sequence[ServiceHere], machine: Machine) -> Iterator[Finding]:
    """Every finding on this machine."""
    listeners, cards = machine.listeners(), tuple(machine.gpus())
    for service in services:
        unit = units.read_unit(service.unit, machine.run)
        errors: Sequence[str] | str = units.last_errors(service.unit, machine.run) if isinstance(unit, units.Unit) else ()
        allocator = _allocator(service.folder, machine) if service.kind == "tabby" else None
        yield from check_service(
            ServiceFacts(
                service.name, service.kind, service.port, listeners, unit, errors, service.parallel, service.shared, allocator
            )
        )
        if service.kind == "tabby":
            yield from _tabby(service, unit, cards, machine)
    folders = dict.fromkeys(Path(model.path).parent for service in services for model in service.models)
    for folder in folders:
        yield from _storage(folder, machine)


def _tabby(service: ServiceHere, unit: units.Unit | str, cards: tuple[Gpu, ...], machine: Machine) -> Iterator[Finding]:
    yield from _runs(service.name, service.python, unit, cards, machine)
    mine = [card for number, card in enumerate(cards) if service.cards is None or number in service.cards]
    if service.folder is not None:
        config = Path(service.folder) / "config.yml"
        yield from check_tabby_file(config, machine.commit_date(service.folder), port=service.port)
        if str(configured := _configured_model(config)) not in [model.path for model in service.models]:
            yield from _folder(configured, service.name, machine)
        yield from _as_configured(config, mine)
    for model in service.models:
        yield from _model(service, model, mine, machine)


def _runs(where: str, python: str | None, unit: units.Unit | str, cards: Sequence[Gpu], machine: Machine) -> Iterator[Finding]:
    """What it runs with: cards, driver, packages."""
    found = {} if python is None else packages(python, machine.root)
    order = None if isinstance(unit, str) else unit.environment.get("CUDA_DEVICE_ORDER", "")
    yield from check_cards(CardFacts(cards, machine.driver(), cuda_of(found.get("torch", "")), order), where)
    if python is not None:
        yield from check_packages(found, where, python)


def _allocator(folder: str | None, machine: Machine) -> bool | None:
    """Whether the TabbyAPI in a folder chooses torch's allocator itself; None where its config.yml cannot be read."""
    if folder is None:
        return None
    try:
        said = TabbyConfig.read(Path(folder) / "config.yml").said.get("memory", {}).get("cuda_malloc_async")
    except ConfigError:
        return None  # those who look at the file say so
    return bool(keys_at(machine.commit_date(folder))["memory.cuda_malloc_async"].default if said is None else said)


def _configured_model(config: Path) -> Path | None:
    """The folder that a config.yml has loaded at the start; None where it names none or is not usable, which the linter says."""
    try:
        return TabbyConfig.folder_in(config)
    except ConfigError:
        return None


def _folder(folder: Path | None, where: str, machine: Machine) -> Iterator[Finding]:
    if folder is not None:
        yield from check_folder(folder_facts(folder, machine.root), where=where, tabby=True)
        if (folder / "tabby_config.yml").is_file():
            yield from check_tabby_file(folder / "tabby_config.yml", per_model=True)


def _model(service: ServiceHere, model: ModelHere, cards: Sequence[Gpu], machine: Machine) -> Iterator[Finding]:
    yield from _folder(Path(model.path), service.name, machine)
    if not service.idle or not cards or folder_facts(Path(model.path)).spec is None:
        return
    try:
        planned = plan(model.path, gpus=cards, engine="tabby", **model.options)
    except HydraError as error:
        yield unseen(service.name, f"whether {Path(model.path).name} fits now: {error}")
        return
    yield from check_room(planned, service.name, Path(model.path).name, now=True)


def _as_configured(path: Path, cards: Sequence[Gpu]) -> Iterator[Finding]:
    """Whether what a config.yml has loaded at the start fits on these cards, once nothing else is there."""
    folder = _configured_model(path)
    if folder is None or not cards or folder_facts(folder).spec is None:
        return  # said by those who look at the file, the cards and the folder
    try:
        planned = TabbyConfig.read(path).plan([emptied(card) for card in cards])
    except ConfigError as error:
        yield Finding("error", str(path), error.message, "TabbyAPI does not load the model so", error.hint or "correct it")
    except HydraError as error:
        yield unseen(str(path), f"whether its model fits: {error}")
    else:
        yield from check_room(planned, str(path), planned.request.spec.name, now=False)
        yield from check_draft(planned, str(path), planned.request.spec.name)


def _storage(folder: Path, machine: Machine) -> Iterator[Finding]:
    speed = None
    if machine.read_disk:
        largest = max(folder.glob("*/*.safetensors"), key=lambda file: file.stat().st_size, default=None)
        speed = None if largest is None else read_speed(largest)
    yield from check_storage(folder, mount_of(folder, machine.root), links(machine.root), speed)


# ---- a TabbyAPI by its config.yml -----------------------------------------------------------------------------


def alone(config: Path, machine: Machine) -> Iterator[Finding]:
    """A TabbyAPI on this machine, known by its config.yml alone: the file, its port, its model, and what it runs with."""
    folder = config.absolute().parent
    yield from check_tabby_file(config, machine.commit_date(folder))
    try:
        said = TabbyConfig.read(config)
        address, port = str(said["network.host"]), int(said["network.port"])
    except ConfigError:
        return  # the linter has said so
    cards, rows = tuple(machine.gpus()), machine.listeners()
    there = None if isinstance(rows, str) else processes.holder(rows, address, port)
    unit = _unit_behind(there, folder, machine)
    yield from _port_held(there if not isinstance(rows, str) else rows, config, port, folder)
    if isinstance(unit, units.Unit):
        errors = units.last_errors(unit.name, machine.run)
        # Who has the port is known; the rest is the unit's.
        yield from check_service(
            ServiceFacts(str(config), "tabby", port, (), unit, errors, allocator=_allocator(str(folder), machine))
        )
    python = folder / _PYTHON
    there_too = machine.root.joinpath(*python.parts[1:]).exists()
    yield from _runs(str(config), str(python) if there_too else None, unit, cards, machine)
    yield from _as_configured(config, visible(cards, {} if isinstance(unit, str) else unit.environment))
    model = _configured_model(config)
    yield from _folder(model, str(config), machine)
    if model is not None:
        yield from _storage(model.parent, machine)


def _unit_behind(there: processes.Listener | None, folder: Path, machine: Machine) -> units.Unit | str:
    """The unit that runs the server of this folder, where it is running."""
    served = there.process if there is not None else None
    if served is None or served.folder != str(folder) or served.unit is None:
        return "it is not running as a service"
    return units.read_unit(served.unit, machine.run)


def _port_held(there: processes.Listener | str | None, config: Path, port: int, folder: Path) -> Iterator[Finding]:
    """Whether its port belongs to it; a server that is not running is no finding here."""
    if isinstance(there, str):
        yield unseen(str(config), f"who has port {port}: {there}")
    elif there is not None and there.process is None:
        yield unseen(str(config), f"whose process has port {port}: another user's", "run doctor as root")
    elif there is not None and there.process is not None and there.process.folder not in (None, str(folder)):
        yield Finding(
            "error",
            str(config),
            f"port {port} belongs to {there.who}, which does not run in {folder}",
            "clients talk to that process; TabbyAPI itself moves to the next port without failing",
            f"see what it is (ps -fp {there.process.pid}), end it, and restart TabbyAPI",
        )

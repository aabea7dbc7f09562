"""What doctor looks at on one machine, here or by ssh: cards, services, files and mounts. Reads only; each look has an end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError, HydraError
from ...hardware import nvml
from ...hardware.gpu import Gpu
from ...planning import plan
from .. import processes, units
from ..commands import Run, run
from ..storage import links, mount_of, read_speed
from ..tabby_plan import TabbyConfig
from .cards import CardFacts, check_cards, check_draft, check_room, emptied
from .files import check_tabby_file
from .folders import check_folder, folder_facts
from .report import Finding, unseen
from .services import ServiceFacts, check_service
from .storage import check_storage

__all__ = ["Machine", "ModelHere", "ServiceHere", "alone", "inspect", "services_in"]

# The oldest exllamav3 that TabbyAPI e632af4 starts with.
_EXLLAMAV3 = (1, 4, 1)


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


def inspect(services: Sequence[ServiceHere], machine: Machine) -> Iterator[Finding]:
    """Every finding on this machine."""
    listeners, cards = machine.listeners(), tuple(machine.gpus())
    for service in services:
        unit = units.read_unit(service.unit, machine.run)
        errors: Sequence[str] | str = units.last_errors(service.unit, machine.run) if isinstance(unit, units.Unit) else ()
        yield from check_service(
            ServiceFacts(service.name, service.kind, service.port, listeners, unit, errors, service.parallel, service.shared)
        )
        if service.kind == "tabby":
            yield from _tabby(service, unit, cards, machine)
    folders = dict.fromkeys(Path(model.path).parent for service in services for model in service.models)
    for folder in folders:
        yield from _storage(folder, machine)


def _tabby(service: ServiceHere, unit: units.Unit | str, cards: tuple[Gpu, ...], machine: Machine) -> Iterator[Finding]:
    packages = _packages(service.python, machine.root)
    order = None if isinstance(unit, str) else unit.environment.get("CUDA_DEVICE_ORDER", "")
    yield from check_cards(CardFacts(cards, machine.driver(), _cuda(packages.get("torch", "")), order), service.name)
    yield from _versions(service, packages)
    mine = [card for number, card in enumerate(cards) if service.cards is None or number in service.cards]
    if service.folder is not None:
        date = machine.run(["git", "-C", service.folder, "log", "-1", "--format=%cs"], 5.0)
        version = date.out.strip() if date.status == 0 else None
        config = Path(service.folder) / "config.yml"
        yield from check_tabby_file(config, version, port=service.port)
        if str(configured := _configured_model(config)) not in [model.path for model in service.models]:
            yield from _folder(configured, service.name, machine)
        yield from _as_configured(config, mine)
    for model in service.models:
        yield from _model(service, model, mine, machine)


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


# ---- what is installed ---------------------------------------------------------------------------------------


def _packages(python: str | None, root: Path) -> dict[str, str]:
    """Versions of the packages beside an interpreter, by the names of their folders."""
    if python is None:
        return {}
    home = root.joinpath(*Path(python).parts[1:-2])
    found = home.glob("lib/python*/site-packages/*.dist-info")
    return dict(place.name.removesuffix(".dist-info").split("-", 1) for place in found if "-" in place.name)


def _cuda(version: str) -> int | None:
    """The major CUDA version of a torch wheel: 12 for 2.9.0+cu128."""
    found = re.search(r"\+cu(\d{2})\d", version)
    return int(found[1]) if found else None


def _versions(service: ServiceHere, packages: dict[str, str]) -> Iterator[Finding]:
    if service.python is None:
        return
    version = packages.get("exllamav3")
    if version is None:
        yield unseen(service.name, f"the version of exllamav3: {service.python} has none beside it")
    elif tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3])) < _EXLLAMAV3:
        yield Finding(
            "error",
            service.name,
            f"exllamav3 is {version}",
            "TabbyAPI of August 2026 does not load models with one older than 1.4.1",
            "update TabbyAPI's environment with its own start script",
        )


def alone(config: Path, machine: Machine) -> Iterator[Finding]:
    """A TabbyAPI known by its config.yml alone: the file, the folder of the model that it names, and whether that fits here."""
    yield from check_tabby_file(config)
    if not config.is_file():
        return
    yield from _as_configured(config, machine.gpus())
    folder = _configured_model(config)
    yield from _folder(folder, str(config), machine)
    if folder is not None:
        yield from _storage(folder.parent, machine)

"""From the tables of a fleet file to plans: each model with its files, its cards and its server's habits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, HydraError
from ..hardware import host as machine
from ..hardware import nvml
from ..hardware.gpu import Gpu
from ..models.spec import ModelSpec
from ..planner.report import Plan
from ..planning import plan
from ..transport.foresight import gguf_name
from ..units import Size, gib
from .names import format_of, models_of
from .report import FleetPlan, HostPlan, Row
from .residence import Residence, Tenant, gpu_of
from .schema import Draft, FleetFile, Host, Model, Server
from .source import Source

__all__ = ["forecast", "foreseen", "server_cards"]


def forecast(file: FleetFile, source: Source) -> FleetPlan:
    """Every model of every server on its own cards, as if nothing else ran there. Reads headers; nothing is asked or loaded."""
    places = {name: _residence(host) for name, host in file.hosts.items() if host.cards is not None}
    tenants: dict[str, list[Tenant]] = {name: [] for name in places}
    rows = []
    for server_name, server, model_name, model in models_of(file):
        row, tenant = _row(server_name, server, model_name, model, places, source)
        rows.append(row)
        if tenant is not None and row.fits:
            tenants[row.host].append(tenant)
    hosts = tuple(_host_plan(name, place, tenants[name]) for name, place in places.items())
    unlisted = tuple(name for name, server in file.servers.items() if server.models is None)
    return FleetPlan(str(source.path), hosts, tuple(_settled(rows, places, tenants)), unlisted)


def foreseen(
    file: FleetFile, source: Source, server_name: str, model_name: str, *, context: int | None = None, cache: str | None = None
) -> Row | None:
    """One model alone, with another context or cache than the file's where these are given; None for one that is not listed."""
    server = file.servers[server_name]
    model = (server.models or {}).get(model_name)
    if model is None:
        return None
    wish = {"context": context, "cache": cache}
    asked = model.model_copy(update={name: value for name, value in wish.items() if value is not None})
    host = file.hosts.get(server.host or "")
    places = {} if host is None or host.cards is None else {str(server.host): _residence(host)}
    return _row(server_name, server, model_name, asked, places, source)[0]


def _row(
    server_name: str, server: Server, model_name: str, model: Model, places: Mapping[str, Residence], source: Source
) -> tuple[Row, Tenant | None]:
    """One model on its server's cards: what is known of it, and as a tenant of the machine where it could be planned."""
    row = Row(server.host or "", server_name, model_name, model.name or model_name, model.context or server.context, model.cache)
    if server.host is None or server.host not in places:
        return replace(row, error=f"{server_name} is on no host whose cards are named"), None
    place = places[server.host]
    try:
        memory = _plan(server, row, model, place, source) if model.takes is None else gib(model.takes)
        tenant = Tenant(server_name, server.kind, model_name, memory, _numbers(server, place))
    except HydraError as error:
        return replace(row, error=str(error)), None
    return _judged(row, memory, fits=place.holds([tenant])), tenant


def _judged(row: Row, memory: Plan | Size, *, fits: bool) -> Row:
    if isinstance(memory, Size):
        return replace(row, takes=memory, fits=fits)
    return replace(row, plan=memory, fits=fits, context=memory.request.context, cache=memory.request.rate.name)


def server_cards(file: FleetFile, server: Server) -> tuple[Gpu, ...]:
    """The cards that a server loads on, as they would be if nothing ran on them; () for one without any, or without a host."""
    if server.host is None or file.hosts[server.host].cards is None:
        return ()
    place = _residence(file.hosts[server.host])
    return tuple(place.cards[number] for number in _wanted(server, place) if number < len(place.cards))


def _residence(host: Host) -> Residence:
    if host.here:
        ram = machine.host_memory().available if host.ram is None else gib(host.ram)
        return Residence(tuple(nvml.gpus(empty=True)), ram)
    return Residence(tuple(gpu_of(card) for card in host.cards or ()), None if host.ram is None else gib(host.ram))


def _wanted(server: Server, place: Residence) -> Sequence[int]:
    return range(len(place.cards)) if server.use_cards is None else server.use_cards


def _numbers(server: Server, place: Residence) -> tuple[int, ...]:
    """The positions of its cards. Raises ConfigError for one that is not there: "this machine" has what it has."""
    wanted = _wanted(server, place)
    if missing := [number for number in wanted if number >= len(place.cards)]:
        raise ConfigError(
            f"use_cards: there is no card {missing[0]} on {server.host}", hint="counted from 0, as hydra-infer gpus"
        )
    return tuple(wanted)


def _plan(server: Server, row: Row, model: Model, place: Residence, source: Source) -> Plan:
    files, imagined = _files(server, row.local_name, model.config, source)
    asked = {name: getattr(model, name) for name in ("cache", "split", "gpu_split", "reserve", "slots", "chunk")}
    if server.kind == "ollama":  # it keeps the context as often as it answers at once
        asked["slots"] = model.slots or server.max_parallel
    planned = plan(
        files,
        gpus=[place.cards[number] for number in _numbers(server, place)],
        context=row.context or 8192,  # plan()'s own default
        engine="tabby" if server.kind == "tabby" else None,
        bpw=model.bpw if imagined else None,
        format=format_of(server, model) if imagined else None,
        draft=_draft_files(server, model.draft, source),
        draft_tokens=model.draft.tokens if model.draft else None,
        **{name: value for name, value in asked.items() if value is not None},
    )
    request = replace(planned.request, ram=place.ram)
    # What was planned lies on its server, not where the config.json lies that described it here.
    if imagined:
        request = replace(request, spec=_at(request.spec, server, row.local_name))
    drafter = request.drafter
    if model.draft is not None and drafter is not None and drafter.spec is not None:
        request = replace(request, drafter=replace(drafter, spec=_at(drafter.spec, server, model.draft.name)))
    return Plan.of(request)


def _files(server: Server, local: str, config: str | None, source: Source) -> tuple[Path, bool]:
    """Where a model's files are, and whether it is only its config.json."""
    if server.model_dir is not None:
        folder = source.folder / Path(server.model_dir).expanduser()
        there = folder / (gguf_name(local) if server.kind == "ollama" else local)
        if there.exists():
            return there, False
    if config is None:
        raise HydraError(f"the files of {local} are not here", hint="plan it from its config: with bpw:, or say what it takes:")
    return source.folder / Path(config).expanduser(), True


def _draft_files(server: Server, draft: Draft | None, source: Source) -> str | Path | None:
    if draft is None:
        return None
    if draft.name in ("mtp", "ngram"):
        return draft.name
    return _files(server, draft.name, draft.config, source)[0]


def _at(spec: ModelSpec, server: Server, local: str) -> ModelSpec:
    return replace(spec, name=local, path=Path(server.model_dir or "") / local)


def _host_plan(name: str, place: Residence, tenants: list[Tenant]) -> HostPlan:
    groups = tuple(tuple((one.server, one.model) for one in group) for group in place.groups(tenants))
    return HostPlan(name, place.cards, place.ram, groups)


def _settled(rows: list[Row], places: dict[str, Residence], tenants: dict[str, list[Tenant]]) -> Iterator[Row]:
    """The rows with whom each would send away."""
    for row in rows:
        mine = next((one for one in tenants.get(row.host, ()) if (one.server, one.model) == (row.server, row.model)), None)
        if mine is None:
            yield row
            continue
        evicted, blocking = places[row.host].displaced(mine, tenants[row.host])
        yield replace(
            row, evicts=tuple(one.model for one in evicted), not_beside=tuple((one.server, one.model) for one in blocking)
        )

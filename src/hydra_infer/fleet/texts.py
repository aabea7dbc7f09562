"""The texts of other programs' files, as a fleet means them: of TabbyAPI, Ollama and LiteLLM, and of what starts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..configs.compose import LiteLLMService, compose
from ..configs.nix import nixos_module
from ..configs.services import OllamaService, TabbyService
from ..configs.systemd import ollama_dropin, tabby_unit
from ..errors import ConfigError
from .address import is_loopback, port_of
from .litellm import key_variables, proxy_config

if TYPE_CHECKING:
    from .report import FleetPlan
    from .schema import FleetFile, Server

__all__ = ["texts"]


def texts(file: FleetFile, planned: FleetPlan) -> tuple[dict[str, str], list[str]]:
    """By place in the folder, and notes of what was left out. No key is in any text, only where each is.

    Raises DoesNotFit for a model of TabbyAPI that does not fit its cards, ConfigError for what a file cannot hold.
    """
    notes: list[str] = []
    parts = {"tabby": _tabby, "ollama": _ollama, "litellm": _litellm}
    found: dict[str, str] = {}
    for name, server in file.servers.items():
        if server.kind in parts:
            found |= {f"{name}/{place}": text for place, text in parts[server.kind](file, name, planned, notes)}
    for host in file.hosts:
        found |= {f"nixos/{host}.nix": text for text in _nixos(file, host, notes)}
    return found, notes


def _tabby(file: FleetFile, name: str, planned: FleetPlan, notes: list[str]) -> Iterator[tuple[str, str]]:
    """config.yml for the first model, which is loaded at the start, and a tabby_config.yml for the folder of each one: what is
    loaded later takes nothing from config.yml."""
    server = file.servers[name]
    for number, row in enumerate(row for row in planned.rows if row.server == name):
        if row.plan is None:
            notes.append(f"{row.model} on {name} has no configuration: {row.error or 'it is not planned'}")
            continue
        if server.model_dir is None:
            raise ConfigError(f"{name} has no model_dir:, and TabbyAPI's configuration names it")
        text = row.plan.tabby_config()
        if number == 0:
            yield "config.yml", f"{text}network:\n  host: {_bind(server)}\n  port: {_port(server)}\n"
        # Where the model is, is where this file lies.
        lines = [line for line in text.splitlines() if not line.startswith(("  model_dir:", "  model_name:"))]
        yield f"models/{row.local_name}/tabby_config.yml", "\n".join([*lines, ""])
    if server.service is None:
        notes.append(f"{name} has no unit: service: says where its TabbyAPI is")
    else:
        yield f"{name}.service", tabby_unit(_tabby_service(file, name))


def _ollama(file: FleetFile, name: str, _: FleetPlan, notes: list[str]) -> Iterator[tuple[str, str]]:
    if any(model.cache for model in (file.servers[name].models or {}).values()):
        notes.append(f"{name} has one cache for all its models, OLLAMA_KV_CACHE_TYPE, which is not written here")
    service = _ollama_service(file, name)
    yield "ollama.service.d/hydra.conf", ollama_dropin(service)
    yield "compose.yaml", compose(ollama=[service])


def _litellm(file: FleetFile, name: str, _: FleetPlan, notes: list[str]) -> Iterator[tuple[str, str]]:
    server, variables = file.servers[name], key_variables(file)
    for other, variable in variables.items():
        key = file.servers[other].api_key
        if key is not None and key.env is None:
            notes.append(f"{name} finds the key of {other} in its environment, as {variable}")
    yield "litellm.yaml", proxy_config(file, notes)
    keys = tuple(dict.fromkeys(variables.values()))
    yield "compose.yaml", compose(litellm=LiteLLMService(keys=keys, bind=_bind(server), port=_port(server)))


def _nixos(file: FleetFile, host: str, notes: list[str]) -> Iterator[str]:
    """One machine's module; none where it runs nothing that is known well enough."""
    here = {name: server for name, server in file.servers.items() if server.host == host}
    tabby = [_tabby_service(file, name) for name, server in here.items() if server.kind == "tabby" and server.service]
    ollama = [_ollama_service(file, name) for name, server in here.items() if server.kind == "ollama"]
    if len(ollama) > 1:
        notes.append(f"{host} runs {len(ollama)} Ollamas, and NixOS knows one: its module has the first")
    if tabby or ollama:
        yield nixos_module(tabby=tabby, ollama=ollama[0] if ollama else None)


def _tabby_service(file: FleetFile, name: str) -> TabbyService:
    server = file.servers[name]
    assert server.service is not None
    said = server.service.model_dump(exclude_none=True)
    said["prestart"] = tuple(said.get("prestart", ()))
    cards = tuple(map(str, server.use_cards or ()))
    mounts = (server.model_dir,) if server.model_dir else ()
    return TabbyService(name=name, description=f"TabbyAPI ({name})", cards=cards, mounts=mounts, **said)


def _ollama_service(file: FleetFile, name: str) -> OllamaService:
    server = file.servers[name]
    host = file.hosts.get(server.host or "")
    cards = None if server.use_cards is None else tuple(map(str, server.use_cards))
    return OllamaService(
        host=_bind(server),
        port=_port(server),
        parallel=server.max_parallel or 1,
        context=server.context,
        cards=() if host is not None and host.cards == [] else cards,
        cloud=bool(server.allow_cloud),
    )


def _bind(server: Server) -> str:
    """Where it listens: other machines reach it where its address is one that they can reach."""
    return "127.0.0.1" if is_loopback(server.url) else "0.0.0.0"


def _port(server: Server) -> int:
    return port_of(server.url, server.kind)

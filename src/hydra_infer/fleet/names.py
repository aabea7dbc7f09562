"""The names in a fleet file that mean something elsewhere in it: hosts, cards, aliases, fallbacks, caches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, HydraError
from ..planner.cache import rate_of
from .residence import gpu_of
from .source import Source, near

if TYPE_CHECKING:
    from .schema import FleetFile, Host, Model, Server

__all__ = ["aliases_of", "check_names", "fallbacks_of", "format_of", "models_of"]

Field = tuple[str | int, ...]
_FORMATS = {"tabby": "exl3", "ollama": "gguf"}


def models_of(file: FleetFile) -> Iterator[tuple[str, Server, str, Model]]:
    """Every model of every server, in the order of the file."""
    for server, table in file.servers.items():
        for model, row in (table.models or {}).items():
            yield server, table, model, row


def format_of(server: Server, model: Model) -> str | None:
    """The form of the model's weights, None where neither it nor its kind of server says."""
    return model.format or _FORMATS.get(server.kind)


def aliases_of(file: FleetFile) -> dict[str, str]:
    """Other names for models, as Router takes them."""
    return {alias: model for _, _, model, row in models_of(file) for alias in row.aliases}


def fallbacks_of(file: FleetFile) -> dict[str, list[str]]:
    """Models to turn to, as Router takes them."""
    return {model: row.fallbacks for _, _, model, row in models_of(file) if row.fallbacks}


def check_names(file: FleetFile, source: Source) -> None:
    """Raises ConfigError, with file and line, for a name that nothing answers to and one that means two things."""
    for name, host in file.hosts.items():
        _check_cards(source, name, host)
    for name, server in file.servers.items():
        _check_kind(source, name, server)
        _check_host(file, source, name, server)
    for server_name, server, model, row in models_of(file):
        _check_model(source, ("servers", server_name, "models", model), server, row)
    _check_aliases(file, source)
    _check_fallbacks(file, source)


def _check_cards(source: Source, name: str, host: Host) -> None:
    for number, card in enumerate(host.cards or () if not host.here else ()):
        try:
            gpu_of(card)
        except HydraError as error:
            raise source.wrong(("hosts", name, "cards", number), f"is no card: {error.message}", error.hint) from error


def _check_kind(source: Source, name: str, server: Server) -> None:
    for field in ("service", "admin_key"):
        if getattr(server, field) is not None and server.kind != "tabby":
            raise source.wrong(("servers", name, field), f"is for kind tabby, and this is {server.kind}")


def _check_host(file: FleetFile, source: Source, name: str, server: Server) -> None:
    field: Field = ("servers", name)
    if server.host is not None and server.host not in file.hosts:
        raise source.wrong((*field, "host"), f"is no host of this file: {server.host!r}", near(server.host, file.hosts))
    if server.use_cards is None:
        return
    if server.host is None:
        raise source.wrong((*field, "use_cards"), "needs host: whose cards are meant?")
    host = file.hosts[server.host]
    count = len(host.cards or ())
    if len(set(server.use_cards)) < len(server.use_cards) or (not host.here and any(one >= count for one in server.use_cards)):
        raise source.wrong((*field, "use_cards"), f"is {server.use_cards}, and {server.host} has {count} cards, counted from 0")


def _check_model(source: Source, field: Field, server: Server, model: Model) -> None:
    form = format_of(server, model)
    if (model.config is None) != (model.bpw is None):
        raise source.wrong(field, "needs both or neither of config and bpw", "bits per weight, for example 4.0")
    if model.takes is not None and model.config is not None:
        raise source.wrong((*field, "takes"), "is for a model that cannot be planned, and config plans it")
    if model.config is not None and form is None:
        raise source.wrong((*field, "config"), f"needs format beside it: a server of kind {server.kind} may load any")
    if model.cache is not None and form is not None:
        try:
            rate_of(model.cache, form)
        except ConfigError as error:
            raise source.wrong((*field, "cache"), f"is no cache of {form}: {error.message}", error.hint) from error


def _check_aliases(file: FleetFile, source: Source) -> None:
    names = {model for _, _, model, _ in models_of(file)}
    meant: dict[str, str] = {}
    for server, _, model, row in models_of(file):
        field = ("servers", server, "models", model, "aliases")
        for alias in row.aliases:
            if alias in names:
                raise source.wrong(field, f"has {alias!r}, which is a model's own name")
            if meant.setdefault(alias, model) != model:
                raise source.wrong(field, f"has {alias!r}, which is an alias of {meant[alias]!r} already")


def _check_fallbacks(file: FleetFile, source: Source) -> None:
    listed = all(server.models is not None for server in file.servers.values())
    known = {model for _, _, model, _ in models_of(file)} | aliases_of(file).keys()
    said: dict[str, list[str]] = {}
    for server, _, model, row in models_of(file):
        field = ("servers", server, "models", model, "fallbacks")
        if row.fallbacks and said.setdefault(model, row.fallbacks) != row.fallbacks:
            raise source.wrong(field, f"differs from what {model!r} has at another server", "say it once")
        for other in row.fallbacks:
            if listed and other not in known:  # else a server that is asked for its list may have it
                raise source.wrong(field, f"has {other!r}, which no server here serves", near(other, known))

"""Fleet: everything that is made from one hydra.yaml."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import ConfigError
from ..routing.backend import Backend
from .keys import key_of, warn_of_literals
from .names import aliases_of, check_names, fallbacks_of
from .source import Source, near

if TYPE_CHECKING:
    from ..ops.doctor.report import Report
    from ..planner.report import Plan
    from ..router import Router
    from .render import Rendering
    from .report import FleetPlan, Row
    from .schema import FleetFile, Model, Server

__all__ = ["Fleet"]

# Fields of a server that are a Backend's options under the same name.
_OPTIONS = (
    "weight max_parallel context tags allow_cloud input_cost_per_token output_cost_per_token "
    "connect_timeout first_token_timeout idle_timeout timeout"
).split()


class Fleet:
    """The machines, servers and models of one hydra.yaml. Making it asks nobody and needs no key."""

    def __init__(self, file: FleetFile, source: Source, urls: Mapping[str, str] | None = None) -> None:
        """As `from_file`, with the file read already."""
        self._file, self._source, self._urls = file, source, dict(urls or {})
        for name in self._urls:
            if name not in file.servers:
                raise ConfigError(f"urls= has {name!r}, which is no server of {source.path}", hint=near(name, file.servers))
        check_names(file, source)
        for name in file.servers:
            self._backend(name)  # an address or a model that cannot be is told now, not at the first call

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, urls: Mapping[str, str] | None = None) -> Self:
        """Read a hydra.yaml. `urls` puts other addresses in the place of the file's, by server.

        Raises ConfigError with file, line and field, and MissingExtra where ruamel.yaml is not installed. Keys are fetched when
        a router is made; one that stands in the file itself is a warning where everybody on the machine can read the file.
        """
        source = Source(Path(path))
        file = source.read()
        warn_of_literals(file, source)
        return cls(file, source, urls)

    @property
    def servers(self) -> tuple[str, ...]:
        """Their names, in the order of the file."""
        return tuple(self._file.servers)

    @property
    def path(self) -> Path:
        """The file it was made from."""
        return self._source.path

    @property
    def tables(self) -> FleetFile:
        """The file's tables, checked."""
        return self._file

    def __repr__(self) -> str:
        return f"<Fleet {self._source.path}: {', '.join(self.servers)}>"

    def settings(self) -> dict[str, Any]:
        """The arguments that make a Router of this file, with every key fetched.

        Raises ConfigError with the line of a key that is not where the file says.
        """
        keys = {
            name: {which: key_of(self._file, self._source, name, which, os.environ) for which in ("api_key", "admin_key")}
            for name in self.servers
        }
        return {
            "backends": [
                dataclasses.replace(self._backend(name, **keys[name]), gpus=self._cards(self._file.servers[name]))
                for name in self.servers
            ],
            "aliases": aliases_of(self._file),
            "fallbacks": fallbacks_of(self._file),
            "plan_of": self._plan_of,
            **self._file.router.model_dump(exclude_none=True),
        }

    def router(self, **settings: Any) -> Router:
        """A Router over all servers, in the order of the file; `settings` are Router's own and win over the file."""
        from ..router import Router

        return Router(**{**self.settings(), **settings})

    def plan(self) -> FleetPlan:
        """Every model on its own server's cards: what fits, what can stay there together, what evicts what.

        Reads model folders where they are here and config.json where the file names one; asks no server.
        """
        from .forecast import forecast

        return forecast(self._file, self._source)

    def foresee(self, server: str, model: str, *, context: int | None = None, cache: str | None = None) -> Row | None:
        """What the plan says of one model alone, with another context or cache than the file's where these are given.

        None where the file does not list it. Raises ConfigError for a cache that is none.
        """
        from .forecast import foreseen

        return foreseen(self._file, self._source, server, model, context=context, cache=cache)

    def _plan_of(self, server: str, model: str, *, context: int | None, cache: str | None) -> Plan | None:
        """What a Router of this file plans a load by; it may have other servers beside those of the file."""
        if server not in self._file.servers:
            return None
        row = self.foresee(server, model, context=context, cache=cache)
        return None if row is None else row.plan

    def doctor(self, **options: Any) -> Report:
        """What is wrong with it now, and what mends that: hydra_infer.doctor(fleet) with its options. Reads only."""
        from ..ops.doctor.doctor import examine  # upwards, as Router.from_file: the short name for the same thing

        return examine(self._file, self._source, self._backend, **options)

    def rendering(self, out: str | os.PathLike[str]) -> Rendering:
        """What render() would write: `.files`, their `.diff` from what is in `out` now, `.replaces`, `.write()`."""
        from .render import compared
        from .texts import texts

        return compared(*texts(self._file, self.plan()), Path(out))

    def render(self, out: str | os.PathLike[str]) -> Rendering:
        """Write the configuration of every server, and of what stands around them, into the folder `out`; no key is in it.

        A file that is there and differs is backed up beside it first. Raises DoesNotFit for a model that does not fit where it
        is to run; then nothing is written.
        """
        rendering = self.rendering(out)
        rendering.write()
        return rendering

    def _backend(self, name: str, **keys: str | None) -> Backend:
        server = self._file.servers[name]
        options = {option: value for option in _OPTIONS if (value := getattr(server, option)) is not None}
        models = None
        if server.models is not None:
            models = {said: _local(server, said, model) for said, model in server.models.items()}
        make = getattr(Backend, server.kind)
        folder = None if server.model_dir is None else self._source.folder / Path(server.model_dir).expanduser()
        # One that is on the server's machine alone cannot be looked into before a load.
        model_dir = str(folder) if folder is not None and folder.is_dir() else None
        given = {which: key for which, key in keys.items() if key is not None}
        try:
            row: Backend = make(
                self._urls.get(name, server.url), models=models, name=name, model_dir=model_dir, **given, **options
            )
        except ConfigError as error:
            raise self._source.wrong(("servers", name), f"cannot be: {error.message}", error.hint) from error
        return row

    def _cards(self, server: Server) -> tuple[Any, ...] | None:
        """The server's cards, so that what it is to load can be planned; None where the file names none."""
        from .forecast import server_cards

        return server_cards(self._file, server) or None


def _local(server: Server, said: str, model: Model) -> dict[str, Any]:
    """A model as Backend takes it. Only TabbyAPI is told a cache with each load; Ollama has one for all it loads."""
    cache = model.cache if server.kind == "tabby" else None
    return {"name": model.name or said, "context": model.context, "cache": cache, "tags": model.tags}

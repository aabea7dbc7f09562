"""Backend: one server (or one engine in this process) as a row of data."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..wire.ollama import is_cloud

if TYPE_CHECKING:
    from ..engines.engine import Engine

__all__ = ["Backend", "LocalModel", "Timeouts"]

Models = Mapping[str, "str | Mapping[str, Any]"] | Iterable[str] | None

_DEFAULT_PORTS = {"ollama": 11434, "tabby": 5000, "litellm": 4000, "openai": 8000}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None means the Router's own. What each bounds is told at Router."""

    connect_timeout: float | None = None
    first_token_timeout: float | None = None
    idle_timeout: float | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in _names(Timeouts):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise ConfigError(f"{name}={value!r} is not a time", hint="give seconds above 0")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What one backend calls a model; the context it serves it with (tokens) and, on TabbyAPI, the cache it loads it with, where
    that is known; tags beside its backend's."""

    name: str
    context: int | None = None
    cache: str | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Backend:
    """One server. Build it with `tabby`, `ollama`, `litellm`, `openai` or `engine`.

    `models` maps the names that users say to what the server calls them; None means "ask the server". Keys never show in
    repr, logs or errors.
    """

    kind: str
    url: str
    name: str
    models: Mapping[str, LocalModel] | None = field(default=None, hash=False)
    api_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    max_parallel: int | None = None
    context: int | None = None
    tags: frozenset[str] = frozenset()
    gpus: tuple[Any, ...] | None = None
    model_dir: str | None = None
    allow_cloud: bool = False
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    source: Any = field(default=None, repr=False, compare=False)  # the Engine behind kind "engine"

    @classmethod
    def tabby(
        cls,
        url: str,
        models: Models = None,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        **options: Any,
    ) -> Backend:
        """A TabbyAPI server. `admin_key` is needed only to load and unload models."""
        return _row("tabby", url, models, api_key=api_key, admin_key=admin_key, **options)

    @classmethod
    def ollama(cls, url: str, models: Models = None, **options: Any) -> Backend:
        """An Ollama server; one request at a time unless max_parallel says otherwise (its queue has no end and no signal).

        Names that run in Ollama's cloud (`…:cloud`, `…-cloud`) are refused, since a local server would pass prompts on, unless
        `allow_cloud=True`; even then they must be named in `models`.
        """
        return _row("ollama", url, models, **{"max_parallel": 1, **options})

    @classmethod
    def litellm(cls, url: str, *, api_key: str | None = None, models: Models = None, **options: Any) -> Backend:
        """A LiteLLM proxy; its model groups are its models."""
        return _row("litellm", url, models, api_key=api_key, **options)

    @classmethod
    def openai(cls, url: str, *, api_key: str | None = None, models: Models = None, **options: Any) -> Backend:
        """Any OpenAI-compatible server: vLLM, SGLang, llama-server, llama-swap, another Router."""
        return _row("openai", url, models, api_key=api_key, **options)

    @classmethod
    def engine(cls, engine: Engine, models: Models = None, **options: Any) -> Backend:
        """An Engine in this process, answering under the given names (default: its own)."""
        names = [engine.info.model] if models is None else models
        options.setdefault("name", f"engine:{engine.info.model}")
        options.setdefault("context", engine.info.context)
        return dataclasses.replace(_row("engine", "engine://local", names, **options), source=engine)

    def local(self, model: str) -> LocalModel | None:
        """What this backend calls `model`, by its own table; None when the table lacks it or there is none."""
        return self.models.get(model) if self.models is not None else None

    def tags_of(self, model: str) -> frozenset[str]:
        """The backend's tags, and those that `model` has here."""
        local = self.local(model)
        return self.tags if local is None else self.tags | local.tags

    def headers(self) -> dict[str, str]:
        """The headers that carry this backend's key; sent to this backend and to nobody else."""
        return _bearer(self.api_key)

    def admin_headers(self) -> dict[str, str]:
        """The headers for loading and unloading: the admin key, which TabbyAPI takes everywhere, else the ordinary one."""
        return _bearer(self.admin_key or self.api_key)


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _row(kind: str, url: str, models: Models, **options: Any) -> Backend:
    timeouts = dict(options.pop("timeouts", None) or {})
    timeouts |= {key: options.pop(key) for key in list(options) if key in _names(Timeouts)}
    known = _names(Backend) - {"kind", "url", "models", "source"}
    _refuse_unknown(options, known | _names(Timeouts), f"Backend.{kind}")
    _refuse_unknown(timeouts, _names(Timeouts), f"Backend.{kind}(timeouts=…)")
    address = url if kind == "engine" else _origin(url, kind)
    for key in ("api_key", "admin_key"):
        value = options.get(key)
        if value is not None and (not isinstance(value, str) or not value.isascii() or not value.isprintable()):
            raise ConfigError(f"the {key} of {address} is not a header value", hint="plain printable characters, no line break")
    options["tags"] = _tags(options.get("tags", ()))
    options["name"] = str(options.get("name") or urlsplit(address).netloc)
    if options.get("gpus") is not None:
        options["gpus"] = tuple(options["gpus"]) if not isinstance(options["gpus"], str) else (options["gpus"],)
    table = _models(kind, models, allow_cloud=bool(options.get("allow_cloud")))
    row = Backend(kind=kind, url=address, models=table, timeouts=Timeouts(**timeouts), **options)
    _check_numbers(row)
    return row


def _origin(url: str, kind: str) -> str:
    """scheme://host:port/prefix without a trailing /v1 or slash, from a URL with or without scheme."""
    text = url.strip() if isinstance(url, str) else ""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise ConfigError(
            f"{_without_secret(text)!r} is not a server's address",
            hint=f"for example http://127.0.0.1:{_DEFAULT_PORTS[kind]}",
        )
    if parts.username or parts.password:
        raise ConfigError(
            f"the address of {parts.hostname} carries a password",
            hint="give it as api_key=…, where it is kept out of logs",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


def _without_secret(text: str) -> str:
    return text.rsplit("@", 1)[-1]


def _models(kind: str, models: Models, *, allow_cloud: bool) -> dict[str, LocalModel] | None:
    if models is None:
        return None
    if isinstance(models, str):
        models = [models]
    pairs = models.items() if isinstance(models, Mapping) else [(name, name) for name in models]
    table = {}
    for said, local in pairs:
        if isinstance(local, Mapping):
            _refuse_unknown(local, _names(LocalModel), f"models[{said!r}]")
            entry = LocalModel(**{"name": said, **local, "tags": _tags(local.get("tags", ()))})
        else:
            entry = LocalModel(name=local)
        if not all(isinstance(word, str) and word for word in (said, entry.name)):
            raise ConfigError(f"models: {said!r} -> {entry.name!r} is not a pair of names")
        if kind == "ollama":
            entry = dataclasses.replace(entry, name=entry.name.removesuffix(":latest"))  # as its own lists have it here
        if entry.cache is not None and not isinstance(entry.cache, str):
            raise ConfigError(f"models[{said!r}]: cache={entry.cache!r} is not a cache", hint="for example 'q8'")
        if entry.context is not None and not (isinstance(entry.context, int) and entry.context > 0):
            raise ConfigError(f"models[{said!r}]: context={entry.context!r} is not a number of tokens")
        if kind == "ollama" and is_cloud(entry.name) and not allow_cloud:
            raise ConfigError(
                f"{entry.name!r} runs in Ollama's cloud, not on this server",
                hint="a local server would send the prompts away; name a local model, or say allow_cloud=True",
            )
        table[said] = entry
    return table


def _check_numbers(row: Backend) -> None:
    if not (_is_number(row.weight) and 0 <= row.weight < math.inf):
        raise ConfigError(f"{row.name}: weight={row.weight!r} is not a weight", hint="a number from 0 up")
    for key in ("max_parallel", "context"):
        value = getattr(row, key)
        if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise ConfigError(f"{row.name}: {key}={value!r} is not a whole number above 0")


def _tags(tags: Sequence[str] | str) -> frozenset[str]:
    return frozenset([tags] if isinstance(tags, str) else tags)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(cls: type[Any]) -> set[str]:
    return {item.name for item in dataclasses.fields(cls)}


def _refuse_unknown(given: Iterable[str], known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), n=1)
            raise ConfigError(
                f"{where} has no option {key!r}",
                hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}",
            )

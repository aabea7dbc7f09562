"""Servers that the system starts: TabbyAPI and Ollama as plain data, for systemd, NixOS and docker compose alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError
from .secrets import is_secret

__all__ = ["OllamaService", "TabbyService"]

# Go's durations, or seconds (ollama 0.32, envconfig).
_DURATION = re.compile(r"-?\d+|-?(\d+(\.\d+)?(h|ms|m|s))+")
_UNIT = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TabbyService:
    """One TabbyAPI. Paths are absolute, times seconds.

    `folder` is its checkout (config.yml and api_tokens.yml lie there), `python` its environment's interpreter. `prestart` is
    the command that refuses to start what cannot work, `prestart_seconds` the longest it may take: waiting for a card's
    memory, say. `load_seconds` is the longest a start may run before it fails or serves. After `attempts` starts in a row
    that failed the system gives up: a wrong configuration fails the same way every time.
    """

    folder: str
    python: str
    user: str
    name: str = "tabbyapi"
    description: str = "TabbyAPI"
    config: str | None = None
    prestart: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prestart_seconds: int = 120
    load_seconds: int = 600
    stop_seconds: int = 30
    restart_seconds: int = 30
    attempts: int = 3

    def __post_init__(self) -> None:
        if not _UNIT.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is no name for a unit", hint="letters, digits, dots and dashes")
        for path in (self.folder, self.python, *filter(None, (self.config,)), *self.mounts, *self.prestart[:1]):
            if not path.startswith("/"):
                raise ConfigError(f"{self.name}: {path!r} is not an absolute path", hint="a service has no home to start from")
        for variable in filter(is_secret, self.environment):
            raise ConfigError(
                f"{self.name}: everybody on the machine can read a unit's {variable}", hint="EnvironmentFile= in a drop-in"
            )
        for key in ("prestart_seconds", "load_seconds", "stop_seconds", "restart_seconds", "attempts"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{self.name}: {key}={getattr(self, key)!r} must be 1 or more")

    @property
    def start_limit_seconds(self) -> int:
        """The interval within which `attempts` starts are too many: one more than so many whole failures take.

        systemd gives up when start number attempts + 1 falls into the interval that began with the first. An interval shorter
        than `attempts` failures is never filled, and a model that does not fit is loaded for ever.
        """
        failure = self.prestart_seconds + self.load_seconds + self.stop_seconds + self.restart_seconds
        return (self.attempts + 1) * failure

    def command(self) -> tuple[str, ...]:
        """What starts it. With --config TabbyAPI ignores all other arguments, so there are none."""
        return (self.python, "main.py", *(("--config", self.config) if self.config else ()))

    def variables(self) -> dict[str, str]:
        """Its environment. gpu_split counts CUDA's devices, whose order is the fastest first unless told otherwise."""
        chosen = {"CUDA_VISIBLE_DEVICES": ",".join(self.cards)} if self.cards else {}
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **chosen, **self.environment}


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaService:
    """One Ollama. `cards` are indices or UUIDs: None is all of them, an empty tuple its CPU alone.

    `context` is tokens and holds for every model; left out, Ollama takes 4096 on cards of less than 23 GiB together.
    `parallel` requests at once each cost that context again. `keep_alive` is a duration ("10m"), "-1" for ever.
    """

    name: str = "ollama"
    host: str = "127.0.0.1"
    port: int = 11434
    parallel: int = 1
    keep_alive: str = "5m"
    context: int | None = None
    max_loaded: int | None = None
    models: str | None = None
    cards: tuple[str, ...] | None = None
    cloud: bool = False

    def __post_init__(self) -> None:
        if not _DURATION.fullmatch(self.keep_alive):
            raise ConfigError(
                f"{self.name}: keep_alive={self.keep_alive!r} is no duration", hint='"10m", "1h30m", or "-1" for ever'
            )
        for key in ("parallel", "context", "max_loaded", "port"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{self.name}: {key}={value!r} must be 1 or more")

    def variables(self) -> dict[str, str]:
        """Its environment beside OLLAMA_HOST (ollama 0.32, envconfig); a name ending in -cloud would send prompts away."""
        found: dict[str, object] = {"OLLAMA_NUM_PARALLEL": self.parallel, "OLLAMA_KEEP_ALIVE": self.keep_alive}
        if self.context is not None:
            found["OLLAMA_CONTEXT_LENGTH"] = self.context
        if self.max_loaded is not None:
            found["OLLAMA_MAX_LOADED_MODELS"] = self.max_loaded
        if not self.cloud:
            found["OLLAMA_NO_CLOUD"] = 1
        return {name: str(value) for name, value in found.items()}

    def visible(self) -> dict[str, str]:
        """Which cards it sees, where they are its environment's matter; -1 is none of them."""
        if self.cards is None:
            return {}
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(self.cards) or "-1"}

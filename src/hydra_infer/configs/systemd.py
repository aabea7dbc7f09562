"""systemd's files: a unit for TabbyAPI, and a drop-in that sets Ollama's environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import ConfigError
from .services import OllamaService, TabbyService

__all__ = ["Sections", "environment", "ollama_dropin", "sections", "tabby_unit"]

# Settings by section, in systemd's own syntax; a list is a setting that stands once for each of its values.
Sections = Mapping[str, Mapping[str, str | int | list[str]]]

_WHY = {
    "StartLimitIntervalSec": "So many whole failures fit in, each with its wait, load, stop and rest, and one more:\n"
    "# then systemd gives up, until `systemctl reset-failed`.",
    "Restart": "Always: with its port and the next one taken TabbyAPI ends with status 0.",
    "TimeoutStartSec": "Bounds ExecStartPre alone: the model loads after the start.",
    "LimitMEMLOCK": "As TabbyAPI's own container has them.",
}


def tabby_unit(service: TabbyService) -> str:
    """The text of /etc/systemd/system/NAME.service. Raises ConfigError for a value that no line of a unit can hold."""
    return _text({**sections(service), "Install": {"WantedBy": "multi-user.target"}})


def ollama_dropin(service: OllamaService) -> str:
    """The text of /etc/systemd/system/ollama.service.d/hydra.conf, over the unit that Ollama's installer writes."""
    folder = {"OLLAMA_MODELS": service.models} if service.models else {}
    variables = {"OLLAMA_HOST": f"{service.host}:{service.port}", **service.variables(), **service.visible(), **folder}
    unit: Sections = {"Unit": {"RequiresMountsFor": _word(service.models)}} if service.models else {}
    return _text({**unit, "Service": {"Environment": environment(variables)}})


def sections(service: TabbyService) -> Sections:
    """What systemd is told of a TabbyAPI."""
    mounts = {"RequiresMountsFor": " ".join(map(_word, service.mounts))} if service.mounts else {}
    prestart = {"ExecStartPre": _command(service.prestart)} if service.prestart else {}
    return {
        "Unit": {
            "Description": _line(service.description),
            "Wants": "network-online.target",
            "After": "network-online.target",
            **mounts,
            "StartLimitIntervalSec": service.start_limit_seconds,
            "StartLimitBurst": service.attempts,
        },
        "Service": {
            "Type": "exec",
            "User": _line(service.user),
            "WorkingDirectory": _line(service.folder),
            "Environment": environment(service.variables()),
            **prestart,
            "ExecStart": _command(service.command()),
            "Restart": "always",
            "RestartSec": service.restart_seconds,
            "TimeoutStartSec": service.prestart_seconds,
            "TimeoutStopSec": service.stop_seconds,
            "LimitMEMLOCK": "infinity",
            "LimitNOFILE": 1048576,
        },
    }


def environment(variables: Mapping[str, str]) -> list[str]:
    """NAME=value words, as Environment= reads them."""
    for name in variables:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ConfigError(f"{name!r} is no name for an environment variable")
    return [_word(f"{name}={value}") for name, value in variables.items()]


def _text(told: Sections) -> str:
    return "\n".join("".join(_section(name, settings)) for name, settings in told.items())


def _section(name: str, settings: Mapping[str, str | int | list[str]]) -> Iterable[str]:
    yield f"[{name}]\n"
    for key, value in settings.items():
        if key in _WHY:
            yield f"# {_WHY[key]}\n"
        for one in value if isinstance(value, list) else [value]:
            yield f"{key}={one}\n"


def _command(words: Iterable[str]) -> str:
    # In commands alone $ begins a variable.
    return " ".join(_word(word).replace("$", "$$") for word in words)


def _word(word: str) -> str:
    """One word as systemd.syntax(7) reads it: in quotes where it has spaces and the like."""
    text = _printable(word)
    if re.fullmatch(r"[^\s\"'\\;]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _line(text: str) -> str:
    """A value that is taken to the line's end as it stands; a backslash there would join the next line to it."""
    if text != text.strip() or text.endswith("\\"):
        raise ConfigError(f"{text!r} cannot stand in a unit", hint="no space around it, and no backslash at its end")
    return _printable(text)


def _printable(text: str) -> str:
    """A line break would begin another setting, and % begins a specifier."""
    if not text.isprintable():
        raise ConfigError(f"{text!r} cannot stand in a unit", hint="one line of printable characters")
    return text.replace("%", "%%")

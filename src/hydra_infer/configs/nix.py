"""A NixOS module for the same servers: TabbyAPI as a service of systemd, Ollama by nixpkgs' own options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .services import OllamaService, TabbyService
from .systemd import sections

__all__ = ["nixos_module"]


def nixos_module(*, tabby: Iterable[TabbyService] = (), ollama: OllamaService | None = None) -> str:
    """The text of a module for `imports` in configuration.nix. A machine has one services.ollama, so there is one here."""
    lines = ["{ ... }:", "{"]
    for service in tabby:
        told = sections(service)
        lines += _set(
            f"systemd.services.{_string(service.name)}",
            {"wantedBy": ["multi-user.target"], "unitConfig": told["Unit"], "serviceConfig": told["Service"]},
        )
    if ollama is not None:
        lines += _set("services.ollama", _ollama(ollama))
    return "\n".join([*lines, "}", ""])


def _ollama(service: OllamaService) -> dict[str, object]:
    # OLLAMA_HOST and OLLAMA_MODELS are made of host, port and models there (nixpkgs, services/misc/ollama.nix).
    folder = {"models": service.models} if service.models else {}
    variables = {**service.variables(), **service.visible()}
    return {"enable": True, "host": service.host, "port": service.port, **folder, "environmentVariables": variables}


def _set(name: str, values: Mapping[str, object], indent: str = "  ") -> Iterator[str]:
    yield f"{indent}{name} = {{"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _set(key, value, indent + "  ")
        else:
            yield f"{indent}  {key} = {_value(value)};"
    yield f"{indent}}};"


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(["[", *map(_value, value), "]"])
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else _string(str(value))


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'

"""LiteLLM's deployments as Backends: those on one server with the same key and options are one, so that it has one limit."""

from __future__ import annotations

from typing import Any

from ..configs.litellm import LiteLLMConfig
from ..errors import ConfigError
from .backend import Backend

__all__ = ["backends_of"]


def backends_of(config: LiteLLMConfig, where: str) -> list[Backend]:
    """A Backend for each server, in the file's order. Raises ConfigError with file and line for one that cannot be."""
    rows: dict[tuple[Any, ...], tuple[Any, dict[str, Any]]] = {}
    for one in config.deployments:
        key: tuple[Any, ...] = (one.kind, one.url, one.api_key, tuple(sorted(one.options.items())))
        while key in rows and one.group in rows[key][1]:
            key = (*key, "again")  # two models behind one name on one server: each its own row
        rows.setdefault(key, (one, {}))[1][one.group] = {"name": one.local_name, "context": one.context}
    backends = []
    for one, models in rows.values():
        try:
            backends.append(getattr(Backend, one.kind)(one.url, models=models, api_key=one.api_key, **one.options))
        except ConfigError as error:
            raise ConfigError(f"{where}:{one.line}: {error.message}", hint=error.hint) from error
    return backends

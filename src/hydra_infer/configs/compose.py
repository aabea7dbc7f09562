"""docker compose for a LiteLLM proxy and Ollama, images pinned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .document import flow
from .services import OllamaService

__all__ = ["LiteLLMService", "compose"]

# The newest final release read about in November 2026, signed, after both compromises and the privilege escalation of 22 October.
_LITELLM = "ghcr.io/berriai/litellm:v1.110.1"
_OLLAMA = "ollama/ollama:0.32.3"
# Malicious code was in 1.82.7 and 1.82.8 (24 March 2026, PyPI) and in 1.107.0 (21 October 2026, PyPI and images).
_COMPROMISED = re.compile(r"litellm.*:(main-)?v?(1\.82\.[78]|1\.107\.\d+)\b")
_IMAGE = re.compile(r"[a-z0-9][\w./-]*(:\d+/[\w./-]+)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", re.ASCII)
# A tag that names a whole version stays where it is; latest, main-stable or v1 move.
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLLMService:
    """One LiteLLM proxy. `config` is its file beside compose.yaml; `keys` are the environment variables that it names.

    `bind` is the address of this machine under which the port can be reached. The proxy starts with no master key that is
    empty or well known, so LITELLM_MASTER_KEY is always among the keys.
    """

    name: str = "litellm"
    image: str = _LITELLM
    config: str = "./litellm.yaml"
    keys: tuple[str, ...] = ()
    bind: str = "127.0.0.1"
    port: int = 4000


def compose(*, litellm: LiteLLMService | None = None, ollama: Iterable[OllamaService] = (), image: str = _OLLAMA) -> str:
    """The text of compose.yaml; `image` is Ollama's. Keys come from the environment or a .env file, and are never in it.

    Raises ConfigError for an image whose tag moves (the tags that moved carried the malicious LiteLLM of October 2026) or is
    known to be malicious.
    """
    services: dict[str, Any] = {}
    if litellm is not None:
        services[litellm.name] = _litellm(litellm)
    rows = list(ollama)
    for row in rows:
        services[row.name] = _ollama(row, image)
    volumes: dict[str, Any] = {row.name: {} for row in rows if row.models is None}
    file = {"services": services, **({"volumes": volumes} if volumes else {})}
    return "\n".join([*_lines(file), ""])


def _litellm(service: LiteLLMService) -> dict[str, Any]:
    keys = dict.fromkeys(("LITELLM_MASTER_KEY", *service.keys))
    probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{service.port}/health/liveliness', timeout=5)"
    return {
        "image": _pinned(service.image),
        "command": ["--config", "/app/config.yaml", "--port", str(service.port)],
        "ports": [f"{service.bind}:{service.port}:{service.port}"],
        "volumes": [f"{_literal(service.config)}:/app/config.yaml:ro"],
        "environment": {name: f"${{{name}:?set it in .env}}" for name in keys},
        # Servers on this machine are found under host.docker.internal.
        "extra_hosts": ["host.docker.internal:host-gateway"],
        # The image has no curl.
        "healthcheck": {"test": ["CMD", "python3", "-c", probe], "interval": "30s", "timeout": "10s", "retries": 3},
        "restart": "unless-stopped",
    }


def _ollama(service: OllamaService, image: str) -> dict[str, Any]:
    cards: dict[str, Any] = {"driver": "nvidia", "capabilities": ["gpu"]}
    cards |= {"count": "all"} if service.cards is None else {"device_ids": list(service.cards)}
    some = {} if service.cards == () else {"deploy": {"resources": {"reservations": {"devices": [cards]}}}}
    return {
        "image": _pinned(image),
        "ports": [f"{service.host}:{service.port}:11434"],
        "volumes": [f"{_literal(service.models)}:/root/.ollama/models" if service.models else f"{service.name}:/root/.ollama"],
        "environment": {"OLLAMA_HOST": "0.0.0.0:11434", **service.variables()},
        **some,
        "restart": "unless-stopped",
    }


def _pinned(image: str) -> str:
    _, _, tag = image.rpartition("/")[2].partition("@")[0].partition(":")
    if _COMPROMISED.search(image):
        raise ConfigError(f"{image} is a release with malicious code in it", hint=f"{_LITELLM}, or its digest")
    if not _IMAGE.fullmatch(image) or ("@sha256:" not in image and not _VERSION.search(tag)):
        raise ConfigError(f"{image!r} does not say which image", hint="a version as its tag, or better a digest (@sha256:…)")
    return image


def _literal(text: str) -> str:
    # Compose puts its environment in where a $ stands.
    return text.replace("$", "$$")


def _lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Tables as blocks, lists of plain values in one line; what is empty is an empty table."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield f"{indent}{flow(key)}:"
            yield from _lines(item, indent + "  ")
        else:
            yield f"{indent}{flow(key)}: {flow(item)}"

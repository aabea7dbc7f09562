"""What kind of server answers at an address: asked by the paths that only one kind has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from ..routing.backend import Backend
from ..wire.exchange import WireRequest
from .upstream import HttpLine, LineFailed
from .watch import Watch, quick

__all__ = ["detect"]

# Each kind's own path and a word that its answer holds (measured: tabbyAPI e632af4, ollama 0.32, litellm 1.109).
_SIGNS = (
    ("tabby", "/.well-known/serviceinfo", "TabbyAPI"),
    ("ollama", "/api/version", '"version"'),
    ("litellm", "/health/liveliness", "alive"),
)
# Where a server does not answer now, the port on which each kind usually listens tells.
_PORTS = {5000: "tabby", 11434: "ollama", 4000: "litellm"}
_SECONDS = 1.5
# Bytes of an answer that are looked at; the signs stand in short ones.
_ENOUGH = 4096


def detect(urls: Sequence[str], api_keys: Mapping[str, str] | None = None) -> list[Backend]:
    """A Backend for each address, in order, all asked at once. One that is dead is kept: it may come back.

    `api_keys` maps addresses, as given, to keys. Raises ConfigError for what is no address.
    """
    keys = dict(api_keys or {})
    rows = [Backend.openai(url, api_key=keys.get(url)) for url in urls]
    if not rows:
        return []
    with ThreadPoolExecutor(len(rows), "hydra-detect") as threads:
        kinds = list(threads.map(_kind, rows))
    makers: dict[str, Any] = {
        "tabby": Backend.tabby,
        "ollama": Backend.ollama,
        "litellm": Backend.litellm,
        "openai": Backend.openai,
    }
    return [makers[kind](url, api_key=keys.get(url)) for kind, url in zip(kinds, urls, strict=True)]


def _kind(row: Backend) -> str:
    line = HttpLine(row)
    try:
        for kind, path, word in _SIGNS:
            # Its key is not sent: whoever answers here is not known yet.
            if word in _get(line, urlsplit(row.url).path + path):
                return kind
    except LineFailed:
        return _PORTS.get(urlsplit(row.url).port or 0, "openai")
    finally:
        line.close()
    return "openai"


def _get(line: HttpLine, path: str) -> str:
    """A short answer's text; empty for a status other than 200."""
    response = line.send(WireRequest("GET", path, {"accept-encoding": "identity"}), Watch(quick(_SECONDS), time.monotonic))
    body = b""
    try:
        while data := response.read():
            body += data
            if len(body) >= _ENOUGH:
                break
    finally:
        response.close()
    return body[:_ENOUGH].decode("utf-8", "replace") if response.status == 200 and _is_plain(body) else ""


def _is_plain(body: bytes) -> bool:
    """Not a web page: some servers answer every path with their front page."""
    return not body.lstrip().startswith(b"<")

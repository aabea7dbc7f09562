"""A server's address as a fleet file has it: its machine, its port, and whether other machines reach it."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["PORTS", "host_of", "is_loopback", "port_of"]

# Where each kind listens unless it is told otherwise; vLLM's for the servers that have OpenAI's paths.
PORTS = {"tabby": 5000, "ollama": 11434, "litellm": 4000, "openai": 8000}


def host_of(url: str) -> str:
    """The machine's name or number; "" where there is none."""
    return urlsplit(_whole(url)).hostname or ""


def port_of(url: str, kind: str) -> int:
    """The port that it names, else the usual one of the kind."""
    return urlsplit(_whole(url)).port or PORTS[kind]


def is_loopback(url: str) -> bool:
    """Whether only its own machine reaches it."""
    return host_of(url) in ("127.0.0.1", "localhost", "::1")


def _whole(url: str) -> str:
    return url if "://" in url else f"http://{url}"

"""The foreign libraries that a Router can sit under: HTTP clients and the openai package, imported when they are asked for."""

from __future__ import annotations

from types import ModuleType

from ..errors import ConfigError, MissingExtra

__all__ = ["family_of", "http_library", "openai_sdk"]


def http_library(family: str) -> ModuleType:
    """The HTTP library of that name. Raises ConfigError for another one, MissingExtra when it is not installed."""
    if family == "httpx":
        import httpx

        return httpx
    if family != "httpx2":
        raise ConfigError(f"family={family!r} is not known", hint="'httpx' or 'httpx2'")
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise MissingExtra("httpx2 is not installed", hint="pip install 'hydra-infer[httpx2]'") from error
    return httpx2


def openai_sdk() -> ModuleType:
    """The openai package. Raises MissingExtra when it is not installed."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise MissingExtra("the openai package is not installed", hint="pip install openai") from error
    return openai


def family_of(sdk: ModuleType) -> str:
    """The HTTP library that this openai package is built on: httpx2 from 3.0, httpx before."""
    return "httpx2" if int(sdk.__version__.split(".")[0]) >= 3 else "httpx"

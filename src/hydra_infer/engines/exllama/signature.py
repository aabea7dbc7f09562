"""Calls into an engine, by its own names: a keyword that its signature lacks is an error, where the engine would ignore it.

Generator, Job and Cache of exllamav3 1.6.5 and exllamav2 0.3.2 end in **kwargs and drop what they do not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ...errors import ConfigError

__all__ = ["beside", "call", "check", "names"]

T = TypeVar("T")


def names(function: Callable[..., Any]) -> frozenset[str]:
    """The keywords that a function or class takes by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(name for name, one in inspect.signature(function).parameters.items() if one.kind in by_name)


def check(function: Callable[..., Any], arguments: Iterable[str]) -> None:
    """Raise ConfigError naming the arguments that `function` does not have."""
    unknown = sorted(set(arguments) - names(function))
    if unknown:
        what = getattr(function, "__qualname__", repr(function))
        where = str(getattr(function, "__module__", "")).partition(".")[0]
        raise ConfigError(
            f"{where}'s {what} has no argument {', '.join(unknown)}",
            hint="leave it out, or install a version that has it",
        )


def beside(ours: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Our arguments and a caller's `options`. Raises ConfigError naming the options that load() settles by its own."""
    settled = sorted(ours.keys() & options.keys())
    if settled:
        raise ConfigError(f"options: {', '.join(settled)} is settled by load()'s own arguments", hint="leave it out there")
    return {**ours, **options}


def call(function: Callable[..., T], **arguments: Any) -> T:
    """`function(**arguments)`, or ConfigError naming the arguments it does not have."""
    check(function, arguments)
    return function(**arguments)

"""Which releases an environment has: a resolver that goes far back must be noticed."""

from __future__ import annotations

from importlib.metadata import version


def at_least(package: str, *least: int) -> None:
    """Fail where an environment has resolved to an ancient release."""
    found = tuple(int(part) for part in version(package).split(".")[: len(least)])
    assert found >= least, f"{package} {version(package)} is older than {least}"

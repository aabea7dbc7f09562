"""Keys by reference: fetched from the environment or a file when a server is to be asked, and shown nowhere."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .source import Source

if TYPE_CHECKING:
    from .schema import FleetFile, Key

__all__ = ["key_of", "warn_of_literals"]

_FIELDS = ("api_key", "admin_key")
# Somebody may have written the key itself where its variable's name belongs: only what no key looks like is shown.
_NAME = re.compile(r"[A-Z]+(_[A-Z0-9]+)*")


def key_of(file: FleetFile, source: Source, server: str, which: str, environment: Mapping[str, str]) -> str | None:
    """The key that a server's field `which` ("api_key" or "admin_key") means, None where there is none.

    Raises ConfigError with the line where the variable is not set, or the file is not there, empty, or more than a key.
    """
    key: Key | None = getattr(file.servers[server], which)
    field = ("servers", server, which)
    if key is None or key.literal is not None:
        return None if key is None else key.literal
    if key.env is not None:
        if not environment.get(key.env):
            name = f": {key.env}" if _NAME.fullmatch(key.env) else ""
            raise source.wrong((*field, "env"), f"is an environment variable that is not set{name}")
        return environment[key.env]
    return _from_file(source, (*field, "file"), key.file or "")


def _from_file(source: Source, field: tuple[str, ...], name: str) -> str:
    path = source.folder / Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "it is not there").lower() if isinstance(error, OSError) else "it is not text"
        raise source.wrong(field, f"is a file that cannot be read: {reason}") from None
    if not lines[0].strip() or any(line.strip() for line in lines[1:]):
        raise source.wrong(field, "is a file that holds none, or more than one line", hint="the key, and nothing else")
    if _world_readable(path):
        _warn(f"{source.place(field)} can be read by everybody on this machine (chmod 600)")
    return lines[0].strip()


def warn_of_literals(file: FleetFile, source: Source) -> None:
    """Say so where a key stands in a file that everybody can read."""
    found = [
        (name, which)
        for name, server in file.servers.items()
        for which in _FIELDS
        if (key := getattr(server, which)) and key.literal
    ]
    if found and _world_readable(source.path):
        name, which = found[0]
        _warn(f"{source.place(('servers', name, which))} stands in a file that everybody on this machine can read (chmod 600)")


def _world_readable(path: Path) -> bool:
    # Windows has no such bits, and reports them set.
    return os.name == "posix" and bool(path.stat().st_mode & 0o004)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)  # it names file and line itself

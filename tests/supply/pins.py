"""What is pinned where, and what is known to have carried malicious code: for the checks, and for the empty wheel's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

__all__ = ["KNOWN_BAD", "bad", "installed", "leftovers", "lines", "name_of", "pin_of"]

KNOWN_BAD: list[dict[str, Any]] = json.loads((Path(__file__).parent / "known_bad.json").read_text(encoding="utf-8"))
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?==(?P<version>[0-9][\w.+!-]*)")


def name_of(name: str) -> str:
    """The one spelling of a distribution's name (packaging.python.org, name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(text: str) -> Iterator[str]:
    """The requirements in a requirements file, without comments."""
    for line in text.splitlines():
        if said := re.sub(r"(^|\s)#.*", "", line).strip():
            yield said


def pin_of(line: str) -> tuple[str, str] | None:
    """Name and version of an exact pin; None for anything else, a wildcard too."""
    found = _PIN.fullmatch(line.partition(";")[0].strip())
    return (name_of(found["name"]), found["version"]) if found else None


def bad(pins: Iterable[tuple[str, str]]) -> list[str]:
    """Those of the pins that are known to have carried malicious code, with the source that says so."""
    table: Mapping[tuple[str, str], str] = {
        (name_of(row["package"]), version): row["source"] for row in KNOWN_BAD for version in row["versions"]
    }
    return [f"{name} {version}: {table[name, version]}" for name, version in pins if (name, version) in table]


def installed() -> dict[str, str]:
    """Every distribution of this environment."""
    return {name_of(one.metadata["Name"]): one.version for one in distributions()}


def leftovers(folders: Iterable[str]) -> list[str]:
    """Files that those releases leave behind, which act on even when the package is gone."""
    names = {name for row in KNOWN_BAD for name in row["files"]}
    return [str(path) for folder in folders for name in names if (path := Path(folder) / name).exists()]

"""What is installed beside a TabbyAPI's interpreter, read from the names of its folders: nothing of it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .report import Finding, unseen

__all__ = ["check_packages", "cuda_of", "packages"]

# The oldest exllamav3 that TabbyAPI e632af4 starts with.
_EXLLAMAV3 = (1, 4, 1)
_MEND = "update TabbyAPI's environment with its own start script"


def packages(python: str, root: Path = Path("/")) -> dict[str, str]:
    """Versions by package."""
    home = root.joinpath(*Path(python).parts[1:-2])
    found = home.glob("lib/python*/site-packages/*.dist-info")
    return dict(place.name.removesuffix(".dist-info").split("-", 1) for place in found if "-" in place.name)


def cuda_of(version: str) -> int | None:
    """The major CUDA version that a wheel was built for: 12 for 2.9.0+cu128."""
    found = re.search(r"\+cu(\d{2})\d", version)
    return int(found[1]) if found else None


def check_packages(found: Mapping[str, str], where: str, python: str) -> Iterator[Finding]:
    """Whether exllamav3 is new enough, and its compiled part made for the torch that lies beside it."""
    engine, torch = found.get("exllamav3"), found.get("torch", "")
    if engine is None:
        yield unseen(where, f"the version of exllamav3: {python} has none beside it")
        return
    if tuple(map(int, re.findall(r"\d+", engine.partition("+")[0])[:3])) < _EXLLAMAV3:
        what = "TabbyAPI of August 2026 does not load models with one older than 1.4.1"
        yield Finding("error", where, f"exllamav3 is {engine}", what, _MEND)
    if torch and not _fits(engine, torch):
        what = "its compiled part does not load beside another torch, nor beside one for another CUDA"
        yield Finding("error", where, f"exllamav3 is {engine}, and torch is {torch}", what, _MEND)


def _fits(engine: str, torch: str) -> bool:
    """Wheels say what they were built for: 1.6.5+cu128.torch2.9.0. One that says nothing compiles itself where it runs."""
    built = re.search(r"torch(\d+\.\d+)", engine)
    same = built is None or torch.startswith(f"{built[1]}.")
    return same and (None in (cuda_of(engine), cuda_of(torch)) or cuda_of(engine) == cuda_of(torch))

"""What readiness() looks at: the model, its twins beside it, the environment, TabbyAPI's checkout, the cards and the disk."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...configs.disk import read
from ...errors import ConfigError, HydraError
from ...hardware.gpu import Gpu
from ...hardware.nvml import gpus as cards_here
from ...models.folder import read_model
from ...models.spec import Geometry, ModelSpec
from ...planner.report import Plan
from ...planner.request import cards_of
from ...planning import plan
from ...units import Size, parse_tokens
from ..commands import run
from ..tabby_plan import TabbyConfig
from .conversion import base_name, best_rate, likeness, model_bytes
from .converter import checkpoint_bytes
from .translation import Translation, translate

__all__ = ["Facts", "gather"]

_T = TypeVar("_T")

# Where nobody says how long.
_CONTEXT = 8192

# Printed by the environment's own interpreter, a line for each of the two packages.
_VERSIONS = """
from importlib import metadata
for name in ("exllamav3", "torch"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name)
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found; a text in the place of something else says why it could not be looked at.

    `shape` is the model as its config.json describes it, `format` what its weights are in. `exl3` and `original` are folders of
    the same model. `planned` is the EXL3's plan, at `rate` where there is none yet; `tensor` the same in tensor parallel.
    `room` is where a conversion writes, how much, and what is free, where one is needed.
    """

    folder: Path
    shape: ModelSpec | str
    format: str
    versions: Mapping[str, str | None] | str
    python: str
    checkout: str | None
    checkout_trouble: str
    cards: tuple[Gpu, ...]
    exl3: ModelSpec | None
    original: ModelSpec | None
    planned: Plan | str
    rate: float | None
    tensor: Plan | str
    room: tuple[Path, Size, Size] | None
    translation: Translation | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be moved, by a folder alone or by a config.yml that names it."""

    folder: Path
    context: int | str
    cache: str
    text: str | None = None
    tabby: Path | None = None


def gather(
    what: str | os.PathLike[str],
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None,
    context: int | str | None,
    cache: str | None,
    original: str | os.PathLike[str] | None,
    tabby: str | os.PathLike[str] | None,
    python: str | None,
) -> Facts:
    """Reads headers, asks NVML, the interpreter and git; changes nothing. Arguments are readiness()'s."""
    asked = _asked(Path(what).expanduser().absolute(), context, cache)
    checkout = Path(tabby).expanduser() if tabby is not None else asked.tabby
    interpreter = python or _interpreter(checkout)
    cards = tuple(cards_here() if gpus is None else cards_of(gpus))
    shape = _or_why(lambda: read_model(asked.folder / "config.json", bpw=4.0, format="exl3"))
    made, source = ([], None) if isinstance(shape, str) else _twins(asked.folder, shape.geometry, original)
    goal = source.path if source else asked.folder
    fitting = {"gpus": cards, "context": asked.context, "cache": asked.cache, "engine": "tabby"}
    exl3, rate, planned = _best(made, fitting) if made else (None, *_convertible(goal, fitting))
    date, trouble = _date(checkout)
    return Facts(
        folder=asked.folder,
        shape=shape,
        format=_or_why(lambda: read_model(asked.folder).format),
        versions=_versions(interpreter),
        python=interpreter,
        checkout=date,
        checkout_trouble=trouble,
        cards=cards,
        exl3=exl3,
        original=source,
        planned=planned,
        rate=rate,
        tensor=planned if isinstance(planned, str) else _or_why(lambda: planned.replan(split="tensor")),
        room=None if isinstance(shape, str) or exl3 else _room(shape, goal, rate or 4.0, has_original=source is not None),
        translation=None if asked.text is None else translate(asked.text),
    )


def _asked(path: Path, context: int | str | None, cache: str | None) -> _Asked:
    if path.suffix not in (".yml", ".yaml"):
        return _Asked(path, parse_tokens(context or _CONTEXT), cache or "fp16")
    text, said = read(path), TabbyConfig.read(path)
    folder = said.model_folder
    if folder is None:
        raise ConfigError(f"{path} names no model", hint="give the model's folder instead")
    # FP8 was ExLlamaV2's, and no mode of today's; the nearest that ExLlamaV3 has takes as much.
    mode = str(said.said.get("model", {}).get("cache_mode") or "fp16").lower().replace(" ", "")
    rate = cache or ("q8" if mode == "fp8" else mode)
    longest = said["model.max_seq_len"] or -1  # -1: the model's own
    return _Asked(folder, parse_tokens(context or (longest if longest > 0 else _CONTEXT)), rate, text, path.parent)


def _twins(folder: Path, shape: Geometry, original: str | os.PathLike[str] | None) -> tuple[list[ModelSpec], ModelSpec | None]:
    """Folders of the same model in EXL3, the largest first, and unquantised: beside this one, alike in name and shape."""
    alike = list(_alike(folder, shape))
    exl3 = sorted((spec for spec in alike if spec.format == "exl3"), key=_stored, reverse=True)
    if original is not None:
        return exl3, read_model(Path(original).expanduser())
    return exl3, next((spec for spec in alike if spec.format == "hf"), None)


def _stored(spec: ModelSpec) -> int:
    return sum(tensor.nbytes for tensor in spec.tensors.values())


def _alike(folder: Path, shape: Geometry) -> Iterator[ModelSpec]:
    name = base_name(folder.name).casefold()
    for one in sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []:
        if not one.is_dir() or base_name(one.name).casefold() != name:
            continue
        try:
            spec = read_model(one)
        except HydraError:
            continue  # incomplete, or of another kind: nothing to go on with
        if spec.tensors and likeness(spec.geometry) == likeness(shape):
            yield spec


def _best(exl3: list[ModelSpec], fitting: dict[str, Any]) -> tuple[ModelSpec, None, Plan | str]:
    """The largest that fits, else the smallest, with its plan."""
    for spec in exl3:
        planned = _or_why(partial(plan, spec.path, **fitting))
        if isinstance(planned, Plan) and planned.fits:
            break
    return spec, None, planned


def _convertible(goal: Path, fitting: dict[str, Any]) -> tuple[float | None, Plan | str]:
    """The rate to convert at, and its plan."""
    found = _or_why(partial(best_rate, goal, **fitting))
    return (None, found) if isinstance(found, str) else found


def _or_why(make: Callable[[], _T]) -> _T | str:
    """What is made, or why it cannot be."""
    try:
        return make()
    except HydraError as error:
        return str(error)


def _room(shape: ModelSpec, source: Path, rate: float, *, has_original: bool) -> tuple[Path, Size, Size]:
    """What a conversion beside the model writes, and what is free; an original that is still to come is 16 bits per weight."""
    place = source.parent
    needed = Size(2 * model_bytes(source, rate) + checkpoint_bytes(shape.geometry))
    if not has_original:
        needed += 2 * model_bytes(source, 8.0)  # twice as many bits, once
    return place, needed, Size(shutil.disk_usage(place).free)


def _interpreter(checkout: Path | None) -> str:
    """TabbyAPI's own environment where its start script makes it, else this one."""
    for name in ("venv/bin/python", "venv/Scripts/python.exe"):
        if checkout is not None and (checkout / name).exists():
            return str(checkout / name)
    return sys.executable


def _versions(python: str) -> Mapping[str, str | None] | str:
    ran = run([python, "-c", _VERSIONS], 30.0)
    if ran.status != 0:
        return ran.trouble or f"{python} ended with status {ran.status}"
    rows = [line.split() for line in ran.out.splitlines()]
    return {row[0]: row[1] if len(row) > 1 else None for row in rows if row}


def _date(checkout: Path | None) -> tuple[str | None, str]:
    """The date of the commit that is checked out: TabbyAPI has no version numbers."""
    if checkout is None:
        return None, "its folder was not given"
    ran = run(["git", "-C", str(checkout), "log", "-1", "--format=%cs"], 10.0)
    return (ran.out.strip(), "") if ran.status == 0 else (None, ran.trouble)

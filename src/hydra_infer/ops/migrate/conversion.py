"""Conversion: what is to be run to make an EXL3 folder of a model's unquantised original, and what stands against it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DoesNotFit, UnknownModel
from ...hardware.gpu import Gpu
from ...models.architectures import KNOWN_TO_EXLLAMAV3
from ...models.folder import read_model
from ...models.spec import Geometry, ModelSpec
from ...planner.report import Plan
from ...planning import plan
from ...units import Size
from ..doctor.folders import stored_rate
from .converter import LAST_FILE, RATES, checkpoint, checkpoint_bytes, command

__all__ = ["Conversion", "base_name", "best_rate", "is_done", "likeness", "model_bytes", "prepare", "resumes", "unquantised"]

_SUFFIX = re.compile(r"(?i)[-_.](exl[23]|gptq|awq|gguf|[\d.]+[-_]?bpw|h\d|[\d.]+bit|q\d\w*).*$")
# Larger than any model.
_ANY_CARD = Gpu("any", memory=2000, capability="8.0")
# How far the rate of what was made may be from what was asked for: the converter deals out whole and half bits.
_OFF = 0.2
_WHY_NOT = "EXL3 is made from the unquantised weights alone"


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion as it is to be run: the words of `command`, and the plan that `rate` was chosen by (None: it was given).

    `needed` is the disk space it takes beside the original, by folder; `resumes` says that an interrupted one is continued.
    """

    original: Path
    out: Path
    work: Path
    rate: float
    command: tuple[str, ...]
    needed: dict[str, Size]
    resumes: bool
    layers: int
    plan: Plan | None = None
    done: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data; sizes are bytes."""
        return {
            "original": str(self.original),
            "out": str(self.out),
            "work": str(self.work),
            "rate": self.rate,
            "command": list(self.command),
            "needed_bytes": {folder: int(size) for folder, size in self.needed.items()},
            "resumes": self.resumes,
            "done": self.done,
        }

    def __str__(self) -> str:
        lines = [f"{self.original.name} at {self.rate:g} bits per weight -> {self.out}"]
        if self.plan is not None:
            lines.append(f"chosen because: {self.plan.why}")
        if self.done:
            return "\n".join([*lines, "done"])
        lines += [f"needs {size} in {folder}" for folder, size in self.needed.items()]
        return "\n".join([*lines, ("continues: " if self.resumes else "") + shlex.join(self.command)])


def prepare(
    original: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    gpus: str | Gpu | Iterable[str | Gpu] | None = None,
    context: int | str = 8192,
    cache: str = "fp16",
    rate: float | None = None,
    work: str | os.PathLike[str] | None = None,
    devices: Sequence[int] = (0,),
    python: str = sys.executable,
) -> Conversion:
    """What convert() will run; changes nothing.

    `rate` (bits per weight) is the largest of the converter's rates that fits on `gpus` with `context` and `cache`, as plan()
    takes them for TabbyAPI, unless it is given: any from 1 to 8. `work` is a folder for what it has done so far, beside `out`
    unless given; `devices` are the CUDA cards that convert; `python` is that of the environment with exllamav3.

    Raises UnknownModel for what is no unquantised original, or one that exllamav3 does not know, saying what to fetch;
    DoesNotFit where no rate fits; ConfigError for a disk too small, a folder `out` that holds something else, and a work folder
    of another conversion.
    """
    source, target = Path(original).expanduser().absolute(), Path(out).expanduser().absolute()
    place = Path(work).expanduser().absolute() if work is not None else target.with_name(f"{target.name}.work")
    if rate is not None and not 1 <= rate <= 8:
        raise ConfigError(f"rate={rate!r} is no rate of the converter", hint="bits per weight, from 1 to 8")
    spec, done = unquantised(source), _made(target, place)
    if done is not None:
        _check_made(done, spec, rate)
    bits, planned = rate, None
    if bits is None:
        # What was begun is finished as it was begun: the cards' free memory, which a plan goes by, changes from hour to hour.
        bits = _begun_rate(place, source, target) or (stored_rate(done) if done else None)
    if not bits:
        bits, planned = best_rate(source, gpus=gpus, context=context, cache=cache, engine="tabby")
    size, goes_on = model_bytes(source, bits), resumes(place, source, target, bits)
    prepared = Conversion(
        source,
        target,
        place,
        bits,
        tuple(command(python, source, target, place, bits, devices, resume=goes_on)),
        # It writes the model twice: tensor by tensor in the work folder, and then as a whole.
        {str(place): Size(size + checkpoint_bytes(spec.geometry)), str(target): size},
        goes_on,
        len(spec.geometry.layers),
        planned,
        done is not None,
    )
    if not done:
        _check_disk(prepared.needed, _held(place) if goes_on else 0)
    return prepared


def unquantised(folder: Path) -> ModelSpec:
    """The original in a folder. Raises UnknownModel, saying what to fetch, for every other kind of model."""
    name = base_name(folder.name)
    fetch = f"fetch {name} as its makers published it (16-bit safetensors), or an EXL3 of it that somebody has made"
    try:
        spec = read_model(folder)
    except UnknownModel as error:
        if "quantised by" not in error.message:
            raise
        raise UnknownModel(f"{error.message}: {_WHY_NOT}", hint=fetch) from error
    if spec.format == "exl3":
        raise UnknownModel(f"{folder} is EXL3 already", hint="load it; another rate is made from the original")
    if spec.format != "hf":
        raise UnknownModel(f"{folder} is {spec.format.upper()}: {_WHY_NOT}", hint=fetch)
    if not spec.tensors:
        raise UnknownModel(f"{folder} has no weights", hint=fetch)
    if spec.geometry.architecture not in KNOWN_TO_EXLLAMAV3:
        raise UnknownModel(
            f"exllamav3 1.6.5 does not know {spec.geometry.architecture}", hint="a newer exllamav3 may, or GGUF in Ollama"
        )
    return spec


def best_rate(original: Path, **fitting: Any) -> tuple[float, Plan]:
    """The largest of the converter's rates that fits, and the plan that says so; `fitting` are plan()'s arguments.

    Raises DoesNotFit where none does.
    """
    for rate in RATES:
        planned = plan(original / "config.json", bpw=rate, format="exl3", **fitting)
        if planned.fits:
            return rate, planned
    raise DoesNotFit(
        f"{original.name} fits at no rate: {planned.why}", hint="a shorter context, a smaller cache, or more cards", plan=planned
    )


def base_name(name: str) -> str:
    """A model's name without what its quantiser added: "Midnight-Miqu-70B-EXL2-2.5bpw" is "Midnight-Miqu-70B"."""
    return _SUFFIX.sub("", name) or name


def resumes(work: Path, original: Path, out: Path, rate: float) -> bool:
    """Whether an interrupted conversion is in the work folder. Raises ConfigError where it is another one."""
    theirs, ours = _begun(work), (str(original), str(out), rate)
    if theirs not in (None, ours):
        raise ConfigError(f"{work} holds another conversion: {theirs}, not {ours}", hint="another work=, or delete this one")
    return theirs is not None


def _begun_rate(work: Path, original: Path, out: Path) -> float | None:
    """The rate of an interrupted conversion of this original into this folder; None where there is none."""
    theirs = _begun(work)
    return theirs[2] if theirs and theirs[:2] == (str(original), str(out)) else None


def _begun(work: Path) -> tuple[str, str, float] | None:
    """The original, the folder to make, and the rate of the conversion in a work folder, as the converter keeps them."""
    told = work / "args.json"
    if checkpoint(work) is None or not told.is_file():
        return None
    try:
        job = json.loads(told.read_text(encoding="utf-8"))
        return str(job["in_dir"]), str(job["out_dir"]), float(job["bits"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{told} cannot be read: {error}", hint="another work=, or delete this one") from error


def is_done(out: Path, work: Path) -> bool:
    """Whether a whole EXL3 is in the folder; `work` is its conversion's. Raises ConfigError where it holds something else."""
    return _made(out, work) is not None


def _made(out: Path, work: Path) -> ModelSpec | None:
    """The EXL3 in `out`. What an interrupted conversion has left there is none: it will be written anew."""
    begun = _begun(work)
    if begun is not None and begun[1] == str(out) and not _is_json(out / LAST_FILE):
        return None
    if not (out / "config.json").is_file():
        if strange := sorted(one.name for one in out.iterdir()) if out.is_dir() else []:
            raise ConfigError(f"{out} is not empty: {', '.join(strange[:3])}", hint="give the name of a new folder")
        return None
    spec = read_model(out)
    if spec.format != "exl3" or not spec.tensors:
        raise ConfigError(f"{out} holds a model that is {spec.format}", hint="give the name of a new folder")
    return spec


def _check_made(made: ModelSpec, original: ModelSpec, rate: float | None) -> None:
    """Raises ConfigError where the EXL3 that is there is none of this model, or at another rate than the one asked for."""
    stored = stored_rate(made)
    if likeness(made.geometry) != likeness(original.geometry):
        raise ConfigError(f"{made.path} holds an EXL3 of another model", hint="give the name of a new folder")
    if rate is not None and stored is not None and abs(stored - rate) > _OFF:
        raise ConfigError(f"{made.path} holds an EXL3 of {stored:.2f} bits per weight", hint="give the name of a new folder")


def likeness(shape: Geometry) -> tuple[str, int, int, int]:
    """What two folders of one model have in common, whatever their weights are in."""
    return shape.architecture, shape.hidden, shape.vocab, len(shape.layers)


def _is_json(file: Path) -> bool:
    """Whether it is there, to its end."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def model_bytes(source: Path, rate: float) -> Size:
    """What an EXL3 of the model whose config.json lies in `source` takes."""
    # As a plan counts it on one card that takes any model; its embedding stays in system RAM.
    planned = plan(source / "config.json", bpw=rate, format="exl3", gpus=[_ANY_CARD], context=256, split="single")
    return Size(planned.host_use.weights + sum(use.weights for use in planned.devices))


def _check_disk(needed: dict[str, Size], held: int) -> None:
    """Folders on one disk share it; what an interrupted run has written already is there."""
    shares: dict[int, list[tuple[Path, Size]]] = {}
    for folder, size in needed.items():
        place = next(one for one in (Path(folder), *Path(folder).parents) if one.exists())
        shares.setdefault(place.stat().st_dev, []).append((place, size))
    for parts in shares.values():
        total, free = Size(sum(size for _, size in parts)), Size(shutil.disk_usage(parts[0][0]).free)
        if total > free + held:
            raise ConfigError(
                f"the conversion needs {total} on the disk of {parts[0][0]}, and {free} are free",
                hint="work= on another disk, or a lower rate",
            )


def _held(work: Path) -> int:
    return sum(file.stat().st_size for file in work.rglob("*") if file.is_file())

"""From a path to a ModelSpec: which kind of model lies there, and what all its files say together."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ConfigError, UnknownModel
from ..units import MIB
from . import config, gguf, gguf_config, safetensors, vision
from .spec import FORMATS, ModelSpec, Tensor
from .strict_json import read_object

__all__ = ["read_model"]

# A config.json is some kilobytes; a shard index of a model with 100,000 tensors some megabytes.
MAX_CONFIG = 16 * MIB
MAX_INDEX = 64 * MIB
MAX_SHARDS = 4096

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf|\.safetensors)")


def read_model(path: str | Path, bpw: float | None = None, format: str | None = None) -> ModelSpec:  # noqa: A002 - the public word
    """What the model at `path` says of itself; only headers are read.

    `path` is a folder (EXL3, EXL2, plain safetensors, or one GGUF model), a .gguf file (any part of a split one), or a
    config.json. A config.json without weights needs `format` and `bpw` (bits per weight); weights that are there speak
    for themselves, and contradicting them is an error. Raises UnknownModel where there is no model or none that is
    covered, ConfigError naming file and field for one that is broken.
    """
    place = Path(path).expanduser()
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format={format!r} is not known", hint=f"one of {', '.join(FORMATS)}")
    if not place.is_dir() and not place.is_file():
        raise UnknownModel(f"no model at {place}", hint="give a model folder, a .gguf file or a config.json")
    spec = _read_folder(place, bpw, format) if place.is_dir() else _read_file(place, bpw, format)
    if format is not None and spec.format != format:
        raise ConfigError(f"format={format!r}, but {place} is {spec.format}", hint="leave format= out: the files tell")
    return spec


def _read_file(path: Path, bpw: float | None, form: str | None) -> ModelSpec:
    if path.suffix == ".json":
        return _imagine(path, bpw, form)
    if path.suffix == ".safetensors":
        raise ConfigError(f"{path} is one file of a model", hint=f"give the folder, {path.parent}")
    _refuse_bpw(path, bpw)
    return _read_gguf(path)


def _read_folder(folder: Path, bpw: float | None, form: str | None) -> ModelSpec:
    shards = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if not ggufs:
            raise UnknownModel(f"{folder} has neither a config.json nor a .gguf file", hint="is this the model's folder?")
        _refuse_bpw(folder, bpw)
        return _read_gguf(_only_gguf(folder, ggufs))
    if not shards:
        return _imagine(folder / "config.json", bpw, form)
    _refuse_bpw(folder, bpw)
    values = read_object(folder / "config.json", MAX_CONFIG)
    tensors = _read_shards(folder, shards)
    geometry = config.geometry_of(values, folder / "config.json", tensors)
    kind = _format_of(folder, tensors, config.quantization_of(values, folder / "config.json"))
    wanted = vision.processor_files(geometry.architecture) if kind == "exl3" else ()
    missing = "" if not wanted or any((folder / name).is_file() for name in wanted) else wanted[0]
    return ModelSpec(folder.resolve().name, folder, kind, geometry, tensors, missing=missing)


def _refuse_bpw(path: Path, bpw: float | None) -> None:
    if bpw is not None:
        raise ConfigError(f"bpw={bpw:g}, but {path} has weights", hint="leave bpw= out: it is for a config.json alone")


def _imagine(path: Path, bpw: float | None, form: str | None) -> ModelSpec:
    """A config.json alone: the shape is known, the weights are what they would be at `bpw`."""
    if bpw is None or form is None:
        raise ConfigError(f"{path} comes without weights", hint="say bpw= and format=, for example bpw=4.0, format='exl3'")
    if isinstance(bpw, bool) or not isinstance(bpw, int | float) or not 1 <= bpw <= 32:
        raise ConfigError(f"bpw={bpw!r} is not a number of bits per weight", hint="from 1 to 32, for example 4.0")
    values = read_object(path, MAX_CONFIG)
    geometry = config.geometry_of(values, path)
    if form == "hf":  # the other formats are made from a model, whatever it was quantised by before
        _refuse_method(path, config.quantization_of(values, path))
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return ModelSpec(name, path, form, geometry, bpw=float(bpw))


def _read_shards(folder: Path, shards: list[Path]) -> dict[str, Tensor]:
    names = {shard.name for shard in shards}
    missing = sorted(_expected(folder, names) - names)
    if missing:
        raise ConfigError(f"{folder} lacks {', '.join(missing[:5])}", hint="the download is not complete")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in safetensors.read_header(shard).items():
            if name in tensors:
                raise ConfigError(f"{shard}: tensor {name!r:.100} is also in another file of this folder")
            tensors[name] = tensor
    return tensors


def _expected(folder: Path, names: set[str]) -> set[str]:
    """The files that must be there: those an index lists, and all parts of a numbered set."""
    expected = set()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_object(index, MAX_INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ConfigError(f"{index}: weight_map is not a map of tensor names to file names")
        expected |= set(weight_map.values())
    for name in names:
        expected |= set(_parts(folder / name))
    return expected


def _parts(path: Path) -> list[str]:
    """The names of all parts of the set that a file named "…-00002-of-00005.…" belongs to; [] for a lone file."""
    part = _PART.fullmatch(path.name)
    if part is None:
        return []
    count = int(part["count"])
    if not 1 <= int(part["number"]) <= count <= MAX_SHARDS:
        raise ConfigError(f"{path} is numbered {part['number']} of {part['count']}")
    return [f"{part['stem']}-{number:05}-of-{part['count']}{part['end']}" for number in range(1, count + 1)]


def _format_of(folder: Path, tensors: dict[str, Tensor], method: str | None) -> str:
    kinds = {
        kind
        for ending, kind in ((".trellis", "exl3"), (".q_weight", "exl2"), (".qweight", "gptq"))
        if any(name.endswith(ending) for name in tensors)
    }
    if len(kinds) > 1:
        raise ConfigError(f"{folder} mixes {' and '.join(sorted(kinds))} tensors")
    kind = kinds.pop() if kinds else "hf"
    if kind in ("exl3", "exl2"):
        return kind
    if method in ("exl3", "exl2"):
        raise ConfigError(f"{folder}: config.json says {method}, but no tensor is", hint="the files are another model's")
    _refuse_method(folder, "gptq" if kind == "gptq" else method)
    return kind


def _refuse_method(path: Path, method: str | None) -> None:
    if method is not None:
        hint = "covered: exl3, exl2, gguf and plain 16 bit"
        raise UnknownModel(f"{path}: weights quantised by {method!r:.100} are not covered yet", hint=hint)


def _only_gguf(folder: Path, files: list[Path]) -> Path:
    sets = {tuple(_parts(file)) or (file.name,) for file in files}
    if len(sets) > 1:
        names = ", ".join(sorted(parts[0] for parts in sets)[:5])
        raise ConfigError(f"{folder} holds {len(sets)} GGUF models: {names}", hint="give the path of one file")
    return files[0]


def _read_gguf(path: Path) -> ModelSpec:
    parts = [path.with_name(name) for name in _parts(path)] or [path]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ConfigError(f"{path} is split and {', '.join(missing[:5])} is missing", hint="the download is not complete")
    first = gguf.read_header(parts[0])
    tensors = dict(first.tensors)
    for part in parts[1:]:
        for name, tensor in gguf.read_header(part).tensors.items():
            if name in tensors:
                raise ConfigError(f"{part}: tensor {name!r:.100} is also in another part")
            tensors[name] = tensor
    whole = gguf.GgufHeader(first.metadata, first.counts, tensors)
    return ModelSpec(path.stem, path, "gguf", gguf_config.geometry_of(whole, parts[0]), tensors)

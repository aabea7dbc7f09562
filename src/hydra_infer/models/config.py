"""The shape of a model from its config.json, whatever its architecture; those that are not covered are refused by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UnknownModel
from .architectures import ARCHITECTURES, DRAFTERS, KNOWN_TO_EXLLAMAV3, Architecture
from .fields import Fields
from .spec import Geometry, Keys
from .strict_json import JsonDict
from .vision import tower_of

__all__ = ["geometry_of", "quantization_of"]


def geometry_of(config: JsonDict, path: Path, tensors: Collection[str] = ()) -> Geometry:
    """The Geometry a config.json describes; `path` is named in errors, names of `tensors` tell old files from new ones.
    Only without tensors the vision tower is described: what is stored speaks for itself.

    Raises UnknownModel for an architecture that is not covered, ConfigError for a field that is missing or impossible.
    """
    name = _architecture(config, path)
    if name not in ARCHITECTURES:
        raise _not_covered(name, path)
    kind = ARCHITECTURES[name]
    fields = _text_fields(config, kind, path)
    layers = tuple(kind.layer(fields, index) for index in range(kind.count(fields)))
    return Geometry(
        architecture=name,
        hidden=fields.count("hidden_size"),
        vocab=fields.count("vocab_size"),
        layers=layers,
        tied=fields.flag("tie_word_embeddings", kind.tied),
        trained_context=fields.optional("max_position_embeddings"),
        keys=_keys(kind, tensors),
        streams=kind.streams(fields) if kind.streams else 0,
        tower=None if tensors else tower_of(config, fields),
    )


def _keys(kind: Architecture, tensors: Collection[str]) -> Keys:
    if kind.other_keys is not None and any(name.startswith(f"{kind.other_keys.embedding}.") for name in tensors):
        return kind.other_keys
    return kind.keys


def _text_fields(config: JsonDict, kind: Architecture, path: Path) -> Fields:
    """The fields of the language model; what a wrapper says of itself holds where the inner object is silent."""
    if not kind.text:
        return Fields(path, {**kind.defaults, **config})
    inner = config.get(kind.text)
    if not isinstance(inner, dict):
        raise ConfigError(f"{path}: {kind.text} is missing")
    return Fields(path, {**kind.defaults, **config, **inner})


def _not_covered(name: str, path: Path) -> UnknownModel:
    if name in DRAFTERS:
        return UnknownModel(
            f"architecture {name!r:.100} ({path}) is a drafter, which runs only beside a main model",
            hint="give the model it drafts for; a drafter of this kind is not counted yet",
        )
    hint = f"hydra_infer.models.architectures lists the {len(ARCHITECTURES)} that are planned"
    if name in KNOWN_TO_EXLLAMAV3:
        return UnknownModel(f"architecture {name!r:.100} ({path}): exllamav3 knows it, the planner does not yet", hint=hint)
    return UnknownModel(f"architecture {name!r:.100} ({path}) is not known to exllamav3 1.6.5", hint=hint)


def quantization_of(config: JsonDict, path: Path) -> str | None:
    """The quant_method a config.json names, or None for plain weights."""
    value: Any = config.get("quantization_config")
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("quant_method"), str):
        raise ConfigError(f"{path}: quantization_config has no quant_method")
    method: str = value["quant_method"]
    return method.lower()


def _architecture(config: JsonDict, path: Path) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ConfigError(f"{path}: architectures is {str(names)[:80]}, not a list of one name")
    return names[0]

"""Results as n8n's items: plain JSON, whatever hydra_infer gave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ConfigError, HydraError

__all__ = ["to_n8n"]

Item = dict[str, Any]


def to_n8n(results: Any) -> list[Item]:
    """What a Code node returns: `[{"json": {...}}, …]`, which json.dumps and back leaves as it is.

    A Reply, a Plan, a Status, anything with `to_dict()`, or a dict: one item. A HydraError: one item with its text as "error"
    and its class's name as "kind". A list, or any other iterable of these (`router.batch(…)`, `survey.rows`, `router.status()`
    through `list()`): an item each, in their order. Raises ConfigError for what is none of these.
    """
    if _is_one(results):
        return [_item(results)]
    if isinstance(results, Iterable) and not isinstance(results, str | bytes):
        return [_item(result) for result in results]
    raise ConfigError(
        f"n8n's items cannot be made of {results!r:.60}", hint="a Reply, Plan, Status or dict, an error, or a list of them"
    )


def _is_one(result: Any) -> bool:
    return isinstance(result, Mapping | HydraError) or hasattr(result, "to_dict")


def _item(result: Any) -> Item:
    if not _is_one(result):
        raise ConfigError(f"one of n8n's items cannot be made of {result!r:.60}", hint="each is a JSON object: give a dict")
    return {"json": _plain(result)}


def _plain(value: Any) -> Any:
    """JSON's own types only: n8n turns everything else into its str()."""
    if isinstance(value, HydraError):
        return {"error": str(value), "kind": type(value).__name__}
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        # JSON has no infinity and no NaN: what Python writes for them n8n cannot read.
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)  # a Size is an int that prints as GiB
    raise ConfigError(f"JSON has no {type(value).__name__}: {value!r:.60}", hint="give text or a number in its place")

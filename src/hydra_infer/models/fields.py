"""The named numbers of one model file, each checked when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["MAX_LAYERS", "MAX_WIDTH", "Fields"]

# The largest values any published model comes near; what is above is a mistake or an attack.
MAX_LAYERS = 2048
MAX_WIDTH = 2**24


@dataclass(frozen=True, slots=True)
class Fields:
    """`values` by field name, read from `path`. Every ConfigError names the file, the field and the value."""

    path: Path
    values: Mapping[str, Any]

    def fail(self, field: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.path}: {field} {problem}")

    def count(self, field: str, default: int | None = None, most: int = MAX_WIDTH) -> int:
        """A number from 1 to `most`; `default` where the field is absent or null."""
        value = self.values.get(field)
        value = default if value is None else value
        if value is None:
            raise self.fail(field, "is missing")
        if type(value) is not int or not 1 <= value <= most:
            raise self.fail(field, f"is {str(value)[:40]!r}, not a number from 1 to {most}")
        return value

    def optional(self, field: str, most: int = 2**40) -> int | None:
        """The same, or None where the field is absent, null or 0 (GGUF writes expert_count 0 for a dense model)."""
        return self.count(field, most=most) if self.values.get(field) else None

    def flag(self, field: str, default: bool) -> bool:
        value = self.values.get(field, default)
        if not isinstance(value, bool):
            raise self.fail(field, f"is {str(value)[:40]!r}, not true or false")
        return value

    def natural(self, field: str, default: int, most: int = MAX_WIDTH) -> int:
        """The same as count, with 0 allowed."""
        value = self.values.get(field, default)
        return 0 if type(value) is int and value == 0 else self.count(field, default, most)

    def number(self, field: str, most: float = MAX_WIDTH) -> float:
        """A number above 0 and up to `most`, whole or not."""
        value = self.values.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise self.fail(field, f"is {str(value)[:40]!r}, not a number up to {most}")
        return float(value)

    def listed(self, field: str, default: list[Any]) -> list[Any]:
        """A list, of whatever; `default` where the field is absent or null."""
        value = self.values.get(field)
        value = default if value is None else value
        if not isinstance(value, list):
            raise self.fail(field, f"is {str(value)[:40]!r}, not a list")
        return value

    def word(self, field: str, index: int, allowed: tuple[str, ...]) -> str:
        """Entry `index` of a list of words, one of those `allowed`."""
        values = self.values.get(field)
        value = values[index] if isinstance(values, list) and index < len(values) else None
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(field, f"has {str(value)[:40]!r} for layer {index}, not one of {', '.join(allowed)}")
        return value

"""Settings: what decides which measurements a run has, as plain data for the first line of its file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

from ...errors import ConfigError
from .prompts import KINDS

__all__ = ["Settings", "a_seed", "natural", "of_prompts"]

# Beyond these a run would last for weeks: a slip of the hand, or somebody else's file.
_MOST = {"repetitions": 1000, "parallel": 1024, "max_tokens": 10**6, "long_tokens": 10**7, "answer_tokens": 10**6}


class Settings:
    """What the dataclasses of settings have in common; `MARK` names the kind of run in its file."""

    __slots__ = ()
    MARK: ClassVar[str]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        data: dict[str, Any] = asdict(self)  # type: ignore[call-overload] # every class of settings is a dataclass
        return {name: list(value) if isinstance(value, tuple) else value for name, value in data.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What to_dict() gave. Raises ConfigError for anything else."""
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if set(data) != names:
            raise ConfigError(f"these are not a bench's settings: {', '.join(sorted(set(data) ^ names))} too few or too many")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def natural(name: str, value: Any) -> None:
    """Raises ConfigError for what is no whole number above 0, or more than the setting of that name may be."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST[name]:
        raise ConfigError(f"{name}={value!r:.80} is not a whole number from 1 to {_MOST[name]}")


def a_seed(value: Any) -> None:
    """Raises ConfigError for what is no whole number."""
    if not isinstance(value, int):
        raise ConfigError(f"seed={value!r:.80} is not a whole number")


def of_prompts(kinds: tuple[str, ...]) -> None:
    """Raises ConfigError for what are no kinds of prompts, for none, and for one twice."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kinds: {kind!r:.80} is no kind of prompt", hint=f"known are {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ConfigError("kinds is empty, or has one twice", hint=f"known are {', '.join(KINDS)}")

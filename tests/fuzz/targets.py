"""Every parser that reads what others wrote, by the name that its seeds have."""

from __future__ import annotations

from .answers import TARGETS as ANSWERS
from .asks import TARGETS as ASKS
from .files import TARGETS as FILES
from .texts import TARGETS as TEXTS

__all__ = ["TARGETS"]

TARGETS = {**FILES, **ANSWERS, **ASKS, **TEXTS}

"""Migrate: from ExLlamaV2 to ExLlamaV3 with numbers, and a way back.

readiness(config)             what it takes, and what of it is there
translate(text)               the old config.yml as today's TabbyAPI reads it
convert(original, out)        EXL3 from the unquantised weights
trial(text, command=…)        the new server beside the old one, on a port of its own
compare(old, new)             both measured side by side
cutover(folder, Move.of(…))   config, unit and link to their new form, by a journal; rollback(folder) leads back
status(folder)                where everything is, and what to do about an interruption
script(move)                  the same steps for another host
"""

from __future__ import annotations

from ..bench.compare import compare
from .conversion import Conversion, prepare
from .converting import convert
from .cutover import State, cutover, rollback, status
from .ladder import climb
from .move import Move, Server
from .readiness import Readiness, readiness
from .script import script
from .translation import Translation, translate
from .trial import Trial, trial

__all__ = [
    "Conversion",
    "Move",
    "Readiness",
    "Server",
    "State",
    "Translation",
    "Trial",
    "climb",
    "compare",
    "convert",
    "cutover",
    "prepare",
    "readiness",
    "rollback",
    "script",
    "status",
    "translate",
    "trial",
]

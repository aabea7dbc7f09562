"""exllamav3's converter as words: the rates it knows, its command line, the space it takes, its files, and what its lines say.

Source: exllamav3 1.6.5, conversion/convert_model.py, compile.py and allocation.py. `python -m exllamav3.convert` does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...models.spec import Geometry
from ...units import Size

__all__ = ["LAST_FILE", "RATES", "Line", "checkpoint", "checkpoint_bytes", "command", "read_line"]

# Bits per weight that a tensor can have, richest first (rate_floor; the halves need the default codebook, mul1).
RATES = (8.0, 7.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0)

MODULE = "exllamav3.conversion.convert_model"

# What it writes into the folder it makes when all else is there.
LAST_FILE = "quantization_config.json"

# The calibration rows and columns it takes unless told otherwise, and the bytes of one element of the hidden state, which
# the embedding makes 32-bit (modules/embedding.py).
_ROWS, _COLUMNS, _STATE_BYTES = 250, 2048, 4

_QUANTIZED = re.compile(r" -- Quantized: \S*?layers\.(?P<layer>\d+)(?P<inner>\.\S+)?\s")
_REMAINING = re.compile(r" -- Estimated remaining time: (?!warming up)(?P<time>[^(]+?) \(")
_TROUBLE = re.compile(r" (!!|##) Error: (?P<said>.*)")


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of its output says: `done` layers are finished, `left` is its own estimate, `error` why it gave up."""

    done: int | None = None
    left: str | None = None
    error: str | None = None


def command(
    python: str, original: Path, out: Path, work: Path, rate: float, devices: Sequence[int], *, resume: bool = False
) -> list[str]:
    """The words to run. Paths are to be absolute.

    A resumed job has its settings in its work folder, except the devices: those it would silently set to the first one.
    """
    cards = ["-d", ",".join(map(str, devices))]
    words = [python, "-m", MODULE, "-w", str(work), *cards]
    return [*words, "-r"] if resume else [*words, "-i", str(original), "-o", str(out), "-b", f"{rate:g}"]


def checkpoint(work: Path) -> Path | None:
    """The folder of the last whole checkpoint; None where there is none.

    A new one is written aside, then the last one is renamed, then the new one takes its name. A run that was killed between
    the two has left it where it was written.
    """
    names = ("ckpt", "ckpt_new") if (work / "ckpt_old").is_dir() else ("ckpt",)
    return next((work / name for name in names if (work / name / "job.json").is_file()), None)


def checkpoint_bytes(geometry: Geometry) -> Size:
    """The disk that its checkpoints take at most: the hidden state of all calibration rows, three times.

    A new one is written whole while the last one and the one before are still there.
    """
    return Size(3 * _ROWS * _COLUMNS * _STATE_BYTES * geometry.hidden)


def read_line(line: str) -> Line:
    """The line's meaning; an empty Line for those that say nothing of progress."""
    if found := _QUANTIZED.match(line):
        # Each matrix of a layer has a line, and then the layer as a whole.
        return Line(done=int(found["layer"]) + (found["inner"] is None))
    if found := _REMAINING.match(line):
        return Line(left=found["time"])
    if found := _TROUBLE.match(line):
        return Line(error=found["said"])
    return Line()

"""Convert: an EXL3 folder from a model's unquantised original, by exllamav3's own converter, watched to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ...engines.progress import Progress, Report, reporting
from ...errors import ConfigError, HydraError
from ..journal import lock
from .conversion import Conversion, is_done, prepare
from .converter import checkpoint, read_line

__all__ = ["convert"]

_LOG = "convert.log"


def convert(
    original: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress = None, **options: Any
) -> Conversion:
    """Make the EXL3 folder `out` from the original's folder; `options` and refusals are prepare()'s.

    Runs until the converter is done: minutes for a small model, hours for a 70B. One that is stopped, or killed, is continued
    by the same call from its last checkpoint (every two minutes); one that is done is not run again. Raises HydraError with
    the converter's last words where it fails; its whole output is in convert.log in the work folder.
    """
    prepared = prepare(original, out, **options)
    if not prepared.done:
        prepared.work.mkdir(parents=True, exist_ok=True)
        with reporting(progress) as report:
            _run(prepared, report)
    return replace(prepared, done=True)


def _run(prepared: Conversion, report: Report) -> None:
    last: deque[str] = deque(maxlen=20)
    with (prepared.work / _LOG).open("ab") as log:
        if not lock(log):
            raise HydraError(f"a conversion is at work in {prepared.work}", hint="wait until it is done, or end it")
        _mend(prepared.work)
        status = _listen(prepared, log, last, report)
    said = next((found for found in (read_line(line).error for line in reversed(last)) if found), None)
    # It ends with status 0 after an error in its arguments, too; what it has written is what counts.
    if status or said or not is_done(prepared.out, prepared.work):
        words = said or (last[-1].strip() if last else "it says nothing")
        raise HydraError(
            f"the converter ended with status {status}: {words}",
            hint=f"{prepared.work / _LOG} has all; the same call continues",
        )
    report(1.0, f"{prepared.out.name} is done")


def _mend(work: Path) -> None:
    """Give the last checkpoint its name, where a run was killed just before it did so itself."""
    kept, named = checkpoint(work), work / "ckpt"
    if kept is not None and kept != named:
        with suppress(FileNotFoundError):
            named.rmdir()  # empty: made by the converter, which then did not find its checkpoint
        kept.rename(named)


def _listen(prepared: Conversion, log: IO[bytes], last: deque[str], report: Report) -> int:
    """Its exit status, when it has ended; its lines are kept and told."""
    with _converter(prepared.command, log) as process:
        assert process.stdout is not None, "it is a pipe"
        try:
            for told in _told(process.stdout, log, last):
                report(*_progress(told, prepared.layers))
        except BaseException:
            process.terminate()  # Ctrl-C, or the caller's progress raised: its last checkpoint stands
            raise
    return process.returncode


def _converter(words: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # Lines come as they are printed; a bar of rich's is not drawn where no terminal is.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    # With the log it has the log's lock: should this process be killed, nobody begins beside the one that it leaves behind.
    kept = () if sys.platform == "win32" else (log.fileno(),)
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=kept,
        )
    except OSError as error:
        raise ConfigError(
            f"{words[0]} cannot be run: {error.strerror or error}", hint="python= of the environment with exllamav3"
        ) from error


def _told(lines: Iterable[bytes], log: IO[bytes], last: deque[str]) -> Iterator[tuple[int, str]]:
    """(layers done, the converter's own estimate) whenever it says something new; every line is kept."""
    done, left = 0, ""
    for raw in lines:
        log.write(raw)
        log.flush()
        line = raw.decode("utf-8", "replace")
        if line.strip():
            last.append(line.rstrip())
        said = read_line(line)
        if said.done is not None or said.left is not None:
            done, left = said.done if said.done is not None else done, said.left or left
            yield done, left


def _progress(told: tuple[int, str], layers: int) -> tuple[float, str]:
    # The head, and the writing of the folder, come after the last layer.
    done, left = told
    return 0.97 * min(1.0, done / layers), f"{done} of {layers} layers" + (f", {left} to go" if left else "")

"""Whether a process is a left-over of this very server: proven, or left alone; and how a proven one is ended."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..configs.disk import read
from ..errors import ConfigError
from .processes import Process, process

__all__ = ["Instance", "end", "proof", "record", "recorded"]

# TabbyAPI ends about four seconds after SIGTERM, even with an answer on its way.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One server as its configuration and unit make it: where it runs, what with, and who it was the last time.

    `group` is the cgroup of its unit, where the caller runs in one. `was` is (pid, start) as `watch` recorded them.
    """

    config: Path
    python: str | None = None
    group: str | None = None
    was: tuple[int, int] | None = None


def proof(suspect: Process, instance: Instance) -> str | None:
    """Why this process must be the instance's own; None where that is not proven. A name or a port proves nothing."""
    if suspect.pid in (os.getpid(), os.getppid()):
        return None
    if instance.was == (suspect.pid, suspect.started):
        return "it is the process that was recorded when the server last served"
    if suspect.unit is not None and suspect.group == instance.group:
        return f"it is in the cgroup of {suspect.unit}"
    if _same_command(suspect, instance):
        return f"it runs {instance.python} main.py in {instance.config.parent} by the same config"
    return None


def _same_command(suspect: Process, instance: Instance) -> bool:
    """Same interpreter, same folder, TabbyAPI's main.py, and no other config than this one."""
    if instance.python is None or suspect.executable is None or suspect.folder != str(instance.config.parent):
        return False
    words = suspect.command
    config = next((after for word, after in itertools.pairwise(words) if word == "--config"), "config.yml")
    mine = os.path.normpath(os.path.join(suspect.folder, config)) == str(instance.config)
    same = os.path.realpath(instance.python) == suspect.executable and words[:1] == (instance.python,)
    return same and mine and any(Path(word).name == "main.py" for word in words[1:2])


def end(orphan: Process, look: Callable[[int], Process | None] = process, sleep: Callable[[float], None] = time.sleep) -> bool:
    """End exactly this process: SIGTERM, and SIGKILL after ten seconds. Whether it is gone.

    The signal goes by a handle on the process, not by its number, which may mean another one by then.
    """
    try:
        handle = os.pidfd_open(orphan.pid)
    except ProcessLookupError:
        return True
    try:
        for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, 2.0)):
            now = look(orphan.pid)
            if now is None or now.started != orphan.started:
                return True  # the handle is of whoever has the number now, and it is not sent anything
            signal.pidfd_send_signal(handle, number)
            ends_at = time.monotonic() + patience
            while (now := look(orphan.pid)) is not None and now.started == orphan.started:
                if time.monotonic() >= ends_at:
                    break
                sleep(0.1)
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
    now = look(orphan.pid)
    return now is None or now.started != orphan.started


def record(path: Path, served_by: Process) -> None:
    """Keep who serves, for the next start's proof."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(f"{served_by.pid} {served_by.started}\n", encoding="ascii")
    aside.replace(path)


def recorded(path: Path) -> tuple[int, int] | None:
    """(pid, start) as `record` left them; None where nothing was recorded. Raises ConfigError for another file."""
    if not path.exists():
        return None
    words = read(path).split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise ConfigError(f"{path} is no record of a process", hint="hydra-infer watch --record writes it")
    return int(words[0]), int(words[1])

"""The one door of this room that touches the disk: a configuration file read as it is, and replaced as a whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
from pathlib import Path

from ..errors import ConfigError

__all__ = ["read", "write"]


def read(path: str | os.PathLike[str]) -> str:
    """The text, line ends as they are. Raises ConfigError for what cannot be read or is not UTF-8."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{os.fspath(path)} is not UTF-8: {error.reason} at byte {error.start}") from None


def write(path: str | os.PathLike[str], text: str, *, was: str | None) -> Path | None:
    """Replace the file by `text` in one step, and return its backup beside it ("config.yml.bak", then ".bak2", …).

    `was` is the text that the new one was made from: a file that reads otherwise by now is left alone, and so is one that
    exists where `was` is None. New file and backup have the old one's permissions and owner. None is returned where there
    was nothing to back up, or nothing changes. Raises ConfigError; then nothing has changed.
    """
    target = Path(path).resolve()  # a link stays one, and what it leads to is replaced
    try:
        if was is None:
            _create(target, text)
            return None
        if text == was:
            _check(target, was)
            return None
        return _replace(target, text, was)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}", hint="nothing was changed") from error


def _create(target: Path, text: str) -> None:
    """An empty file, with the permissions that new files have here, holds the place until the text is there."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise ConfigError(f"{target} is there already", hint="read it first, and give what it said as was=") from None
    try:
        _replace(target, text, "")
    except BaseException:
        if target.stat().st_size == 0:
            target.unlink()
        raise


def _replace(target: Path, text: str, was: str) -> Path | None:
    """The backup is made of what was read, not of what is there: a change in between must not end up in neither."""
    _check(target, was)
    fresh = _beside(target, text)
    try:
        backup = _back_up(target, was) if was else None
        _check(target, was)
        fresh.replace(target)
    except BaseException:
        fresh.unlink()
        raise
    return backup


def _check(target: Path, was: str) -> None:
    now = read(target) if target.exists() else None
    if now != was:
        what = "is gone" if now is None else "has changed"
        raise ConfigError(f"{target} {what} since it was read; nothing was written", hint="read it again, and change that")


def _beside(target: Path, text: str) -> Path:
    """The text in a file of its own in the same folder, on the disk, as the target is for permissions and owner."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    fresh, model = Path(name), target.stat()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        # Root may be editing a service's own file. Windows has no owners of this kind.
        if hasattr(os, "chown") and (fresh.stat().st_uid, fresh.stat().st_gid) != (model.st_uid, model.st_gid):
            os.chown(fresh, model.st_uid, model.st_gid)
        fresh.chmod(stat.S_IMODE(model.st_mode))
    except BaseException:
        fresh.unlink()
        raise
    return fresh


def _back_up(target: Path, text: str) -> Path:
    """A copy beside it under the first name that is free: a backup is never overwritten."""
    copy = _beside(target, text)
    for number in itertools.count(1):
        backup = target.with_name(f"{target.name}.bak{'' if number == 1 else number}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(backup, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
    return copy.replace(backup)

"""The door to the disk: one step, a backup beside, nothing overwritten that was not read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hydra_infer import ConfigError
from hydra_infer.configs import disk
from hydra_infer.configs.disk import read, write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_and_two_changes(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    assert write(path, "a: 1\r\n", was=None) is None
    assert read(path) == "a: 1\r\n"
    first = write(path, "a: 2\n", was="a: 1\r\n")
    second = write(path, "a: 3\n", was="a: 2\n")
    assert first is not None
    assert second is not None
    assert (first.name, read(first)) == ("config.yml.bak", "a: 1\r\n")
    assert (second.name, read(second)) == ("config.yml.bak2", "a: 2\n")
    assert names(tmp_path) == ["config.yml", "config.yml.bak", "config.yml.bak2"]


def test_nothing_to_change_is_nothing_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    write(path, "a: 1\n", was=None)
    before = path.stat()
    assert write(path, "a: 1\n", was="a: 1\n") is None
    assert (path.stat().st_ino, names(tmp_path)) == (before.st_ino, ["config.yml"])


@pytest.mark.parametrize(
    ("there", "was", "why"),
    [
        ("a: 9\n", "a: 1\n", "has changed"),
        (None, "a: 1\n", "is gone"),
        ("a: 1\n", None, "is there already"),
        ("", None, "already"),
    ],
)
def test_what_was_not_read_is_not_overwritten(tmp_path: Path, there: str | None, was: str | None, why: str) -> None:
    path = tmp_path / "config.yml"
    if there is not None:
        path.write_text(there)
    with pytest.raises(ConfigError, match=why):
        write(path, "a: 2\n", was=was)
    assert names(tmp_path) == ([] if there is None else ["config.yml"])
    assert there is None or path.read_text() == there


def test_a_change_at_the_last_moment_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yml"
    write(path, "a: 1\n", was=None)
    back_up = disk._back_up

    def meanwhile(target: Path, text: str) -> Path:
        backup = back_up(target, text)
        target.write_text("somebody else's\n")
        return backup

    monkeypatch.setattr(disk, "_back_up", meanwhile)
    with pytest.raises(ConfigError, match="has changed since it was read"):
        write(path, "a: 2\n", was="a: 1\n")
    assert path.read_text() == "somebody else's\n"
    assert names(tmp_path) == ["config.yml", "config.yml.bak"]


def test_a_failure_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yml"
    write(path, "a: 1\n", was=None)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write(path, "a: 2\n", was="a: 1\n")
    with pytest.raises(ConfigError, match="No space left on device"):
        write(tmp_path / "new.yml", "a: 2\n", was=None)
    assert names(tmp_path) == ["config.yml"]
    assert path.read_text() == "a: 1\n"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.yml"
    path.write_text("a: 1\n")
    path.chmod(mode)
    backup = write(path, "a: 2\n", was="a: 1\n")
    assert backup is not None
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, backup)] == [mode, mode]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.yml").write_text("a: 1\n")
    link = tmp_path / "config.yml"
    link.symlink_to(tmp_path / "real" / "config.yml")
    write(link, "a: 2\n", was="a: 1\n")
    assert link.is_symlink()
    assert names(tmp_path / "real") == ["config.yml", "config.yml.bak"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.yml")
    (tmp_path / "latin.yml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read(tmp_path / "latin.yml")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "no" / "folder.yml", "a: 1\n", was=None)

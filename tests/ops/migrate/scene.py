"""A machine in a folder: TabbyAPI's config, unit and model link in their old form, what they are to become, and two servers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.tabby import API_KEY, TabbyServer

from hydra_infer.ops.migrate import Move

__all__ = ["API_KEY", "NEW_MODEL", "OLD_MODEL", "Scene", "scene"]

OLD_MODEL, NEW_MODEL = "Midnight-Miqu-70B-EXL2-2.5bpw", "Midnight-Miqu-70B-EXL3-2.5bpw"
UNIT = "[Service]\nWorkingDirectory=/opt/tabby-{side}\n"


class Scene:
    """The files, by name, in both forms; `log` is what the commands did. The servers stand for what systemd would start."""

    def __init__(self, root: Path, old_port: int, new_port: int) -> None:
        self.root = root
        self.folder, self.log = root / "migration", root / "log"
        self.config, self.unit, self.link = root / "config.yml", root / "tabby.service", root / "models" / "current"
        self.old = self._form("old", old_port, OLD_MODEL)
        self.new = self._form("new", new_port, NEW_MODEL)
        for name in (OLD_MODEL, NEW_MODEL):
            (root / "models" / name).mkdir(parents=True)
        self.config.write_bytes(self.old[0])
        self.unit.write_bytes(self.old[1])
        self.link.symlink_to(self.old[2])

    def _form(self, side: str, port: int, model: str) -> tuple[bytes, bytes, str]:
        # Line ends, comments and bytes beyond ASCII are part of a file.
        config = f"# {side}: größer\r\nnetwork:\r\n  port: {port}\r\nmodel:\r\n  model_name: {model}\r\n"
        return config.encode(), UNIT.format(side=side).encode(), model

    @property
    def now(self) -> tuple[bytes, bytes, str]:
        return self.config.read_bytes(), self.unit.read_bytes(), str(self.link.readlink())

    @property
    def commands(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def move(self) -> Move:
        """What a user asks for, by the same words each time."""
        return Move.of(
            config=self.config,
            new_config=self.new[0].decode(),
            unit=self.unit,
            new_unit=self.new[1].decode(),
            link=self.link,
            new_target=self.new[2],
            **{name: self.command(name) for name in ("stop", "reload", "start")},
        )

    def command(self, name: str) -> str:
        return shlex.join(["sh", "-c", f"echo {name} >> {shlex.quote(str(self.log))}"])


@contextmanager
def scene(root: Path) -> Iterator[Scene]:
    """Both servers answer, each with its model: which of them is asked is what the tests see."""
    with TabbyServer([OLD_MODEL], OLD_MODEL) as old, TabbyServer([NEW_MODEL], NEW_MODEL) as new:
        yield Scene(root, old.port, new.port)

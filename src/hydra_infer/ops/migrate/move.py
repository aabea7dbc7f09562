"""Move: everything that changes when a server goes from its old form to its new one, and the order of it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...configs.document import parse
from ...errors import ConfigError
from .swap import Side, Swap

__all__ = ["Move", "Server", "section"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a TabbyAPI with some config.yml is found from its own machine, and which model it loads at start (None: none)."""

    url: str
    model: str | None

    @classmethod
    def of(cls, text: str, where: str = "config.yml") -> Self:
        """By the text of a config.yml; what it leaves out has TabbyAPI's defaults, 127.0.0.1 and 5000."""
        network, model = (section(text, name, where) for name in ("network", "model"))
        host = str(network.get("host") or "127.0.0.1")
        home = host in ("0.0.0.0", "::", "localhost")
        return cls(f"http://{'127.0.0.1' if home else host}:{network.get('port') or 5000}", model.get("model_name"))


def section(text: str, name: str, where: str = "config.yml") -> Mapping[str, Any]:
    """A section of a config.yml's text; empty where there is none. Raises ConfigError for what is not YAML."""
    root = parse(text, where)
    found = root.get(name) if isinstance(root, dict) else None
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Move:
    """The files and links that change, and the commands around them; the same steps lead forward and back.

    `old` and `new` are the two servers; they are asked whether they serve only where there is a command that starts them.
    """

    swaps: tuple[Swap, ...]
    old: Server
    new: Server
    stop: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    start: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        config: str | os.PathLike[str],
        new_config: str,
        old_config: str | None = None,
        unit: str | os.PathLike[str] | None = None,
        new_unit: str | None = None,
        old_unit: str | None = None,
        link: str | os.PathLike[str] | None = None,
        new_target: str | os.PathLike[str] | None = None,
        old_target: str | os.PathLike[str] | None = None,
        stop: str = "",
        reload: str = "",
        start: str = "",
    ) -> Self:
        """What is there now becomes the old form. `new_config` and `new_unit` are texts; `new_target` is where `link` is to lead.

        For another host, whose move is printed by script(), the old forms are given, too: then paths are that host's.
        Commands are split into words as a shell does, and run without one. Raises ConfigError for a half-told pair, for a file
        that cannot be read, and for commands that stop a server and do not start it.
        """
        for name, pair in {"unit": (unit, new_unit), "link": (link, new_target)}.items():
            if (pair[0] is None) != (pair[1] is None):
                raise ConfigError(f"the {name} and its new form go together: {pair[0]!r}, {pair[1]!r}")
        if bool(stop) != bool(start):
            raise ConfigError(f"stop={stop!r}, start={start!r}: a server that is stopped is to be started, too")
        swaps = [Swap.file("config", config, new_config, old_config)]
        if unit is not None and new_unit is not None:
            swaps.append(Swap.file("unit", unit, new_unit, old_unit))
        if link is not None and new_target is not None:
            swaps.append(Swap.link("link", link, new_target, old_target))
        commands = {"stop": stop, "reload": reload, "start": start}
        return cls(
            tuple(swaps),
            Server.of(swaps[0].old, os.fspath(config)),
            Server.of(new_config, "the new config"),
            **{name: tuple(shlex.split(words)) for name, words in commands.items()},
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What to_json() gave."""
        data = json.loads(text)
        swaps = tuple(Swap.from_dict(one) for one in data.pop("swaps"))
        old, new = Server(**data.pop("old")), Server(**data.pop("new"))
        return cls(swaps, old, new, **{name: tuple(words) for name, words in data.items()})

    def to_json(self) -> str:
        """The move as text, whole files included: as secret as they are."""
        servers = {"old": {"url": self.old.url, "model": self.old.model}, "new": {"url": self.new.url, "model": self.new.model}}
        commands = {"stop": self.stop, "reload": self.reload, "start": self.start}
        return json.dumps({"swaps": [swap.to_dict() for swap in self.swaps], **servers, **commands}, indent=1)

    @property
    def name(self) -> str:
        """A name that no other move has."""
        return f"move-{hashlib.sha256(self.to_json().encode()).hexdigest()[:16]}.json"

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in order, forward as well as back: with the server stopped the order of swaps is all one."""
        around = {name: bool(getattr(self, name)) for name in ("stop", "reload", "start")}
        before, after = ["stop"] * around["stop"], ["reload"] * around["reload"] + ["start", "verify"] * around["start"]
        return (*before, *(swap.name for swap in self.swaps), *after)

    @property
    def changes(self) -> bool:
        """Whether old and new differ at all."""
        return any(swap.old != swap.new for swap in self.swaps)

    def server(self, side: Side) -> Server:
        """The one that serves on that side."""
        return self.new if side == "new" else self.old

    def same_aim(self, other: Move) -> bool:
        """Whether both lead to the same new form by the same commands, from wherever."""

        def aim(move: Move) -> Mapping[str, Any]:
            ends = [(swap.name, swap.path, swap.kind, swap.new) for swap in move.swaps]
            return {"ends": ends, "commands": (move.stop, move.reload, move.start)}

        return aim(self) == aim(other)

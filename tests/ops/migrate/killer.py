"""A process of one thread that forks: each child carries out one order and is killed by SIGKILL at its nth act on the disk.

An order is a line of JSON; the answer is how many acts there were when the child ended by itself, or "killed". Acts are lines
of the journal and files put in place, each with a moment before it and one after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hydra_infer.errors import HydraError
from hydra_infer.ops.journal import Journal
from hydra_infer.ops.migrate import Move, cutover, rollback

say = partial(print, flush=True)


class _Countdown:
    """Moments, of which the last one is the end."""

    def __init__(self, fatal: int) -> None:
        self.met, self._fatal = 0, fatal

    def pass_by(self) -> None:
        if self.met == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.met += 1

    def around(self, act: Any) -> Any:
        def acting(*arguments: Any) -> Any:
            self.pass_by()
            done = act(*arguments)
            self.pass_by()
            return done

        return acting


def _obey(order: dict[str, Any]) -> int:
    countdown = _Countdown(order["fatal"])
    Journal._add = countdown.around(Journal._add)  # type: ignore[method-assign]
    os.replace = countdown.around(os.replace)
    options = {"api_key": order["api_key"], "timeout": order["timeout"], "progress": False}
    try:
        if order["job"] == "rollback":
            rollback(order["folder"], **options)
        else:
            cutover(order["folder"], Move.from_json(order["move"]), **options)
    except HydraError:
        pass  # undone: that is an end, too
    return countdown.met


def _child(order: dict[str, Any], told: int) -> None:
    os.write(told, str(_obey(order)).encode())
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        hears, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line), told)
        os.close(told)
        said = os.read(hears, 64)
        os.close(hears)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        say("killed" if killed else said.decode() or f"status {status}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()

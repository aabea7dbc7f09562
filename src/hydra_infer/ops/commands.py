"""A program run and bounded in time, for what only it can tell: systemctl, journalctl, git, ssh."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Ran", "Run", "run"]


@dataclass(frozen=True, slots=True)
class Ran:
    """Its exit status and what it printed; `status` is None where it did not run to its end, and `trouble` says why not."""

    status: int | None
    out: str = ""
    trouble: str = ""


Run = Callable[[Sequence[str], float], Ran]


def run(command: Sequence[str], seconds: float) -> Ran:
    """Run it without a shell and without input, `seconds` at most. Never raises for what the program does."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        return Ran(None, trouble=f"there is no {command[0]} here")
    except subprocess.TimeoutExpired:
        return Ran(None, trouble=f"{command[0]} did not answer within {seconds:g} s")
    except OSError as error:
        return Ran(None, trouble=f"{command[0]} does not run: {error.strerror}")
    trouble = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    return Ran(done.returncode, done.stdout, "".join(trouble)[:200])

"""A systemd unit as it stands: what systemctl shows of it, and the last errors in its journal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..configs.secrets import masked
from .commands import Run

__all__ = ["PRESTART_WAIT", "Unit", "last_errors", "read_unit"]

# `hydra-infer prestart` waits so long where it is told nothing else.
PRESTART_WAIT = 60.0

_SHOWN = (
    "LoadState ActiveState Result MainPID NRestarts Restart RestartUSec StartLimitIntervalUSec StartLimitBurst "
    "TimeoutStartUSec KillMode Environment ExecStartPre"
).split()
# systemd.time(7): how `show` prints durations.
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "month": 2629800, "y": 31557600}
_PART = re.compile(r"([\d.]+)(us|ms|s|min|h|d|w|month|y)")
_ERROR = re.compile(r"\b(ERROR|CRITICAL|Traceback|OutOfMemoryError|CUDA error|Error:)", re.IGNORECASE)
# TabbyAPI writes its keys into its journal at every start; they are 32 hexadecimal digits.
_KEY = re.compile(r"\b[0-9a-fA-F]{32,}\b|(?<=Bearer )\S+|\bsk-\S+|\bhf_\w+")


@dataclass(frozen=True, slots=True)
class Unit:
    """Durations are seconds, infinite ones math.inf. `environment` are the variables that it sets.

    `prestart` is how long a `hydra-infer prestart` before each start may wait; None where the unit has none.
    """

    name: str
    state: str
    result: str
    pid: int
    restarts: int
    restart: str
    restart_seconds: float
    limit_seconds: float
    limit_burst: int
    start_seconds: float
    kill_mode: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    prestart: float | None = None


def read_unit(name: str, run: Run) -> Unit | str:
    """The unit, or why it cannot be looked at ("there is none" is one reason)."""
    ran = run(["systemctl", "show", "--no-pager", f"--property={','.join(_SHOWN)}", "--", name], 5.0)
    if ran.status != 0:
        return ran.trouble or "systemctl shows nothing"
    said = dict(line.split("=", 1) for line in ran.out.splitlines() if "=" in line)
    if said.get("LoadState") != "loaded":
        return f"there is no {name} here"
    return Unit(
        name=name,
        state=said.get("ActiveState", ""),
        result=said.get("Result", ""),
        pid=int(said.get("MainPID") or 0),
        restarts=int(said.get("NRestarts") or 0),
        restart=said.get("Restart", "no"),
        restart_seconds=_seconds(said.get("RestartUSec", "")),
        limit_seconds=_seconds(said.get("StartLimitIntervalUSec", "")),
        limit_burst=int(said.get("StartLimitBurst") or 0),
        start_seconds=_seconds(said.get("TimeoutStartUSec", "")),
        kill_mode=said.get("KillMode", ""),
        environment=_environment(said.get("Environment", "")),
        prestart=_prestart(said.get("ExecStartPre", "")),
    )


def last_errors(name: str, run: Run, most: int = 3) -> list[str] | str:
    """The last lines of its journal that tell of errors, keys hidden; or why it cannot be read."""
    ran = run(["journalctl", "--unit", name, "--lines", "300", "--output", "cat", "--no-pager", "--quiet"], 5.0)
    if ran.status != 0:
        return ran.trouble or "journalctl shows nothing"
    lines = [line for line in ran.out.splitlines() if _ERROR.search(line)]
    return [masked(_KEY.sub("***", line.strip()))[:300] for line in lines[-most:]]


def _prestart(text: str) -> float | None:
    """From `{ path=… ; argv[]=/opt/hydra/bin/hydra-infer prestart --wait 90 ; … }`."""
    if re.search(r"hydra[-_]infer\S* prestart\b", text) is None:
        return None
    wait = re.search(r"--wait[ =](\d+(?:\.\d+)?)", text)
    return float(wait[1]) if wait else PRESTART_WAIT


def _seconds(text: str) -> float:
    if text == "infinity":
        return float("inf")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def _environment(text: str) -> dict[str, str]:
    """NAME=value pairs, quoted where a value has spaces."""
    import shlex

    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()  # a quote without its end: systemd prints what it was given
    return dict(word.split("=", 1) for word in words if "=" in word)

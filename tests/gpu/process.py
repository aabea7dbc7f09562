"""Process: run one step apart from this program, for so long and no longer, with everything it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ledger import Entry
from .steps import Step

__all__ = ["environment", "perform"]

HERE = Path(__file__).resolve().parent
SRC = HERE.parent.parent / "src"

# What a stopped step has to put itself away (ninja deletes what it had half written) before it is killed.
GRACE = 10.0

# How much of a failed step's words the report keeps.
TAIL = 4000


def environment(state: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The variables of every step. What was installed and built lies under `state`; a built extension counts as installed."""
    before = [path for path in (base.get("PYTHONPATH"),) if path]
    # ninja may lie beside the Python of an environment that was not activated.
    programs = [str(Path(sys.executable).parent), *[path for path in (base.get("PATH"),) if path]]
    built = [state / "ext" / f"{package}_ext" for package in ("exllamav3", "exllamav2")]
    return {
        "CUDA_VISIBLE_DEVICES": "0",
        **base,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": os.pathsep.join([str(SRC), str(state / "site"), *map(str, built), *before]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "TORCH_EXTENSIONS_DIR": str(state / "ext"),
        "TRITON_CACHE_DIR": str(state / "triton"),
    }


def perform(step: Step, state: Path, seconds: float, base: Mapping[str, str]) -> Entry:
    """Run a step in a process of its own for at most `seconds`; its words go to `state`/log."""
    stem = step.name.replace("/", "-")
    log, outcome = state / "log" / f"{stem}.txt", state / "log" / f"{stem}.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    outcome.unlink(missing_ok=True)
    told = json.dumps({"job": step.job, "arguments": dict(step.arguments)})
    command = [sys.executable, str(HERE / "child.py"), str(state), str(outcome), told]
    began = time.monotonic()
    with log.open("ab") as words:
        child = subprocess.Popen(
            command, stdout=words, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment(state, base), start_new_session=True,
        )  # fmt: skip
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            return _stopped(step, time.monotonic() - began)
        finally:
            _end(child)
    return _entry(child.returncode, outcome, log, round(time.monotonic() - began, 1))


def _stopped(step: Step, seconds: float) -> Entry:
    """Out of time: what resumes goes on next time; what had all the time it may take has failed."""
    status: Any = "failed" if not step.resumes and seconds >= step.limit else "unfinished"
    return Entry(status, round(seconds, 1), error=f"stopped after {seconds:.0f} s")


def _entry(code: int, outcome: Path, log: Path, seconds: float) -> Entry:
    if outcome.exists():
        found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
        error = found.pop("error", None)
        return Entry("failed" if error else "done", seconds, found, error or "")
    tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
    return Entry("failed", seconds, error=f"the process ended with {code} and no result\n{tail}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Whatever the step has started ends with it: first by an interrupt, then without asking."""
    for number, wait in ((signal.SIGINT, GRACE), (signal.SIGKILL, GRACE)):
        if child.poll() is not None and number == signal.SIGINT:
            continue
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            continue

"""Check the ExLlama engines and the planner on one CUDA card, in steps that can be stopped and taken up again.

Run by `make gpu-check`; docs/gpu.md says what it needs. Exit status 0: all done, every goal met; 1: something failed, missed its
goal or is missing here; 3: steps are left to run, call it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS), str(TESTS.parent / "src")]

from gpu import packages, report  # noqa: E402
from gpu.ledger import Ledger, write_whole  # noqa: E402
from gpu.process import perform  # noqa: E402
from gpu.steps import Step, all_steps, blocked_by, still_due  # noqa: E402


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path(".gpu-check"), help="where everything is kept")
    parser.add_argument("--wheels", type=Path, help="install from this folder alone (docs/gpu.md says how to fill it)")
    parser.add_argument("--real", type=Path, help="the folder of a real model to try as well")
    parser.add_argument("--minutes", type=float, help="begin no step that would not end within so many minutes")
    parser.add_argument("--again", action="append", default=[], help="forget a step or a stage, or all that 'failed'")
    parser.add_argument("--extensions", type=Path, help="a folder with the pieces of extensions that --keep wrote")
    parser.add_argument("--keep", action="store_true", help="leave the built extensions in $OUT, or beside the report, in pieces")
    parser.add_argument("--list", action="store_true", help="name the steps and what became of them, run none")
    asked = parser.parse_args(words)
    state = asked.state.resolve()
    steps, ledger = all_steps(wheels=_absolute(asked.wheels), real=_absolute(asked.real)), Ledger(state)
    unknown = set(asked.again) - {"failed"} - {step.name for step in steps} - {step.stage for step in steps}
    if unknown:
        parser.error(f"--again: no step and no stage is called {', '.join(sorted(unknown))}")
    if asked.list:
        for step in steps:
            print(f"{step.name:32} {report.state_of(step, steps, ledger.entries)}")
        return report.outcome(steps, ledger.entries)
    # The machine is looked at every time: it may be another one.
    for name in ("machine", *asked.again):
        ledger.forget(name)
    if asked.extensions:
        print(*packages.unpack(asked.extensions, state), sep="\n")
    _run(steps, ledger, state, time.monotonic() + asked.minutes * 60 if asked.minutes else None)
    _report(steps, ledger, state)
    if asked.keep:
        print(*packages.keep(state, Path(os.environ.get("OUT") or state)), sep="\n")
    return report.outcome(steps, ledger.entries)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _run(steps: list[Step], ledger: Ledger, state: Path, until: float | None) -> None:
    """Every step that is due and possible, in order, reported on after each; ends before one that time is too short for."""
    for step in still_due(steps, ledger.done, lambda path: (state / path).exists()):
        if step.name in ledger.failed or blocked_by(step, report.unable(steps, ledger.entries)):
            continue
        left = step.limit if until is None else until - time.monotonic()
        if left < step.usual:
            print(f"no time left for {step.name}: call it again")
            return
        entry = ledger.put(step.name, perform(step, state, min(step.limit, left), os.environ))
        reason = f": {report.last_line(entry.error)}" if entry.error else ""
        print(f"{step.name:32} {report.state_of(step, steps, ledger.entries)}, {entry.seconds:.0f} s{reason}", flush=True)
        _report(steps, ledger, state)


def _report(steps: list[Step], ledger: Ledger, state: Path) -> None:
    """report.md and report.json, and a copy of both, and of the ledger, in $OUT where that is set."""
    texts = {
        "report.md": report.markdown(steps, ledger.entries),
        "report.json": json.dumps(report.plain(steps, ledger.entries), indent=1),
        ledger.path.name: ledger.text(),
    }
    for folder in (state, *(Path(out) for out in [os.environ.get("OUT")] if out)):
        for name, text in texts.items():
            write_whole(folder / name, text)


if __name__ == "__main__":
    sys.exit(main())

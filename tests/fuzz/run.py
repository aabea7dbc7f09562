"""Fuzz the parsers one after another, some at a time, and say how far each came: `make fuzz` (docs/fuzzing.md)."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)

from fuzz.targets import TARGETS  # noqa: E402 - found beside this file's folder

CORPUS = HERE.parents[1] / ".cache" / "fuzz"


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("parsers", nargs="*", help=f"of {', '.join(TARGETS)}; all of them where none is named")
    words.add_argument("--minutes", type=float, default=10.0, help="for each parser")
    words.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at a time")
    said = words.parse_args()
    names = said.parsers or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        words.error(f"no such parser: {', '.join(sorted(unknown))}")
    with ThreadPoolExecutor(said.jobs) as jobs:
        found = list(jobs.map(lambda name: _explore(name, round(said.minutes * 60)), names))
    return 1 if any(found) else 0


def _explore(name: str, seconds: int) -> bool:
    """Whether something was found. What it was lies in findings/, where the tests run it again."""
    corpus, findings = CORPUS / name, HERE / "findings" / name
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / "explore.py"), name, str(seconds), str(corpus), str(findings)]
    log = corpus.with_suffix(".log")
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    text = log.read_text(errors="replace")
    done = re.search(r"Done (\d+) runs in (\d+) second", text)
    branches = re.findall(r"cov: (\d+)", text)[-1:] or ["?"]
    runs, spent = done.groups() if done else ((re.findall(r"^#(\d+)", text, re.MULTILINE) or ["0"])[-1], "?")
    told = "nothing found" if status == 0 else f"FOUND SOMETHING (status {status}): {log}"
    print(f"{name:12} {int(runs):>10,} inputs {spent:>5} s {branches[0]:>6} branches  {told}", flush=True)
    if not any(findings.iterdir()):
        findings.rmdir()
    return status != 0


if __name__ == "__main__":
    sys.exit(main())

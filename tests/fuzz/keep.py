"""Keep the smallest inputs of `make fuzz` that together reach what all of them reach, in seeds/: `python tests/fuzz/keep.py`.

They are what `make test` runs again; the rest (.cache/fuzz) stays on the machine, where the next run begins with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)

from fuzz.targets import TARGETS  # noqa: E402 - found beside this file's folder

Step = tuple[str, int, int]
# Of each parser, and of one: seeds are text in a repository.
MOST, LONGEST = 60, 3000


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]] or [HERE.parents[1] / ".cache" / "fuzz"]
    for parser, target in TARGETS.items():
        files = [path for folder in folders for path in (folder / parser).glob("*") if path.stat().st_size <= LONGEST]
        inputs = sorted({path.read_bytes() for path in files} - set(target.starts()), key=lambda data: (len(data), data))
        reached = set().union(*(_steps(target.run, data) for data in target.starts()))
        kept = []
        for data in inputs:
            try:
                steps = _steps(target.run, data)
            except Exception as error:  # noqa: BLE001 - a finding, or of another version
                print(f"{parser}: {type(error).__name__} by {data[:60]!r}")
                continue
            if len(kept) < MOST and steps - reached:
                reached |= steps
                kept.append(data)
        text = "".join(json.dumps(data.decode("latin-1")) + "\n" for data in kept)
        if kept:
            (HERE / "seeds").mkdir(exist_ok=True)
            (HERE / "seeds" / f"{parser}.jsonl").write_text(text)
        print(f"{parser:12} {len(kept):3} of {len(inputs)} inputs, {len(text):,} bytes")


def _steps(run: Any, data: bytes) -> set[Step]:
    """From which line to which the input leads, in the package's own files."""
    found: set[Step] = set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if "hydra_infer/" not in frame.f_code.co_filename:
            return None
        last, name = frame.f_lineno, frame.f_code.co_filename

        def step(inner: Any, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((name, last, inner.f_lineno))
                last = inner.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return found


if __name__ == "__main__":
    main()

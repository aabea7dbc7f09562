"""Child: one step in a process of its own. What it found, or what went wrong, is written as JSON when it is over."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
# Last: a name of ours must not stand before one of a package's (there is a tests/wheel.py).
sys.path += [str(TESTS), str(TESTS / "contract")]


def main() -> None:
    state, outcome, told = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    from gpu.ledger import write_whole

    write_whole(outcome, json.dumps(attempt(state, told["job"], told["arguments"])))


def attempt(state: Path, job: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the job returns, or {"error": …}: one sentence where the machine lacks something, else the whole story."""
    from gpu.meter import Lacking

    name, _, function = job.partition(".")
    try:
        found: dict[str, Any] = getattr(importlib.import_module(f"gpu.{name}"), function)(state, **arguments)
    except Lacking as error:
        return {"error": str(error)}
    except Exception:  # noqa: BLE001  a step may fail in any way; the report says how
        traceback.print_exc()
        return {"error": traceback.format_exc()[-4000:]}
    return found


if __name__ == "__main__":
    main()

"""Long runs: python tests/soak [--minutes 5] [--over httpcore] [--calls 100000] [--write]

It ends by itself, with status 1 where something is not well. --write renews docs/soak.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import growth
import streams
from rlimit import open_many_files

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
HEAD = """# Long runs

What the Router does over minutes and a hundred thousand calls. This page is written by `make soak MINUTES=5`, which takes some
more than that, and fails where a figure is not kept. The ordinary tests have a short run of the same kind.

## A thousand streams while servers fail

Four servers answer a thousand streams at once, token by token. One is well; of the others 5, 15 and 30 of 100 answers stall,
are cut off, reset, refused or turned away, and every few seconds one of them is killed and started again. Each token says whose
it is and which. A stream that gets another's, one twice, or none where one was due is counted, and so is an end that is not told
truly. A stream that breaks off after its first token is not sent elsewhere: it ends with an error that has the text so far.
"""
CALLS = """
## A hundred thousand calls

Whole answers, 16 at once, in ten rounds: new event loops for each, or new threads. Memory may grow by 5 % after the first round.
"""


def told(report: list[str]) -> str:
    return "\n".join(["", "```text", *report, "```", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--over", choices=["aiohttp", "httpcore"], default="aiohttp")
    parser.add_argument("--calls", type=int, default=growth.CALLS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.over == "httpcore":
        sys.modules["aiohttp"] = None  # type: ignore[assignment]  # as where it is not installed
    open_many_files()
    began = time.monotonic()
    flowed, is_well = streams.run(given.minutes * 60)
    flowed.insert(0, f"over {given.over}, {given.minutes:g} minutes")
    print("\n".join(flowed), flush=True)
    called, is_flat = growth.run(given.calls)
    print("\n".join(called))
    if given.write:
        machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        end = f"The whole took {(time.monotonic() - began) / 60:.0f} minutes ({machine}).\n"
        PAGE.write_text("\n".join([HEAD + told(flowed) + CALLS + told(called), end]))
    print("all is well" if is_well and is_flat else "NOT WELL")
    return 0 if is_well and is_flat else 1


if __name__ == "__main__":
    sys.exit(main())

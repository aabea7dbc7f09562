"""Fuzz one parser until its time is over: coverage-guided, with a limit on memory and on the time of each input.

    python tests/fuzz/explore.py PARSER SECONDS CORPUS FINDINGS

Needs atheris (tests/fuzz/requirements.txt) and Linux. What breaks the parser's word is written to FINDINGS, and the exit status
tells.
"""

from __future__ import annotations

import importlib
import random
import resource
import sys
from pathlib import Path
from typing import Any

# An input costs at most so many bytes beyond what the process had before it, and so many seconds.
MEMORY = 64 * 2**20
SECONDS = 10
_STATUS = Path("/proc/self/statm")


def main() -> None:
    import atheris

    parser, seconds, corpus, findings = sys.argv[1:5]
    sys.path[0] = str(Path(__file__).parents[1])
    with atheris.instrument_imports(include=["hydra_infer", "ruamel.yaml"]):
        target = importlib.import_module("fuzz.targets").TARGETS[parser]
        for start in target.starts():
            target.run(start)  # what is imported at its first use is watched too
    for number, start in enumerate(target.starts()):
        Path(corpus, f"start-{number}").write_bytes(start)
    words = Path(corpus).with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=1024",
        f"-max_len={target.longest}",
        f"-dict={words}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]
    mutator = {"custom_mutator": _mutator(atheris, target)} if target.values else {}
    atheris.Setup([sys.argv[0], *options, corpus], _measured(target.run), **mutator)
    atheris.Fuzz()


def _measured(run: Any) -> Any:
    """`run`, failing where the process's largest size grew by more than MEMORY during the input."""

    def one(data: bytes) -> None:
        before, most = _resident(), _largest()
        run(data)
        if _largest() > most and _largest() - before > MEMORY:
            raise MemoryError(f"{(_largest() - before) / 2**20:.0f} MiB for an input of {len(data)} bytes")

    return one


def _resident() -> int:
    return int(_STATUS.read_text().split()[1]) * resource.getpagesize()


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mutator(atheris: Any, target: Any) -> Any:
    from fuzz.values import changed

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.7 and (found := changed(data, dice, target.words)) is not None and len(found) <= most:
            return found
        return bytes(atheris.Mutate(data, most))

    return mutate


def _escaped(word: str) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\x{byte:02x}" for byte in word.encode())


main()

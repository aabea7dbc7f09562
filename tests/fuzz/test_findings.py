"""What fuzzing found, and what reaches every branch that it reached: each parser keeps its word on all of it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

HERE = Path(__file__).parent
FINDINGS = sorted(path for path in (HERE / "findings").glob("*/*") if path.is_file())
MIB = 2**20


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_mended(path: Path) -> None:
    tracemalloc.start()
    try:
        TARGETS[path.parent.name].run(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("parser", TARGETS)
def test_sound_inputs_and_those_that_reach_far(parser: str) -> None:
    target, kept = TARGETS[parser], HERE / "seeds" / f"{parser}.jsonl"
    seeds = [json.loads(line).encode("latin-1") for line in kept.read_text().splitlines()] if kept.is_file() else []
    assert min(map(len, target.starts())) <= target.longest  # a cut one is no JSON, and would lead nowhere
    for data in (*target.starts(), *seeds):
        target.run(data)


def test_every_finding_is_of_a_parser_that_is_fuzzed() -> None:
    assert FINDINGS
    assert {path.parent.name for path in FINDINGS} <= TARGETS.keys()

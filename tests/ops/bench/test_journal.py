"""A run that was stopped anywhere goes on to the same end; a file that is something else stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops.bench.made_up import SETUP, shorter

from hydra_infer.engines.progress import quiet
from hydra_infer.errors import ConfigError
from hydra_infer.ops.bench.compare import measure
from hydra_infer.ops.bench.journal import Journal
from hydra_infer.ops.bench.report import Report
from hydra_infer.ops.bench.steps import Setup, Step, steps

SHORT = shorter(kinds=("chat", "code"), parallel=(1, 4), repetitions=3)


class Servers:
    """Answers a step by its key alone, so that it matters not when it is asked; ends the run before its `last` answer."""

    def __init__(self, last: int | None = None) -> None:
        self.asked: list[Step] = []
        self.last = last

    def __call__(self, step: Step) -> dict[str, float]:
        if self.last is not None and len(self.asked) >= self.last:
            raise KeyboardInterrupt
        self.asked.append(step)
        return {"decode_tps": 40 + sum(step.key.encode()) % 17, "ttft": 0.1}


def run(path: Path | None, servers: Servers) -> Report:
    journal = Journal(path, Setup)
    journal.begin(SHORT)
    measure(SHORT, journal, servers, quiet)
    return Report.of(SHORT, journal.results, 0.03)


def test_a_continued_run_equals_an_uninterrupted_one_wherever_it_was_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Servers())
    assert whole == run(None, Servers())
    warm = 2 * len(SHORT.cells)
    for stop in (0, warm, warm + 1, warm + 7, warm + len(steps(SHORT)) - 1):
        path = tmp_path / f"stopped{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(path, Servers(stop))
        rest = Servers()
        assert run(path, rest) == whole
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()
        measured = [step for step in rest.asked if step.repetition >= 0]
        assert measured == steps(SHORT)[max(0, stop - warm) :]
    assert run(path, again := Servers()) == whole
    assert again.asked == []


def test_a_line_that_was_cut_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    whole = run(path, Servers())
    data = path.read_bytes()
    for cut in (1, 20, 60, 200):
        path.write_bytes(data[:-cut])
        assert run(path, servers := Servers()) == whole
        assert path.read_bytes() == data
        assert 1 <= sum(step.repetition >= 0 for step in servers.asked) <= 3


def test_each_kind_of_measurement_is_made_once_before_it_counts() -> None:
    servers = Servers()
    run(None, servers)
    first = servers.asked[: 2 * len(SHORT.cells)]
    assert {step.repetition for step in first} == {-1}
    assert {(step.name, step.parallel, step.side) for step in first} == {
        (kind, parallel, side) for kind, parallel in SHORT.cells for side in "ab"
    }


def test_another_runs_file_is_named_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, Servers())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="seed 1, now 9"):
        Journal(path, Setup).begin(shorter(kinds=("chat", "code"), parallel=(1, 4), repetitions=3, seed=9))
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["hello", "hello\n", "\n", '{"a": 1}\n', "[1]\n", '{"hydra_infer bench": {"a": 1}}\n', "\xff\n"])
def test_a_file_that_is_something_else_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="is not the file of a bench"):
        Journal(path, Setup).begin(SETUP)
    assert path.read_text(encoding="latin-1") == text

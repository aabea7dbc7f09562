"""The journal: nothing of a job is lost, by whatever its process ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_infer.errors import ConfigError, HydraError
from hydra_infer.ops.journal import Job, Journal, find, replay

STEPS = ("unload", "load", "verify")

# Goes through the steps and stops for ever where it is told to: "doing:load" in the step, "done:load" after it.
CHILD = """
import sys, time
from hydra_infer.ops.journal import Journal
with Journal(sys.argv[1]) as journal:
    journal.begin("switch", new="A")
    for name in ("unload", "load", "verify"):
        with journal.step(name) as found:
            found[name] = 1
            if sys.argv[2] == f"doing:{name}":
                print("here", flush=True); time.sleep(60)
        if sys.argv[2] == f"done:{name}":
            print("here", flush=True); time.sleep(60)
"""


def killed(path: Path, where: str) -> tuple[Job, bool]:
    """What a process leaves that is killed there; on the way, that it has the journal while it lives."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path), where], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        alive = find(path)
        assert alive is not None
        assert alive[1], "somebody is at it"
        child.send_signal(signal.SIGKILL)
    left = find(path)
    assert left is not None
    return left


@pytest.mark.parametrize("done", range(4))
def test_a_killed_job_is_found_with_all_that_it_did(tmp_path: Path, done: int) -> None:
    where = f"doing:{STEPS[done]}" if done < 3 else "done:verify"
    job, busy = killed(tmp_path / "journal", where)
    assert not busy
    assert (job.kind, job.outcome) == ("switch", None)
    assert job.facts == {"new": "A", **dict.fromkeys(STEPS[:done], 1)}
    assert job.left(STEPS) == list(STEPS[done:])
    assert job.doing == (STEPS[done] if done < 3 else None)
    with Journal(tmp_path / "journal") as journal:
        assert journal.job == job
        with pytest.raises(HydraError, match="is not over"):
            journal.begin("switch")
        for name in job.left(STEPS):
            with journal.step(name):
                pass
        journal.end("done")
        assert journal.job is None
    assert find(tmp_path / "journal") is None


def test_a_step_that_raises_is_begun_and_not_done(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.begin("switch")
        with pytest.raises(ZeroDivisionError), journal.step("load"):
            raise ZeroDivisionError
        assert journal.job is not None
        assert (journal.job.doing, journal.job.done) == ("load", ())


def test_the_step_is_on_the_disk_before_it_is_done(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.begin("switch", old="B")
        with journal.step("unload", target="B"):
            assert replay((tmp_path / "journal").read_bytes())[-1].doing == "unload"


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.ops.journal._LOOK_SECONDS", 0.05)
    with Journal(tmp_path / "journal"), pytest.raises(HydraError, match="another process is at work"):
        Journal(tmp_path / "journal")
    Journal(tmp_path / "journal").close()


@settings(deadline=None)
@given(st.data())
def test_a_line_cut_anywhere_is_as_if_it_had_not_been_written(data: st.DataObject) -> None:
    entries = [{"begin": "switch", "at": "now", "facts": {"name": "ü\n"}}]
    for name in STEPS:
        entries += [{"doing": name, "at": "now", "facts": {}}, {"done": name, "at": "now", "facts": {}}]
    lines = [json.dumps(entry).encode() + b"\n" for entry in [*entries, {"end": "done", "at": "now"}]]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    complete = whole[:cut].count(b"\n")
    assert replay(whole[:cut]) == replay(b"".join(lines[:complete]))


def test_a_cut_line_is_taken_away_before_more_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin("switch")
    with path.open("ab") as file:
        file.write(b'{"doing": "unlo')
    with Journal(path) as journal:
        journal.end("undone")
    assert [job.outcome for job in replay(path.read_bytes())] == ["undone"]


@pytest.mark.parametrize("text", ["no json\n", "[]\n", '{"doing": "load", "facts": {}}\n', '{"begin": 1}\n'])
def test_another_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal"
    path.write_text(text)
    for look in (find, Journal):
        with pytest.raises(ConfigError, match=":1 is no line of a journal"):
            look(path)
    assert path.read_text() == text


def test_no_journal_is_no_interrupted_job(tmp_path: Path) -> None:
    assert find(tmp_path / "journal") is None

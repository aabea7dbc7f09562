"""Cutover and rollback: they arrive, they undo, and killed at any moment they end in one of the two states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ops.migrate.scene import API_KEY, NEW_MODEL, Scene, scene

from hydra_infer import ConfigError, HydraError
from hydra_infer.ops.journal import Journal
from hydra_infer.ops.migrate import Move, cutover, rollback, status
from hydra_infer.ops.migrate.move import Server

KILLER = Path(__file__).with_name("killer.py")
OPTIONS = {"api_key": API_KEY, "progress": False}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def killer() -> Iterator[Callable[..., str]]:
    """Gives an order to the killer; hears "killed", or how many moments there were."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(KILLER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def order(machine: Scene, job: str, fatal: int, timeout: float = 30.0) -> str:
            what = {"folder": str(machine.folder), "job": job, "fatal": fatal, "timeout": timeout, "api_key": API_KEY}
            if job == "cutover":
                what["move"] = machine.move().to_json()
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield order
        process.stdin.close()


def test_it_arrives_and_the_way_back_leads_back(machine: Scene) -> None:
    state = cutover(machine.folder, machine.move(), **OPTIONS)
    assert machine.now == machine.new
    assert (state.side, state.settled) == ("new", True)
    assert machine.commands == ["stop", "reload", "start"]
    assert (machine.root / "config.yml.bak").read_bytes() == machine.old[0]

    back = rollback(machine.folder, **OPTIONS)
    assert machine.now == machine.old
    assert (back.side, back.settled) == ("old", True)
    assert machine.commands == ["stop", "reload", "start"] * 2


def test_done_twice_it_changes_nothing_and_stops_nothing(machine: Scene) -> None:
    for _ in range(2):
        assert cutover(machine.folder, machine.move(), **OPTIONS).side == "new"
    for _ in range(2):
        assert rollback(machine.folder, **OPTIONS).side == "old"
    assert machine.commands == ["stop", "reload", "start"] * 2


def test_it_may_be_done_again_after_a_way_back(machine: Scene) -> None:
    for _ in range(2):
        cutover(machine.folder, machine.move(), **OPTIONS)
        assert machine.now == machine.new
        rollback(machine.folder, **OPTIONS)
        assert machine.now == machine.old


def test_a_line_of_the_journal_stands_before_each_step(machine: Scene) -> None:
    cutover(machine.folder, machine.move(), **OPTIONS)
    lines = [json.loads(line) for line in (machine.folder / "journal").read_text().splitlines()]
    steps = ["stop", "config", "unit", "link", "reload", "start", "verify"]
    assert [line["doing"] for line in lines if "doing" in line] == steps
    assert lines[-1]["end"] == "new"
    assert oct(next(machine.folder.glob("move-*.json")).stat().st_mode)[-3:] == "600"


def test_a_server_that_does_not_serve_is_undone(machine: Scene) -> None:
    wrong = machine.new[0].replace(NEW_MODEL.encode(), b"Another-EXL3")
    move = Move.of(config=machine.config, new_config=wrong.decode(), stop=machine.command("stop"), start=machine.command("start"))
    with pytest.raises(HydraError, match="old state is back") as caught:
        cutover(machine.folder, move, **OPTIONS)
    assert "not Another-EXL3" in caught.value.message
    assert machine.now == machine.old
    assert machine.commands == ["stop", "start"] * 2
    assert status(machine.folder).settled


def test_a_command_that_fails_is_undone(machine: Scene) -> None:
    move = Move.of(
        config=machine.config,
        new_config=machine.new[0].decode(),
        stop="sh -c 'echo no >&2; exit 3'",
        start=machine.command("start"),
    )
    with pytest.raises(HydraError, match="going back failed"):  # as the same command fails on the way back
        cutover(machine.folder, move, **OPTIONS)
    assert machine.now == machine.old
    assert status(machine.folder).towards == "old"
    with pytest.raises(HydraError, match="a way back was interrupted"):
        cutover(machine.folder, machine.move(), **OPTIONS)


def test_a_file_that_somebody_changed_is_left_alone_and_no_server_is_stopped_for_it(machine: Scene) -> None:
    move = machine.move()
    machine.unit.write_text("mine\n")
    with pytest.raises(ConfigError, match=r"tabby\.service is neither"):
        cutover(machine.folder, move, **OPTIONS)
    assert machine.commands == []
    machine.unit.write_bytes(machine.old[1])
    cutover(machine.folder, move, **OPTIONS)

    machine.unit.write_text("mine\n")
    with pytest.raises(ConfigError, match=r"tabby\.service is neither"):
        rollback(machine.folder, **OPTIONS)
    assert machine.unit.read_text() == "mine\n"
    assert machine.config.read_bytes() == machine.new[0]
    assert machine.commands == ["stop", "reload", "start"]
    state = status(machine.folder)
    assert not state.settled
    assert state.sides[str(machine.unit)] is None
    machine.unit.write_bytes(machine.new[1])
    assert rollback(machine.folder, **OPTIONS).settled
    assert machine.now == machine.old


def test_a_file_changed_while_the_server_was_stopped_is_left_alone_too(machine: Scene) -> None:
    meddle = f"sh -c 'echo mine > {machine.unit}'"
    move = Move.of(
        config=machine.config,
        new_config=machine.new[0].decode(),
        unit=machine.unit,
        new_unit=machine.new[1].decode(),
        stop=meddle,
        start=machine.command("start"),
    )
    with pytest.raises(HydraError, match="going back failed"):
        cutover(machine.folder, move, **OPTIONS)
    assert machine.unit.read_text() == "mine\n"
    assert machine.config.read_bytes() == machine.old[0]
    assert status(machine.folder).towards == "old"


def test_an_interrupted_cutover_is_told_and_not_mixed_with_another(machine: Scene, killer: Callable[..., str]) -> None:
    assert killer(machine, "cutover", 12) == "killed"
    state = status(machine.folder)
    assert (state.settled, state.towards, state.busy) == (False, "new", False)
    assert "interrupted at" in str(state)
    other = Move.of(config=machine.config, new_config="model:\n  model_name: x\n")
    with pytest.raises(ConfigError, match="another cutover was interrupted"):
        cutover(machine.folder, other, **OPTIONS)
    assert cutover(machine.folder, **OPTIONS).side == "new"  # no words are needed to go on
    assert machine.now == machine.new


def test_two_at_once_are_refused(machine: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.ops.journal._LOOK_SECONDS", 0.05)
    machine.folder.mkdir()
    with Journal(machine.folder / "journal"), pytest.raises(HydraError, match="another process"):
        cutover(machine.folder, machine.move(), **OPTIONS)
    assert machine.now == machine.old


@pytest.mark.parametrize("then", ["cutover", "rollback"])
def test_killed_at_any_moment_it_goes_on_or_back(tmp_path: Path, killer: Callable[..., str], then: str) -> None:
    moments = _moments(tmp_path, killer, "cutover")
    assert moments > 40  # 16 lines of the journal and 7 files, each with a before and an after
    for fatal in range(moments):
        with scene(tmp_path / str(fatal)) as machine:
            assert killer(machine, "cutover", fatal) == "killed"
            assert all(now in forms for now, *forms in zip(machine.now, machine.old, machine.new, strict=True)), fatal
            if then == "cutover":
                assert cutover(machine.folder, machine.move(), **OPTIONS).settled, fatal
                assert machine.now == machine.new, fatal
            elif _began(machine):
                assert rollback(machine.folder, **OPTIONS).settled, fatal
                assert machine.now == machine.old, fatal
            else:
                assert machine.now == machine.old, fatal
            assert machine.commands[-1:] in (["start"], []), fatal


def test_a_way_back_killed_at_any_moment_goes_on(tmp_path: Path, killer: Callable[..., str]) -> None:
    moments = _moments(tmp_path, killer, "rollback")
    for fatal in range(moments):
        with scene(tmp_path / str(fatal)) as machine:
            cutover(machine.folder, machine.move(), **OPTIONS)
            assert killer(machine, "rollback", fatal) == "killed"
            assert rollback(machine.folder, **OPTIONS).settled, fatal
            assert machine.now == machine.old, fatal
            assert machine.commands[-1] == "start", fatal


def test_killed_while_it_undoes_a_failure_it_is_undone_by_the_next(tmp_path: Path, killer: Callable[..., str]) -> None:
    for fatal in range(30, 60, 3):
        with scene(tmp_path / str(fatal)) as machine:
            machine.new = (machine.new[0].replace(NEW_MODEL.encode(), b"Another-EXL3"), *machine.new[1:])
            assert killer(machine, "cutover", fatal) == "killed"
            assert rollback(machine.folder, **OPTIONS).settled, fatal
            assert machine.now == machine.old, fatal


def _moments(root: Path, killer: Callable[..., str], job: str) -> int:
    with scene(root / "whole") as machine:
        if job == "rollback":
            cutover(machine.folder, machine.move(), **OPTIONS)
        return int(killer(machine, job, -1))


def _began(machine: Scene) -> bool:
    journal = machine.folder / "journal"
    return journal.is_file() and b"begin" in journal.read_bytes()


@pytest.mark.parametrize(
    ("text", "url", "model"),
    [
        ("", "http://127.0.0.1:5000", None),
        ("network: {host: 0.0.0.0, port: 5001}\nmodel: {model_name: x}\n", "http://127.0.0.1:5001", "x"),
        ("network: 5\nmodel: []\n", "http://127.0.0.1:5000", None),
        ("network: {host: 192.168.1.9}\nmodel:\n", "http://192.168.1.9:5000", None),
    ],
)
def test_where_a_server_is_found_by_its_config(text: str, url: str, model: str | None) -> None:
    assert Server.of(text) == Server(url, model)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"unit": "u"}, "go together"),
        ({"stop": "true"}, "is to be started"),
        ({"unit": "missing.service", "new_unit": ""}, "missing.service cannot be read"),
        ({"link": "config.yml", "new_target": "models"}, "is no link"),
        ({"link": "models/current", "new_target": "not-there"}, "no folder"),
    ],
)
def test_a_move_that_cannot_be_is_refused(
    machine: Scene, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    monkeypatch.chdir(machine.root)
    with pytest.raises(ConfigError, match=said):
        Move.of(config="config.yml", new_config="", **wrong)
    assert not machine.folder.exists()


def test_nothing_to_go_on_with_is_told(machine: Scene) -> None:
    with pytest.raises(ConfigError, match="no cutover was interrupted"):
        cutover(machine.folder, **OPTIONS)
    with pytest.raises(ConfigError, match="there was no cutover"):
        rollback(machine.folder, **OPTIONS)
    assert "nothing was begun" in str(status(machine.folder))

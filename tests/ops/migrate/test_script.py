"""The script for another host, run by this one's sh: the same ends, the same refusals, and safe to run again."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops.migrate.scene import API_KEY, Scene, scene

from hydra_infer.ops.migrate import Move, script
from hydra_infer.ops.migrate.move import Server

# What the script asks of curl: the body of a 200, and a status of its own for anything else. Bare, since it is run often.
CURL = f"""#!{sys.executable} -IS
import socket, sys
assert sys.argv[1:-1] == ["-fsS", "-m", "5", "-K", "-"]
header = sys.stdin.read().removeprefix('header = "').rstrip('"\\n')
host, _, path = sys.argv[-1].removeprefix("http://").partition("/")
name, _, port = host.partition(":")
with socket.create_connection((name, int(port)), 5) as door, door.makefile("rwb") as file:
    file.write(f"GET /{{path}} HTTP/1.1\\r\\nHost: {{host}}\\r\\nConnection: close\\r\\n{{header}}\\r\\n\\r\\n".encode())
    file.flush()
    head, _, body = file.read().decode().partition("\\r\\n\\r\\n")
sys.stdout.write(body)
sys.exit(" 200 " not in head.splitlines()[0])
"""

# The programs by which it changes something; the nth call of any kills the shell that runs the script.
ACTS = ("cp", "mv", "ln", "sync")
ACT = """#!/bin/sh
echo {name} >> "$ROOT/acts"
if [ "$(wc -l < "$ROOT/acts")" -eq "$FATAL" ]; then kill -9 "$(cat "$ROOT/shell")"; exit; fi
exec /bin/{name} "$@"
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        (tmp_path / "api_tokens.yml").write_text(f"admin_key: other\napi_key: '{API_KEY}'\n")
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, text in {"curl": CURL, **{name: ACT.format(name=name) for name in ACTS}}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        yield made


def run(machine: Scene, text: str, fatal: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.pathsep.join([str(machine.root / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
        "ROOT": str(machine.root),
        "FATAL": str(fatal),
    }
    (machine.root / "acts").unlink(missing_ok=True)
    words = ["sh", "-c", 'echo $$ > "$ROOT/shell"; exec sh -s']
    return subprocess.run(words, input=text, capture_output=True, text=True, env=environment, check=False)


def test_it_leads_there_and_back_and_may_run_twice(machine: Scene) -> None:
    move = machine.move()
    for _ in range(2):
        done = run(machine, script(move, seconds=5))
        assert done.returncode == 0, done.stderr
        assert machine.now == machine.new
    assert "config: done already" in done.stdout
    for _ in range(2):
        assert run(machine, script(move, side="old", seconds=5)).returncode == 0
        assert machine.now == machine.old
    assert machine.commands == ["stop", "reload", "start"] * 4
    log = Path(f"{machine.config}.migration-log").read_text()
    assert log.count("new: done\n") == log.count("old: done\n") == 2


def test_killed_at_any_act_it_is_finished_or_undone_by_the_next(machine: Scene) -> None:
    """Killed before each of its acts, and in turn finished or undone: no file is ever anything but old or new."""
    texts = {"new": script(machine.move(), seconds=5), "old": script(machine.move(), side="old", seconds=5)}
    forms = {"new": machine.new, "old": machine.old}
    for fatal in itertools.count(1):
        if machine.now != machine.old:
            assert run(machine, texts["old"]).returncode == 0
        if run(machine, texts["new"], fatal).returncode == 0:
            break
        assert all(now in both for now, *both in zip(machine.now, machine.old, machine.new, strict=True)), fatal
        then = "new" if fatal % 2 else "old"
        assert run(machine, texts[then]).returncode == 0
        assert machine.now == forms[then], fatal
        assert machine.commands[-1] == "start"
    assert fatal > 15
    assert machine.now == machine.new


def test_what_somebody_changed_is_left_alone(machine: Scene) -> None:
    text = script(machine.move())
    machine.unit.write_text("mine\n")
    done = run(machine, text)
    assert done.returncode == 1
    assert "neither as it was nor as it is to be" in done.stdout
    assert machine.unit.read_text() == "mine\n"
    assert machine.config.read_bytes() == machine.old[0]
    assert machine.commands == []  # no server was stopped for it


def test_a_server_with_another_model_is_told(machine: Scene) -> None:
    move = machine.move()
    wrong = Move(move.swaps, move.old, Server(move.old.url, move.new.model), start=move.start)
    done = run(machine, script(wrong, seconds=2))
    assert done.returncode == 1
    assert "has another model" in done.stdout


def test_another_hosts_files_are_told_from_copies(machine: Scene) -> None:
    move = Move.of(config="/opt/tabby/config.yml", old_config="a: 1\n", new_config="a: '2'\n")
    text = script(move, host="gpu-box")
    assert "ssh gpu-box sudo sh -s" in text
    assert "config_path=/opt/tabby/config.yml\nconfig_wanted='a: '\"'\"'2'\"'\"'\n'\n" in text
    assert "verify" not in text  # nobody starts a server

"""The whole way on stand-ins: readiness, translate, trial, compare, cutover between real processes, rollback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Router, migrate
from hydra_infer.cli import main
from hydra_infer.ops.migrate.trial import _free_port

OLD, NEW = "Tiny-1B-EXL2-4.0bpw", "Tiny-1B-EXL3-4.0bpw"
SMALL = synthetic.LLAMA_1B | {"num_hidden_layers": 2}
PROGRAM = Path(__file__).with_name("tabby_process.py")
UNIT = "[Service]\nExecStart={}\n"
# What systemd does, in six lines: it starts what the unit says, and ends it.
START = """\
config={config}; python={python}; program={program}; pid={pid}
setsid "$python" "$program" --config "$config" > /dev/null 2>&1 < /dev/null & echo $! > "$pid"
"""
STOP = """\
pid={pid}; [ -f "$pid" ] || exit 0
kill "$(cat "$pid")" 2> /dev/null || exit 0
while kill -0 "$(cat "$pid")" 2> /dev/null; do sleep 0.05; done
"""


class Place:
    """A folder with TabbyAPI's files in it, and words that start and stop its server."""

    def __init__(self, root: Path) -> None:
        self.root, self.config, self.unit, self.link = (
            root,
            root / "config.yml",
            root / "tabby.service",
            root / "models" / "serving",
        )
        self.port = _free_port(0)
        self.url = f"http://127.0.0.1:{self.port}"
        synthetic.exl2(root / "models" / OLD, SMALL, 4.0)
        synthetic.exl3(root / "models" / NEW, SMALL, 4.0)
        self.link.symlink_to(OLD)
        self.unit.write_text(UNIT.format("old"))
        (root / "new.service").write_text(UNIT.format("new"))
        self.config.write_text(
            f"network:\n  port: {self.port} # as ever\nlogging:\n  level: INFO\n"
            f"model:\n  model_dir: models\n  model_name: {OLD}\n  max_seq_len: 2048\n  fasttensors: true\n"
        )
        (root / "api_tokens.yml").write_text(f"api_key: {API_KEY}\n")
        values = {"config": self.config, "python": sys.executable, "program": PROGRAM, "pid": root / "pid"}
        for name, text in {"start": START, "stop": STOP}.items():
            (root / name).write_text(text.format(**{key: shlex.quote(str(value)) for key, value in values.items()}))

    def command(self, name: str) -> str:
        return f"sh {shlex.quote(str(self.root / name))}"

    def serves(self) -> str:
        """The model that answers at the server's address."""
        with Router.from_urls([self.url], api_keys={self.url: API_KEY}) as router:
            (name,) = router.models()
            return name if router.chat(name, "Hello", max_tokens=2).text else ""

    @property
    def files(self) -> tuple[bytes, bytes, str]:
        return self.config.read_bytes(), self.unit.read_bytes(), str(self.link.readlink())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("TABBY_KEY", API_KEY)
    made = Place(tmp_path)
    subprocess.run(shlex.split(made.command("start")), check=True)
    yield made
    subprocess.run(shlex.split(made.command("stop")), check=True)


def test_from_v2_to_v3_and_back(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    key = ["--api-key-env", "TABBY_KEY"]
    migrate.climb(migrate.Server(place.url, OLD), api_key=API_KEY, timeout=20)
    before = place.files

    main(["migrate", "readiness", str(place.config), "--gpus", "RTX 4060", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["weights"]["state"] == "ready"
    assert NEW in rows["weights"]["found"]
    assert rows["config.yml"]["state"] == "to do"

    new = place.root / "new.yml"
    assert main(["migrate", "translate", str(place.config), "--model", NEW, "--out", str(new)]) == 0
    assert "# as ever" in new.read_text()
    assert f"model_name: {NEW}" in new.read_text()

    command = shlex.join([sys.executable, str(PROGRAM)])
    with migrate.trial(new.read_text(), command=command, folder=place.root, timeout=20, progress=False) as running:
        keys = {place.url: API_KEY, running.url: API_KEY}
        report = migrate.compare(
            place.url,
            running.url,
            repetitions=1,
            max_tokens=2,
            parallel=(1,),
            kinds=("chat",),
            quality=False,
            api_keys=keys,
            progress=False,
        )
        assert (report.setup.model_a, report.setup.model_b) == (OLD, NEW)
        assert place.serves() == OLD

    folder = place.root / "migration"
    asked = ["migrate", "cutover", str(folder), "--config", str(place.config), "--new-config", str(new)]
    asked += [
        "--unit",
        str(place.unit),
        "--new-unit",
        str(place.root / "new.service"),
        "--link",
        str(place.link),
        "--new-target",
        NEW,
    ]
    asked += ["--stop", place.command("stop"), "--start", place.command("start"), "--timeout", "20", *key]
    capsys.readouterr()
    assert main(asked) == 0
    assert place.files == (new.read_bytes(), (place.root / "new.service").read_bytes(), NEW)
    assert place.serves() == NEW
    assert main(["migrate", "status", str(folder)]) == 0
    assert capsys.readouterr().out.count("new ") >= 3

    assert main(["migrate", "rollback", str(folder), "--timeout", "20", *key]) == 0
    assert place.files == before
    assert place.serves() == OLD


def test_a_new_server_that_fails_leaves_the_old_one_serving(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before, new = place.files, place.root / "new.yml"
    new.write_text(place.config.read_text().replace(OLD, "Empty-EXL3"))
    asked = ["migrate", "cutover", str(place.root / "m"), "--config", str(place.config), "--new-config", str(new)]
    asked += ["--stop", place.command("stop"), "--start", place.command("start"), "--timeout", "20", "--api-key-env", "TABBY_KEY"]
    assert main(asked) == 1
    assert "the old state is back" in capsys.readouterr().err
    assert place.files == before
    assert place.serves() == OLD


def test_a_trial_and_a_comparison_by_the_shell(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    new = place.root / "new.yml"
    new.write_text(place.config.read_text().replace(OLD, NEW))
    trial = ["migrate", "trial", str(new), "--folder", str(place.root), "--timeout", "20"]
    assert main([*trial, "--command", shlex.join([sys.executable, str(PROGRAM)])]) == 0
    assert f"serves {NEW} (pid " in capsys.readouterr().out
    assert main([*trial, "--command", f"{sys.executable} -c 'raise SystemExit(3)'"]) == 1
    assert "ended: status 3" in capsys.readouterr().err

    with TabbyServer([NEW], NEW) as other:
        words = ["migrate", "compare", place.url, other.url, "--repetitions", "1", "--max-tokens", "2", "--parallel", "1"]
        assert main([*words, "--no-quality", "--api-key-env", "TABBY_KEY", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["setup"]["model_b"] == NEW


def test_the_shells_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**50))
    source = synthetic.plain(tmp_path / "Tiny-1B", SMALL)
    words = ["migrate", "convert", str(source), str(tmp_path / "out"), "--rate", "4", "--devices", "0,1", "--dry-run", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["command"][-2:] == ["-b", "4"]

    (tmp_path / "old.yml").write_text("a: 1\n")
    (tmp_path / "new.yml").write_text("a: 2\n")
    words = ["migrate", "script", "--config", "/opt/config.yml", "--old-config", str(tmp_path / "old.yml")]
    assert main([*words, "--new-config", str(tmp_path / "new.yml"), "--host", "gpu-box", "--back"]) == 0
    assert "Leads to the old state" in capsys.readouterr().out
    assert main(["migrate", "status", str(tmp_path / "nothing")]) == 1
    assert main(["migrate", "cutover", str(tmp_path / "m"), "--config", "x"]) == 2
    assert main(["migrate", "rollback", str(tmp_path / "m")]) == 2

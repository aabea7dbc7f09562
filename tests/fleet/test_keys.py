"""Keys: fetched from where the file says, and shown nowhere."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from servers.fault import FaultServer, plain

from hydra_infer import ConfigError, Fleet, HydraError
from hydra_infer.cli import main

PLANTED = "sk-planted-0123456789"
CONFIGS = Path(__file__).parents[1] / "data" / "configs"


def fleet(tmp_path: Path, key: str, *, mode: int = 0o600, url: str = "http://box:5000") -> Fleet:
    model = f"{{config: {CONFIGS / 'Llama-3.1-8B.json'}, bpw: 4.0}}"
    path = tmp_path / "hydra.yaml"
    path.write_text(
        f"hosts: {{box: {{cards: [RTX 4090]}}}}\n"
        f"servers:\n"
        f"  tabby: {{kind: tabby, url: '{url}', host: box, model_dir: /models, api_key: {key}, models: {{m: {model}}}}}\n"
    )
    path.chmod(mode)
    return Fleet.from_file(path)


def key(fleet: Fleet) -> Any:
    return fleet.settings()["backends"][0].api_key


def test_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABBY_KEY", PLANTED)
    assert key(fleet(tmp_path, "{env: TABBY_KEY}")) == PLANTED


def test_from_a_file_relative_to_the_fleets(tmp_path: Path) -> None:
    (tmp_path / "tabby.key").write_text(f"{PLANTED}\n")
    (tmp_path / "tabby.key").chmod(0o600)
    assert key(fleet(tmp_path, "{file: tabby.key}")) == PLANTED


def test_in_the_file_where_that_is_said_aloud(tmp_path: Path) -> None:
    assert key(fleet(tmp_path, f"{{literal: {PLANTED}}}")) == PLANTED


MISSING = {
    "a variable that is not set": ("{env: NO_SUCH_VARIABLE}", "api_key.env", "not set: NO_SUCH_VARIABLE"),
    "the key where its variable's name belongs": (f"{{env: {PLANTED}}}", "api_key.env", "not set"),
    "a file that is not there": ("{file: nowhere.key}", "api_key.file", "no such file"),
    "an empty file": ("{file: empty.key}", "api_key.file", "holds none"),
    "a file of several lines": ("{file: several.key}", "api_key.file", "more than one line"),
    "a key that is no header": ("{file: strange.key}", "servers.tabby", "not a header value"),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_key_that_cannot_be_had_is_told_when_it_is_needed_and_never_shown(tmp_path: Path, case: str) -> None:
    (tmp_path / "empty.key").write_text("\n")
    (tmp_path / "several.key").write_text(f"{PLANTED}\n{PLANTED}\n")
    (tmp_path / "strange.key").write_text(f"{PLANTED}é\n", encoding="utf-8")
    for file in tmp_path.glob("*.key"):
        file.chmod(0o600)
    said, field, what = MISSING[case]
    made = fleet(tmp_path, said)
    assert made.plan().fits  # needs no key
    with pytest.raises(ConfigError) as caught:
        made.router()
    assert "hydra.yaml:3: servers.tabby" in str(caught.value)
    assert field in str(caught.value)
    assert what in str(caught.value)
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_everybody_on_the_machine_can_read_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"hydra.yaml:3: servers.tabby.api_key stands in a file that everybody") as told:
        fleet(tmp_path, f"{{literal: {PLANTED}}}", mode=0o644)
    (tmp_path / "tabby.key").write_text(PLANTED)
    (tmp_path / "tabby.key").chmod(0o644)
    by_file = fleet(tmp_path, "{file: tabby.key}", mode=0o644)  # the reference itself is no secret
    with pytest.warns(UserWarning, match=r"hydra.yaml:3: servers.tabby.api_key.file can be read by everybody") as told_later:
        by_file.settings()
    assert all(PLANTED not in str(one.message) for one in (*told, *told_later))


def test_no_key_is_in_anything_that_a_fleet_shows_or_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultServer(plain({"detail": "no"}, status=401)) as server:
        made = fleet(tmp_path, f"{{literal: {PLANTED}}}", url=server.url)
        path = str(tmp_path / "hydra.yaml")
        shown = [repr(made), repr(made._file), repr(made.plan()), str(made.plan()), made.plan().to_json()]
        with made.router(retries=0) as router:
            shown += [repr(router), repr(made.settings()), str(router.explain("m")), str(router.status())]
            with pytest.raises(HydraError) as caught:
                router.chat("m", "hello")
            shown += traceback.format_exception(caught.value)
        assert server.requests[-1][2]["authorization"] == f"Bearer {PLANTED}"  # it is used, where it belongs
        rendering = made.render(tmp_path / "out")
        shown += [
            rendering.diff,
            repr(rendering),
            *(file.read_text() for file in (tmp_path / "out").rglob("*") if file.is_file()),
        ]
        for words in (
            ["status", "--fleet", path],
            ["models", "--fleet", path, "--json"],
            ["plan", "--fleet", path, "--json"],
            ["chat", "--fleet", path, "--model", "m", "hi"],
            ["render", path, str(tmp_path / "again")],
            ["doctor", path],
            ["doctor", path, "--json"],
            ["watch", path],
            ["switch", "m", "--fleet", path],
            ["load", "m", "--fleet", path],
            ["unload", "m", "--fleet", path],
        ):
            main(words)
    out, err = capsys.readouterr()
    assert len(shown) > 10
    assert all(PLANTED not in text for text in (*shown, out, err, caplog.text))


def test_a_fleet_is_imported_without_pydantic_or_a_yaml_reader() -> None:
    code = (
        "import sys, hydra_infer; hydra_infer.Fleet; print([name for name in ('pydantic', 'ruamel.yaml') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

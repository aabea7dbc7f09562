"""A first fleet file, from what answers: it is read again and works, and what does not answer is in it all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.ollama import OllamaServer, Tag
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Fleet, Router
from hydra_infer.cli import main

pytestmark = pytest.mark.usefixtures("no_leaks")

DEAD = "127.0.0.1:9"


def test_it_holds_what_was_found_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", API_KEY)
    with TabbyServer(["Big-EXL3"], "Big-EXL3") as tabby, OllamaServer({"llama3.1:8b": Tag(), "far:cloud": Tag()}) as ollama:
        assert main(["init", tabby.url, ollama.url, DEAD, "--api-key-env", "MY_KEY"]) == 0
        assert capsys.readouterr().out == "wrote hydra.yaml\n"
        text = Path("hydra.yaml").read_text()
        assert API_KEY not in text
        assert "# when this was written: " in text
        assert "    kind: openai  # a guess: tabby, ollama, litellm or openai\n" in text
        assert "    # admin_key: {env: VARIABLE} lets models be loaded" in text
        with Router.from_file("hydra.yaml") as router:
            assert [row.kind for row in router.status()] == ["tabby", "ollama", "openai"]
            assert router.chat("Big-EXL3", "hello").backend == "tabby"
            assert router.chat("llama3.1:8b", "hello").backend == "ollama"
            assert "far:cloud" not in router.models()


def test_servers_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "fleet.yaml"
    with OllamaServer(["a"]) as first, OllamaServer(["b"]) as second:
        assert main(["init", first.url, second.url, first.url, "--out", str(out)]) == 0
        with Router.from_file(out) as router:
            names = [f"ollama-127.0.0.1-{first.port}", f"ollama-127.0.0.1-{second.port}", f"ollama-127.0.0.1-{first.port}-2"]
            assert [row.name for row in router.status()] == names


def test_one_that_is_off_is_guessed_by_its_port_and_the_admins_key_is_named(tmp_path: Path) -> None:
    out = tmp_path / "fleet.yaml"
    with TabbyServer(["a"], "a") as tabby:
        words = [tabby.url, "http://127.0.0.2:5000", "http://127.0.0.2:11434", "http://127.0.0.2:4000"]
        assert main(["init", *words, "--admin-key-env", "MY_ADMIN", "--out", str(out)]) == 0
    servers = Fleet.from_file(out).tables.servers
    assert [row.kind for row in servers.values()] == ["tabby", "tabby", "ollama", "litellm"]
    assert [row.admin_key and row.admin_key.env for row in servers.values()] == ["MY_ADMIN", "MY_ADMIN", None, None]


def test_a_file_that_is_there_is_replaced_only_by_force_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hydra.yaml"
    out.write_text("mine")
    words = ["init", DEAD, "--out", str(out)]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert (out.with_name("hydra.yaml.bak").read_text(), "servers:" in out.read_text()) == ("mine", True)


@pytest.mark.parametrize(
    ("words", "said"), [([], "at least one server"), (["ftp://x"], "ftp://x"), (["a", "--api-key-env", "NO_SUCH"], "NO_SUCH")]
)
def test_what_cannot_be_asked_is_refused_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    out = tmp_path / "hydra.yaml"
    assert main(["init", *words, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_schema_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "FleetFile"

"""The command line with a fleet file in the place of addresses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.fault import FaultServer, hello

from hydra_infer.cli import main

HOMELAB = Path(__file__).parents[2] / "examples" / "homelab" / "hydra.yaml"
CONFIGS = Path(__file__).parents[1] / "data" / "configs"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        status = main(words)
    except SystemExit as stop:  # argparse's own way out
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def test_the_plan_of_a_fleet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "plan", "--fleet", str(HOMELAB))
    assert (status, "stay together: qwen-14b + embed" in out) == (0, True)
    status, out, _ = run(capsys, "plan", "--fleet", str(HOMELAB), "--json")
    assert (status, len(json.loads(out)["models"])) == (0, 7)
    large = tmp_path / "hydra.yaml"
    model = f"{{config: {CONFIGS / 'Llama-3.1-70B.json'}, bpw: 4.0}}"
    large.write_text(
        f"hosts: {{a: {{cards: [RTX 4090]}}}}\nservers: {{t: {{kind: tabby, url: a, host: a, models: {{m: {model}}}}}}}"
    )
    assert run(capsys, "plan", "--fleet", str(large))[0] == 1


def test_asking_the_servers_of_a_fleet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with FaultServer(hello("a")) as server:
        path = tmp_path / "hydra.yaml"
        path.write_text(f"servers: {{one: {{kind: openai, url: '{server.url}', models: [m, n]}}}}")
        assert run(capsys, "chat", "--fleet", str(path), "--model", "m", "hi")[:2] == (0, "hello from a\n")
        assert run(capsys, "models", "--fleet", str(path))[:2] == (0, "m: one\nn: one\n")
        assert json.loads(run(capsys, "models", "--fleet", str(path), "--json")[1]) == {"m": ["one"], "n": ["one"]}
        assert run(capsys, "status", "--fleet", str(path))[0] == 0
    assert run(capsys, "status", "--fleet", str(path))[0] == 1


WRONG = {
    "both": (["status", "--fleet", "a", "--url", "b"], "not allowed with"),
    "neither": (["status"], "--fleet"),
    "a key for all": (["status", "--fleet", "a", "--api-key-env", "B"], "--url"),
    "no such file": (["status", "--fleet", "nowhere.yaml"], "hydra-infer init"),
    "nothing to plan": (["plan"], "--fleet"),
    "a broken file": (["render", str(CONFIGS / "Llama-3.1-8B.json"), "out"], "Llama-3.1-8B.json:"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = WRONG[case]
    status, _, err = run(capsys, *words)
    assert (status, said in err) == (2, True), err
    assert not list(tmp_path.iterdir())

"""The command line: what it prints, its exit status, and no traceback for anything a person may type."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic
from servers.fault import FaultServer, hello, plain

from hydra_infer import __version__
from hydra_infer.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        status = main(words)
    except SystemExit as stop:  # argparse's own way out
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.fixture
def exl3(tmp_path: Path) -> str:
    return str(synthetic.exl3(tmp_path / "llama", synthetic.LLAMA_70B, 4.0))


def test_plan_says_yes_with_status_0_and_no_with_status_1(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    status, out, _ = run(capsys, "plan", exl3, "--gpus", "RTX 5090, RTX 4090", "--context", "32k", "--cache", "q8")
    assert status == 0
    assert "RTX 5090" in out
    status, out, _ = run(capsys, "plan", exl3, "--gpus", "RTX 4090")
    assert status == 1
    assert "RTX 4090" in out


def test_plan_as_json(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    status, out, _ = run(capsys, "plan", exl3, "--gpus", "RTX 5090", "--gpus", "RTX 4090", "--json")
    data = json.loads(out)
    assert (status, data["fits"], len(data["devices"])) == (0, True, 2)


def test_plan_with_what_to_change(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    asked = ["plan", exl3, "--gpus", "RTX 5090, mine:24:1008", "--context", "64k", "--suggest"]
    status, out, _ = run(capsys, *asked)
    assert status == 1
    assert "max context: " in out
    assert "\ntry: cache='q8' saves " in out
    status, out, _ = run(capsys, *asked, "--json")
    data = json.loads(out)
    assert (status, data["suggestions"][0]["change"]) == (1, {"cache": "q8"})
    assert data["max_context"] < 65536
    assert run(capsys, "plan", exl3, "--gpus", "mine:60:1000", "--suggest")[0] == 0


def test_plan_as_tabbyapis_configuration(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    status, out, _ = run(capsys, "plan", exl3, "--gpus", "RTX 5090, RTX 4090", "--tabby-config")
    assert (status, "cache_size: 10240" in out, out.startswith("# llama: ")) == (0, True, True)
    status, _, err = run(capsys, "plan", exl3, "--gpus", "RTX 4090", "--tabby-config")
    assert (status, "does not fit" in err) == (1, True)


def test_plan_with_a_draft(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    cards = ["--gpus", "RTX 5090, RTX 4090"]
    status, out, _ = run(capsys, "plan", exl3, *cards, "--draft", "ngram", "--draft-tokens", "3", "--json")
    data = json.loads(out)
    assert (status, data["draft"]["kind"], data["draft"]["draft_tokens"]) == (0, "ngram", 3)
    assert run(capsys, "plan", exl3, *cards, "--draft", "nowhere")[0] == 2


def test_survey(capsys: pytest.CaptureFixture[str], exl3: str) -> None:
    words = ["survey", exl3, "nowhere", "--gpus", "RTX 5090, RTX 4090", "--contexts", "8k", "64k", "--caches", "fp16", "8,4"]
    status, out, _ = run(capsys, *words, "--json")
    rows = json.loads(out)
    assert (status, [row["fits"] for row in rows]) == (0, [True, False, True, True, None])
    status, out, _ = run(capsys, *words)
    assert (status, len(out.splitlines())) == (0, 6)
    assert run(capsys, "survey", exl3, "--gpus", "RTX 3060")[0] == 1


def test_gpus_without_a_card(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.hardware.nvml.gpus", list)
    assert run(capsys, "gpus")[:2] == (0, "no NVIDIA card, or no driver, on this machine\n")
    assert run(capsys, "gpus", "--json")[:2] == (0, "[]\n")


def test_status_is_0_when_all_is_well_and_1_when_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with FaultServer(hello("a")) as server:
        status, out, _ = run(capsys, "status", "--url", server.url, "--api-key-env", "MY_KEY")
        assert (status, "m" in out) == (0, True)
        assert server.requests[-1][2]["authorization"] == "Bearer sk-secret"
        status, out, _ = run(capsys, "status", "--url", server.url, "--url", "127.0.0.1:9", "--json")
        assert (status, [row["reachable"] for row in json.loads(out)["backends"]]) == (1, [True, False])
        assert "sk-secret" not in out


def test_pull_load_and_unload(capsys: pytest.CaptureFixture[str]) -> None:
    version, listed = plain({"version": "0.32"}), plain({"models": [{"name": "m"}]})
    loaded = plain({"models": [{"name": "m", "context_length": 4096}]})
    nothing, done = plain({"models": []}), plain({"done": True, "done_reason": "load"})
    page = plain(b"no", 404)
    with FaultServer(page, version, listed, nothing, plain({"status": "success"}), listed, nothing) as server:
        status, out, _ = run(capsys, "pull", "m", "--url", server.url)
        assert (status, out) == (0, f"m is there on 127.0.0.1:{server.port}\n")
    with FaultServer(page, version, listed, nothing, nothing, done, loaded) as server:
        status, out, _ = run(capsys, "load", "m", "--url", server.url, "--keep-alive", "1h", "--json")
        change = json.loads(out)
        assert (status, change["changed"], change["context"]) == (0, True, 4096)
    with FaultServer(page, version, listed, nothing) as server:
        status, out, _ = run(capsys, "unload", "m", "--url", server.url)
        assert (status, "as it was before" in out) == (0, True)
    with FaultServer(hello("a")) as server:
        status, _, err = run(capsys, "load", "m", "--url", server.url)
        assert (status, "backends of these kinds can: tabby and ollama" in err) == (2, True)
    assert run(capsys, "load", "m", "--url", "127.0.0.1:11434", "--timeout", "0.5")[0] == 1


def test_chat_with_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(hello("a")) as server:
        assert run(capsys, "chat", "--url", server.url, "say", "hi")[:2] == (0, "hello from a\n")
        assert json.loads(server.requests[-1][3])["messages"] == [{"role": "user", "content": "say hi"}]
        status, out, _ = run(capsys, "chat", "--url", server.url, "--json", "hi")
        assert (status, json.loads(out)["text"]) == (0, "hello from a")


def test_chat_line_by_line_remembers_what_was_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed = tmp_path / "typed"
    typed.write_text("first\n\nsecond\n")
    with FaultServer(hello("a")) as server, typed.open() as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert run(capsys, "chat", "--url", server.url)[:2] == (0, "hello from a\nhello from a\n")
        said = [message["content"] for message in json.loads(server.requests[-1][3])["messages"]]
        assert said == ["first", "hello from a", "second"]


def test_bench_of_two_servers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OLD_KEY", "sk-old")
    monkeypatch.setenv("NEW_KEY", "sk-new")
    keys = ["--api-key-env", "OLD_KEY", "--api-key-env", "NEW_KEY"]
    short = ["--repetitions", "1", "--parallel", "1", "--kinds", "chat", "--no-quality", "--seed", "1"]
    file, picture = tmp_path / "run.jsonl", tmp_path / "run.html"
    with FaultServer(hello("a")) as a, FaultServer(hello("b")) as b:
        words = ["bench", a.url, b.url, *keys, *short, "--file", str(file)]
        status, out, err = run(capsys, *words, "--html", str(picture))
        assert (status, out.splitlines()[-1]) == (0, "verdict: too few measurements to tell")
        assert err.splitlines()[0] in ("  0%  a: speed chat", "  0%  b: speed chat")
        status, out, _ = run(capsys, *words, "--json")
        assert (status, json.loads(out)["setup"]["repetitions"]) == (0, 1)
        posts = [[headers["authorization"] for method, _, headers, _ in each.requests if method == "POST"] for each in (a, b)]
    assert posts == [["Bearer sk-old"] * 2, ["Bearer sk-new"] * 2]
    assert "<svg" in picture.read_text()
    assert "sk-" not in file.read_text() + picture.read_text()


CARDS = ["--gpus", "RTX 4090"]
BAD_INPUT: dict[str, tuple[list[str], int, str]] = {
    "missing": (["plan", "nowhere.gguf", *CARDS], 2, "nowhere.gguf"),
    "folder without config.json": (["plan", "empty", *CARDS], 2, "config.json"),
    "not a GGUF": (["plan", "text.gguf", *CARDS], 2, "text.gguf"),
    "truncated": (["plan", "short.gguf", *CARDS], 2, "short.gguf"),
    "broken config.json": (["plan", "broken", *CARDS], 2, "config.json"),
    "unknown card": (["plan", "smollm2", "--gpus", "RTX 9999"], 2, "RTX 9999"),
    "half a card": (["plan", "smollm2", "--gpus", "mine:48"], 2, "name:GiB:GB/s"),
    "context 0": (["plan", "text.gguf", "--context", "0"], 2, "context"),
    "context many": (["plan", "text.gguf", "--context", "many"], 2, "many"),
    "unknown command": (["plna"], 2, "plna"),
    "no command": ([], 2, ""),
    "key not set": (["status", "--url", "a", "--api-key-env", "NO_SUCH_VARIABLE"], 2, "NO_SUCH_VARIABLE"),
    "no address": (["status", "--url", "ftp://x"], 2, "ftp://x"),
    "nobody to bench": (["bench", "127.0.0.1:9", "127.0.0.1:9"], 1, "127.0.0.1:9"),
    "no kind of prompt": (["bench", "127.0.0.1:9", "127.0.0.1:9", "--model", "m", "--kinds", "chatt"], 2, "chatt"),
    "an open door": (["serve", "--url", "127.0.0.1:9", "--host", "0.0.0.0"], 2, "api_key"),
    "a key that is not there": (["serve", "--url", "127.0.0.1:9", "--serve-key-env", "NO_SUCH_VARIABLE"], 2, "NO_SUCH_VARIABLE"),
    "nobody there": (["chat", "--url", "127.0.0.1:9", "hi"], 2, "no server answered"),
    "nobody there, model named": (["chat", "--url", "127.0.0.1:9", "--model", "m", "hi"], 1, "127.0.0.1:9"),
    "missing file to load": (["chat", "--load", "nowhere.gguf", "hi"], 2, "nowhere.gguf"),
    "not a model to load": (["chat", "--load", "text.gguf", "hi"], 2, "text.gguf"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named_with_a_status_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{nope")
    Path("text.gguf").write_text("this is not a model at all")
    Path("short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    words, expected, named = BAD_INPUT[case]
    status, _, err = run(capsys, *words)
    assert (status, named in err) == (expected, True), err
    if words and words[0] in ("plan", "chat") and err.startswith("hydra-infer: "):
        assert err.rstrip().endswith(")"), f"no hint: {err}"


def test_an_unknown_model_name_at_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(plain({"data": [{"id": "llama-8b"}]})) as server:
        status, _, err = run(capsys, "chat", "--url", server.url, "--model", "lama-8b", "hi")
        assert (status, "did you mean 'llama-8b'" in err) == (2, True)


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "hydra_infer", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"hydra-infer {__version__}"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = socket.socketpair()
    reader.close()
    with writer:
        done = subprocess.run(
            [sys.executable, "-m", "hydra_infer", "gpus"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")

"""Trial: the second server answers or is told why it does not, and nothing of it is left."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import ConfigError, DeadlineExceeded, LoadError, Refused, Router
from hydra_infer.ops.migrate import Trial, trial
from hydra_infer.ops.migrate.ladder import climb
from hydra_infer.ops.migrate.move import Server

COMMAND = [sys.executable, str(Path(__file__).with_name("tabby_process.py"))]
CONFIG = "# mine\nnetwork:\n  host: 0.0.0.0\n  port: 5000\nmodel:\n  model_name: {}\n  tensor_parallel: true\n"


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def started(folder: Path, model: str = "X-EXL3", **options: object) -> Trial:
    given: dict[str, object] = {"api_key": API_KEY, "timeout": 30.0, "progress": False, **options}
    return trial(CONFIG.format(model), command=COMMAND, folder=folder, **given)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be read has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_beside_the_other_and_nothing_is_left(tmp_path: Path) -> None:
    with started(tmp_path) as running:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", running.url)
        assert "host 127.0.0.1" in running.log  # whatever the file said
        assert running.model == "X-EXL3"
        with Router.from_urls([running.url], api_keys={running.url: API_KEY}) as router:
            assert router.chat("X-EXL3", "Hello").text
        worker = int(re.findall(r"worker (\d+)", running.log)[0])
        assert alive(running.pid)
        assert alive(worker)
    assert not alive(running.pid)
    ends_at = time.monotonic() + 5
    while alive(worker):
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    running.close()


def test_killed_by_sigkill_it_takes_its_server_along(tmp_path: Path) -> None:
    """Nobody is left who could end the server, its workers, or remove its folder: what waits for that does."""
    (tmp_path / "new.yml").write_text(CONFIG.format("X-EXL3"))
    (tmp_path / "api_tokens.yml").write_text(f"api_key: {API_KEY}\n")
    words = ["migrate", "trial", str(tmp_path / "new.yml"), "--folder", str(tmp_path), "--command", shlex.join(COMMAND), "--hold"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "hydra_infer", *words], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        pid = int(re.findall(rb"pid (\d+)", process.stdout.readline())[0])
        (log,) = tmp_path.glob("hydra-trial-*/log")
        worker = int(re.findall(r"worker (\d+)", log.read_text())[0])
        process.kill()
    ends_at = time.monotonic() + 20
    while alive(pid) or alive(worker) or log.parent.exists():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_the_key_is_read_where_tabbyapi_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.yml").write_text(f"api_key: [{API_KEY}, other]\nadmin_key: x\n")
    with started(tmp_path, api_key=None) as running:
        assert running.ended() is None


def test_without_keys_it_is_told_to_take_the_old_ones_along(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="copy the serving one's there"):
        started(tmp_path, api_key=None)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ("Broken-EXL3", LoadError, r"ended: status 1: .*Insufficient VRAM in split"),
        ("Empty-EXL3", LoadError, "is up without Empty-EXL3"),
    ],
)
def test_one_that_does_not_come_up_is_told_and_ended(tmp_path: Path, model: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        started(tmp_path, model)
    assert "very-secret" not in str(caught.value)


def test_one_that_never_listens_is_given_up_and_ended(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded, match="nothing usable"):
        started(tmp_path, "Deaf-EXL3", timeout=0.5)


def test_a_wrong_key_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="answers 401"):
        started(tmp_path, api_key="wrong")


def test_a_port_that_is_taken_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot be used"):
            started(tmp_path, port=taken.getsockname()[1])


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be started"):
        trial(CONFIG.format("x"), command="/no/such/python main.py", folder=tmp_path, api_key=API_KEY)


def test_the_ladder(tabby_server: TabbyServer) -> None:
    climb(Server(tabby_server.url, "Llama-70B"), api_key=API_KEY, timeout=5)
    assert tabby_server.paths[-1] == "/v1/chat/completions"
    assert "/health" not in tabby_server.paths  # which would prove nothing
    with pytest.raises(LoadError, match="has Llama-70B loaded, not Other"):
        climb(Server(tabby_server.url, "Other"), api_key=API_KEY, timeout=5)
    tabby_server.issues.append({"time": "", "description": "one bad answer, long ago"})
    climb(Server(tabby_server.url, None), api_key=API_KEY, timeout=5)


def test_a_server_that_is_to_have_no_model_is_ready_without_one() -> None:
    with TabbyServer(["a"]) as server:
        climb(Server(server.url, None), api_key=API_KEY, timeout=5)
        with pytest.raises(LoadError, match="is up without a"):
            climb(Server(server.url, "a"), api_key=API_KEY, timeout=5)

"""A llama.cpp server by hand: ports, keys, and an end in every case."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from hydra_infer.engines.llama_server import LlamaServer, serve
from hydra_infer.errors import LoadError, UnknownModel
from hydra_infer.models.bundled import model_file

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("no_leaks")]


def ask(server: LlamaServer, key: str) -> httpx.Response:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30) as client:
        return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_on_a_port_with_a_key_which_comes_back_after_being_killed() -> None:
    port = unused_port()
    with serve("smollm2", port=port, api_key="sesame", context=256, threads=1, progress=False) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert ask(server, "wrong").status_code == 401
        assert ask(server, "sesame").json()["model"] == "smollm2"
        with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer sesame"}, trust_env=False) as client:
            assert client.get("/").status_code == 404  # no page
            assert client.get("/slots").status_code == 501
        os.kill(server.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        while server.alive:
            time.sleep(0.01)
        assert "ended with status" in server.ending()
    with serve("smollm2", port=port, api_key="sesame", context=256, threads=1, progress=False) as server:
        assert ask(server, "sesame").status_code == 200
    assert not server.alive


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LoadError, match=f"port {port} on 127.0.0.1.*port=0"):
            serve("smollm2", port=port)


def test_a_python_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(LoadError, match=r"'/no/python' could not be started.*sys\.executable"):
        serve("smollm2")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no\.gguf"):
        serve(tmp_path / "no.gguf")


def test_a_broken_file_is_told_in_llama_cpps_words(tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    with model_file("smollm2").open("rb") as whole:
        file.write_bytes(whole.read(5_000_000))
    with pytest.raises(LoadError, match=r"ended with status 1: .*cut\.gguf") as caught:
        serve(file, threads=1, progress=False)
    assert caught.value.log  # type: ignore[attr-defined]


def test_close_from_another_thread_ends_loading() -> None:
    server = LlamaServer(model_file("smollm2"), context=256, threads=1)
    begun = threading.Event()

    def close() -> None:
        begun.wait(20)
        server.close()

    def report(_part: float, _what: str) -> None:
        begun.set()
        closing.join(20)

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(LoadError, match="was cancelled"):
        server.start(report)
    assert not server.alive
    with pytest.raises(LoadError, match="make a new"):
        server.start()


PARENT = """
import os, sys
from hydra_infer.engines.llama_server import LlamaServer
server = LlamaServer(sys.argv[1], context=256, threads=1)
server._check = lambda: None  # a pipe is no file, but llama.cpp opens it, and waits in it as in a long load
def report(part, what):
    if sys.argv[2] == "loading":
        print(server.pid, flush=True)
        os._exit(1)
server.start(report)
print(server.pid, flush=True)
os._exit(1)
"""


def orphan(model: Path, when: str) -> int:
    """The pid of a server whose parent died without a word."""
    command = [sys.executable, "-c", PARENT, str(model), when]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=False).stdout)


def ends(pid: int) -> bool:
    end = time.monotonic() + 20
    while running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not running(pid)


def test_the_death_of_the_parent_ends_the_child() -> None:
    assert ends(orphan(model_file("smollm2"), "loaded"))


if sys.platform == "linux":  # elsewhere an orphan ends when it has loaded

    def test_the_death_of_the_parent_ends_a_child_that_is_loading(tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "endless.gguf")
        assert ends(orphan(tmp_path / "endless.gguf", "loading"))

    def test_a_child_that_is_deaf_while_loading_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(tmp_path / "endless.gguf")
        monkeypatch.setattr(LlamaServer, "_check", lambda _self: None)
        server = LlamaServer(tmp_path / "endless.gguf", context=256, threads=1)

        def report(_part: float, _what: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            server.start(report)
        assert not server.alive


def test_a_server_outlives_the_thread_that_started_it() -> None:
    servers: list[LlamaServer] = []
    options = {"context": 256, "threads": 1, "progress": False}
    starting = threading.Thread(target=lambda: servers.append(serve("smollm2", **options)))  # type: ignore[arg-type]
    starting.start()
    starting.join(30)
    with servers[0] as server:
        assert ask(server, server.api_key).status_code == 200


def running(pid: int) -> bool:
    """Whether a process that is not ours is running; one that only waits to be collected by its new parent is not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

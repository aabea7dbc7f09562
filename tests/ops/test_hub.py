"""A folder from the hub: every file whole under its name or not there, cut ones resumed, the token shown to the hub alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers.standin import Asked, Head, StandIn, Step, plain

from hydra_infer.cli import main
from hydra_infer.errors import ConfigError, Refused, Unreachable
from hydra_infer.ops import hub
from hydra_infer.ops.hub import fetch
from hydra_infer.ops.journal import lock

WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b"{}", "empty.txt": b"", "sub/model.safetensors": WEIGHTS}


class Hub:
    """Two hosts: the hub, which lists and redirects, and the one that has the large files. `cut` ends one answer early."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.seen: list[tuple[str, str, str | None, str | None]] = []
        self.cut = 0
        self.ranges = True
        self.lies: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.seen.append((request.url.host, path, request.headers.get("authorization"), request.headers.get("range")))
        if path == "/api/models/o/n/tree/4.0bpw":
            if "page" in request.url.params:
                return httpx.Response(200, json=self._rows()[1:])
            link = {"link": '<https://hub.invalid/api/models/o/n/tree/4.0bpw?page=2>; rel="next"'}
            return httpx.Response(200, json=self._rows()[:1], headers=link)
        if path.startswith("/o/n/resolve/4.0bpw/"):
            name = path.removeprefix("/o/n/resolve/4.0bpw/")
            if name.endswith(".safetensors"):
                return httpx.Response(302, headers={"location": f"https://cdn.invalid/{name}"})
            return httpx.Response(200, stream=httpx.ByteStream(self.files[name]))
        if request.url.host == "cdn.invalid":
            return self._large(request, self.files[path.removeprefix("/")])
        return httpx.Response(404)

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "size": 0}]
        for path, data in self.files.items():
            lfs = {"lfs": {"oid": hashlib.sha256(data).hexdigest()}} if path.endswith("safetensors") else {}
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()  # of a large file it is its pointer's
            rows.append({"type": "file", "oid": "0" * 40 if lfs else blob, "path": path, "size": len(data), **lfs, **self.lies})
        return rows

    def _large(self, request: httpx.Request, data: bytes) -> httpx.Response:
        start = int(request.headers["range"][6:-1]) if self.ranges and "range" in request.headers else 0
        data = data[start:]
        if self.cut:
            data, self.cut = data[: self.cut], 0
        return httpx.Response(206 if start else 200, stream=httpx.ByteStream(data))

    def fetch(self, into: Path, **options: Any) -> Path:
        options = {"revision": "4.0bpw", "address": "https://hub.invalid", "transport": httpx.MockTransport(self)} | options
        return fetch("o/n", into, **options)


def there(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_comes_and_the_token_goes_to_the_hub_alone(tmp_path: Path) -> None:
    server, told = Hub(), []
    folder = server.fetch(tmp_path, token="hf_secret", progress=lambda *one: told.append(one))
    assert folder == tmp_path / "n-4.0bpw"
    assert there(folder) == FILES
    assert {key for host, _, key, _ in server.seen if host == "hub.invalid"} == {"Bearer hf_secret"}
    assert {key for host, _, key, _ in server.seen if host == "cdn.invalid"} == {None}
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == 1.0


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    server = Hub()
    server.fetch(tmp_path)
    server.seen.clear()
    server.fetch(tmp_path)
    assert not [path for _, path, _, _ in server.seen if "resolve" in path]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_was_cut_off_goes_on_where_it_ended(tmp_path: Path, ranges: bool) -> None:
    server = Hub()
    server.cut, server.ranges = 1000, ranges
    with pytest.raises(Unreachable, match="1000 B came.*run it again"):
        server.fetch(tmp_path)
    assert "sub/model.safetensors" not in there(tmp_path / "n-4.0bpw")
    server.fetch(tmp_path)
    assert there(tmp_path / "n-4.0bpw") == FILES
    assert server.seen[-1][3] == "bytes=1000-"


def test_another_file_than_the_one_told_is_dropped(tmp_path: Path) -> None:
    server = Hub()
    server.lies = {"lfs": {"oid": "0" * 64}}
    with pytest.raises(Refused, match="what came is another file"):
        server.fetch(tmp_path)
    server.lies = {}
    (tmp_path / "n-4.0bpw" / "config.json.part").write_bytes(b"{x")  # cut off, of another revision, and as long
    with pytest.raises(Refused, match="config.json has 2 B by the hub's list; what came is another file"):
        server.fetch(tmp_path)
    assert there(tmp_path / "n-4.0bpw") == {}


def test_a_small_file_of_another_revision_is_fetched_again_though_it_is_as_long(tmp_path: Path) -> None:
    server = Hub()
    folder = server.fetch(tmp_path)
    (folder / "config.json").write_bytes(b"[]")
    server.fetch(tmp_path)
    assert there(folder) == FILES


def test_each_revision_has_a_folder_of_its_own(tmp_path: Path) -> None:
    server = Hub()
    assert server.fetch(tmp_path).name == "n-4.0bpw"
    main = fetch(
        "o/n", tmp_path, address="https://hub.invalid", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
    )
    assert main.name == "n"


def test_two_at_once_do_not_write_into_one_file(tmp_path: Path) -> None:
    part = tmp_path / "n-4.0bpw" / "config.json.part"
    part.parent.mkdir()
    with part.open("ab") as other:
        assert lock(other)
        with pytest.raises(ConfigError, match=r"another process is fetching .*config.json"):
            Hub().fetch(tmp_path)
    assert Hub().fetch(tmp_path) == part.parent


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "..\\evil", "C:evil"])
def test_no_file_leaves_its_folder(tmp_path: Path, path: str) -> None:
    server = Hub()
    server.files = {path: b"x"}
    with pytest.raises(ConfigError, match="outside its folder"):
        server.fetch(tmp_path / "models")
    assert there(tmp_path) == {}


def test_a_disk_that_is_too_small_is_told_before_anything_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Hub()
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 5000})())
    with pytest.raises(ConfigError, match=r"10\.0 KiB are still to come.*4\.9 KiB free"):
        server.fetch(tmp_path)
    assert not [path for _, path, _, _ in server.seen if "resolve" in path]


def test_a_disk_that_fills_meanwhile_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "n-4.0bpw").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="n-4.0bpw cannot be written: .*run it again"):
        Hub().fetch(tmp_path)
    (tmp_path / "n-4.0bpw").unlink()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub.os, "fsync", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        Hub().fetch(tmp_path)
    monkeypatch.undo()
    assert there(Hub().fetch(tmp_path)) == FILES


def test_what_the_hub_refuses_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="404 for o/n at nowhere.*private ones need a token"):
        Hub().fetch(tmp_path, revision="nowhere")


def test_nobody_there(tmp_path: Path) -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(Unreachable, match="no route.*run it again"):
        fetch("o/n", tmp_path, transport=httpx.MockTransport(gone))


@pytest.mark.parametrize("repo", ["n", "o/", "/n", "o/n/m", "../n"])
def test_what_is_no_repository(tmp_path: Path, repo: str) -> None:
    with pytest.raises(ConfigError, match="owner/name"):
        fetch(repo, tmp_path)


class SlowHub(StandIn):
    """One large file over HTTP itself, a piece at a time: somebody can be killed in between."""

    def __init__(self) -> None:
        self.slow = True
        super().__init__()

    def answer(self, asked: Asked) -> Iterator[Step]:
        if asked.path.startswith("/api/"):
            rows = [{"type": "file", "path": "m.bin", "size": len(WEIGHTS), "lfs": {"oid": hashlib.sha256(WEIGHTS).hexdigest()}}]
            return plain(rows)
        return self._pieces(asked)

    def _pieces(self, asked: Asked) -> Iterator[Step]:
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        yield Head(206 if start else 200, {"content-length": str(len(WEIGHTS) - start)})
        for at in range(start, len(WEIGHTS), 1024):
            yield WEIGHTS[at : min(at + 1024, len(WEIGHTS))]
            if self.slow:
                time.sleep(0.05)


def test_a_pull_that_was_killed_goes_on_where_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SlowHub() as server:
        words = ["pull", "o/n", "--into", str(tmp_path), "--hub", server.url]
        part = tmp_path / "n" / "m.bin.part"
        with subprocess.Popen([sys.executable, "-m", "hydra_infer", *words], stdout=subprocess.DEVNULL) as child:
            ends_at = time.monotonic() + 30
            while not (part.exists() and part.stat().st_size):
                assert child.poll() is None
                assert time.monotonic() < ends_at
                time.sleep(0.01)
            child.kill()
        begun = part.stat().st_size
        assert 0 < begun < len(WEIGHTS)
        assert not (tmp_path / "n" / "m.bin").exists()
        server.slow = False
        assert main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "n")}
        assert server.requests[-1].headers["range"] == f"bytes={begun}-"
    assert there(tmp_path / "n") == {"m.bin": WEIGHTS}


def test_the_list_does_not_lead_the_token_to_another_address(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("authorization")))
        return httpx.Response(200, json=[], headers={"link": '<https://elsewhere.invalid/page/2>; rel="next"'})

    with pytest.raises(Refused, match="another address, elsewhere.invalid"):
        fetch("o/n", tmp_path, token="secret", address="https://hub.invalid", transport=httpx.MockTransport(answer))
    assert seen == [("hub.invalid", "Bearer secret")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "x"}',
        b"[1]",
        b"nope",
        b"[" * 100_000,
        b'[{"type": "file", "path": 1, "size": 1}]',
        b'[{"type": "file", "path": "a", "size": "9"}]',
    ],
)
def test_a_list_that_is_none_is_told(tmp_path: Path, body: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(body)))
    with pytest.raises((Refused, ConfigError)):
        fetch("o/n", tmp_path, address="https://hub.invalid", transport=transport)


def test_a_file_longer_than_was_told_does_not_fill_the_disk(tmp_path: Path) -> None:
    class Endless(httpx.SyncByteStream):
        sent = 0

        def __iter__(self) -> Any:
            while self.sent < 2**30:
                self.sent += 2**20
                yield bytes(2**20)

    stream = Endless()

    def answer(request: httpx.Request) -> httpx.Response:
        if "/tree/" in request.url.path:
            return httpx.Response(200, json=[{"type": "file", "path": "a", "size": 10}])
        return httpx.Response(200, stream=stream)

    with pytest.raises(Refused, match="what came is another file"):
        fetch("o/n", tmp_path, address="https://hub.invalid", transport=httpx.MockTransport(answer))
    assert stream.sent <= 2 * 2**20
    assert list((tmp_path / "n").iterdir()) == []

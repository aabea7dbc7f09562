"""Cores and memory are read from what the system says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hydra_infer.engines.machine import physical_cores, resident_memory


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "tmp_path" in request.fixturenames:  # these bring Linux's files along
        monkeypatch.setattr(sys, "platform", "linux")


def allow(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(cpus), raising=False)


def make(root: Path, siblings: list[str], quota: str | None = None) -> Path:
    for cpu, text in enumerate(siblings):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
    if quota is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/cpu.max").write_text(quota + "\n")
    return root


def test_hyper_threads_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 0, 1, 2, 3)
    assert physical_cores(make(tmp_path, ["0,2", "1,3", "0,2", "1,3"])) == 2


def test_only_the_allowed_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 1)
    assert physical_cores(make(tmp_path, ["0", "1", "2", "3"])) == 1


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("300000 100000", 3), ("max 100000", 4), ("5 100000", 1)])
def test_a_containers_quota_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    allow(monkeypatch, 0, 1, 2, 3)
    assert physical_cores(make(tmp_path, ["0", "1", "2", "3"], quota)) == cores


def test_without_a_topology_the_allowed_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 0, 1, 2)
    assert physical_cores(tmp_path) == 3


def test_this_machine_has_a_core() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


def test_this_process_holds_memory_and_a_gone_one_none() -> None:
    held = resident_memory(os.getpid())
    assert held is None if sys.platform == "win32" else held is not None and held > 2**20
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert resident_memory(gone.pid) is None

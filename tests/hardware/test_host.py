"""System memory: /proc and the limits of containers, on made-up trees; and this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hydra_infer.hardware.host import host_memory, shared_memory
from hydra_infer.units import GIB, KIB

linux_only = pytest.mark.usefixtures("on_linux")


@pytest.fixture
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")


def tree(root: Path, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": f"MemTotal: {64 * GIB // KIB} kB\nMemFree: 1 kB\nMemAvailable: {48 * GIB // KIB} kB\n"} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@linux_only
def test_a_machine_without_limits(tmp_path: Path) -> None:
    memory = host_memory(tree(tmp_path, {}))
    assert (memory.total, memory.available) == (64 * GIB, 48 * GIB)


@linux_only
def test_the_tightest_cgroup_above_us_counts(tmp_path: Path) -> None:
    memory = host_memory(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/outer/memory.max": f"{8 * GIB}\n",
                "sys/fs/cgroup/outer/memory.current": f"{5 * GIB}\n",
                "sys/fs/cgroup/outer/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
                "sys/fs/cgroup/outer/inner/memory.max": "max\n",
                "sys/fs/cgroup/outer/inner/memory.current": "1\n",
            },
        )
    )
    assert (memory.total, memory.available) == (8 * GIB, 5 * GIB)


@linux_only
def test_a_container_that_sees_only_the_top(tmp_path: Path) -> None:
    memory = host_memory(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": "0::/docker/0123\n",
                "sys/fs/cgroup/memory.max": f"{4 * GIB}",
                "sys/fs/cgroup/memory.current": f"{GIB}",
            },
        )
    )
    assert (memory.total, memory.available) == (4 * GIB, 3 * GIB)


@linux_only
def test_the_older_cgroups(tmp_path: Path) -> None:
    memory = host_memory(
        tree(
            tmp_path,
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/slice\n",
                "sys/fs/cgroup/memory/slice/memory.limit_in_bytes": f"{2 * GIB}",
                "sys/fs/cgroup/memory/slice/memory.usage_in_bytes": f"{3 * GIB}",
            },
        )
    )
    assert (memory.total, memory.available) == (2 * GIB, 0)


def test_this_machine() -> None:
    memory = host_memory()
    assert GIB // 4 < memory.available <= memory.total


def test_shared_memory(tmp_path: Path) -> None:
    assert shared_memory(tmp_path / "none") is None
    assert (shared_memory(tmp_path) or 0) > 0

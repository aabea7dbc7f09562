"""What systemctl, journalctl, /proc/mounts and /sys tell, read."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hydra_infer.ops.commands import Ran, run
from hydra_infer.ops.doctor.services import ServiceFacts, check_service
from hydra_infer.ops.processes import Listener, Process
from hydra_infer.ops.storage import absent_mount, links, mount_of, read_speed
from hydra_infer.ops.units import Unit, last_errors, read_unit

SHOWN = """LoadState=loaded
ActiveState=failed
Result=exit-code
MainPID=0
NRestarts=3
Restart=on-failure
RestartUSec=1min 30s
StartLimitIntervalUSec=infinity
StartLimitBurst=5
TimeoutStartUSec=2h 5ms
KillMode=control-group
Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID "WITH_SPACES=a b" EMPTY=
ExecStartPre={ path=/opt/h/bin/hydra-infer ; argv[]=/opt/h/bin/hydra-infer prestart --wait 90 ; ignore_errors=no ; pid=0 }
"""


def shown(text: str) -> Unit | str:
    return read_unit("x.service", lambda command, _: Ran(0, text) if command[-1] == "x.service" else Ran(1))


def test_a_unit() -> None:
    unit = shown(SHOWN)
    assert isinstance(unit, Unit)
    assert (unit.state, unit.result, unit.pid, unit.restarts, unit.restart) == ("failed", "exit-code", 0, 3, "on-failure")
    assert (unit.restart_seconds, unit.limit_seconds, unit.start_seconds) == (90.0, math.inf, 7200.005)
    assert unit.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "WITH_SPACES": "a b", "EMPTY": ""}
    assert "CUDA" not in repr(unit), "an environment may hold keys"
    assert unit.prestart == 90.0
    for said, wait in (("argv[]=/opt/hydra-infer prestart ;", 60.0), ("argv[]=/bin/true ;", None)):
        other = shown(re.sub("ExecStartPre=.*", f"ExecStartPre={{ {said} }}", SHOWN))
        assert isinstance(other, Unit)
        assert other.prestart == wait


def test_no_unit_and_no_systemd() -> None:
    assert shown("LoadState=not-found\n") == "there is no x.service here"
    assert read_unit("x", lambda *_: Ran(None, trouble="there is no systemctl here")) == "there is no systemctl here"
    assert last_errors("x", lambda *_: Ran(1)) == "journalctl shows nothing"


def test_the_last_errors_without_keys() -> None:
    def journal(_: Sequence[str], __: float) -> Ran:
        return Ran(0, f"INFO: fine\nERROR: one\nTraceback of two\nERROR: three {'ab' * 16} Bearer sesame\nCUDA error: four\n")

    assert last_errors("x", journal) == ["Traceback of two", "ERROR: three *** Bearer ***", "CUDA error: four"]


@pytest.mark.parametrize(("host", "shared", "found"), [("127.0.0.1:1", True, 1), ("0.0.0.0", True, 0), ("127.0.0.1", False, 0)])
def test_an_ollama_that_no_other_machine_reaches(host: str, shared: bool, found: int) -> None:
    unit = shown(SHOWN.replace("failed", "active").replace("NRestarts=3", "").replace("EMPTY=", f"OLLAMA_HOST={host}"))
    findings = list(check_service(ServiceFacts("o", "ollama", 11434, (), unit, shared=shared)))
    assert [one.what for one in findings] == [f"OLLAMA_HOST is {host} in x.service"] * found


def test_the_same_port_at_another_address_is_no_matter_where_the_unit_has_it_at_one() -> None:
    unit = shown(SHOWN.replace("failed", "active").replace("NRestarts=3", ""))
    other = Process(7, 1, ("docker-proxy",), "/usr/bin/docker-proxy", "/", "/system.slice/docker.service")
    ours = Process(8, 1, ("ollama",), "/usr/bin/ollama", "/", "/system.slice/x.service")
    foreign = Listener("172.17.0.1", 1, other)
    for rows, found in (([foreign], 1), ([foreign, Listener("127.0.0.1", 1, ours)], 0)):
        told = [one.what for one in check_service(ServiceFacts("o", "ollama", 1, rows, unit))]
        assert told == ["port 1 belongs to docker-proxy (pid 7, docker.service), not to x.service"] * found


def test_an_owner_that_is_hidden_and_one_beside_a_unit_that_does_not_run() -> None:
    unit = shown(SHOWN.replace("failed", "inactive").replace("NRestarts=3", ""))
    other = Process(7, 1, ("python", "train.py"), "/usr/bin/python", "/", "/system.slice/train.service")
    told = {
        owner: [one.what for one in check_service(ServiceFacts("o", "ollama", 1, [Listener("127.0.0.1", 1, owner)], unit))]
        for owner in (None, other)
    }
    assert told[None] == ["whose process has port 1: another user's"]
    assert told[other] == ["port 1 belongs to python train.py (pid 7, train.service), not to x.service"]


def test_programs_are_bounded_in_time_and_never_raise() -> None:
    assert run([sys.executable, "-c", "print('ü')"], 10.0) == Ran(0, "ü\n")
    assert run([sys.executable, "-c", "import sys; sys.exit('no')"], 10.0) == Ran(1, "", "no")
    assert run(["hydra-no-such-program"], 1.0).trouble == "there is no hydra-no-such-program here"
    assert "did not answer within 0.1 s" in run([sys.executable, "-c", "import time; time.sleep(9)"], 0.1).trouble


def test_mounts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/mounts").write_text("/dev/a / ext4 rw 0 0\nnas:/m /mnt/my\\040models nfs4 rw,rsize=8192 0 0\n")
    (tmp_path / "etc/fstab").write_text(
        "# comment\n/dev/a / ext4 rw 0 0\nnas:/x /mnt/x nfs rw 0 0\nnas:/m /mnt/my\\040models nfs4 rw\n"
    )
    mount = mount_of(Path("/mnt/my models/llama"), tmp_path)
    assert mount is not None
    assert (mount.source, mount.network, mount.option("rsize"), mount.option("wsize")) == ("nas:/m", True, "8192", None)
    local = mount_of(Path("/home"), tmp_path)
    assert local is not None
    assert not local.network
    absent = absent_mount(Path("/mnt/x/llama"), tmp_path)
    assert absent is not None
    assert absent.source == "nas:/x"
    assert absent_mount(Path("/mnt/my models/llama"), tmp_path) is None
    assert mount_of(Path("/mnt"), tmp_path / "nothing") is None


def test_links(tmp_path: Path) -> None:
    for name, state, speed in (("eth0", "up", "1000"), ("eth1", "down", "10000"), ("br0", "up", "-1"), ("lo", "unknown", "")):
        place = tmp_path / "sys/class/net" / name
        place.mkdir(parents=True)
        (place / "operstate").write_text(f"{state}\n")
        (place / "speed").write_text(f"{speed}\n")
    assert [(one.name, one.speed) for one in links(tmp_path)] == [("eth0", 1000)]


def test_the_speed_of_a_disk(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    assert read_speed(tmp_path / "short") is None
    with (tmp_path / "long").open("wb") as file:
        file.truncate(3 * 10**6)
    speed = read_speed(tmp_path / "long", megabytes=2)
    assert speed is not None
    assert speed > 0

"""prestart: what cannot work is not started, memory is waited for, and no process is ended that is not proven to be ours."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic

from hydra_infer import Gpu
from hydra_infer.cli import main
from hydra_infer.errors import ConfigError
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.ops.doctor.machine import Machine
from hydra_infer.ops.doctor.report import Report
from hydra_infer.ops.orphan import Instance, end, proof, record, recorded
from hydra_infer.ops.prestart import Means, prestart
from hydra_infer.ops.processes import Process, listeners, process
from hydra_infer.ops.tabby_plan import TabbyConfig, visible

MODEL = "Llama-3.2-1B-EXL3-4.0bpw"
# Listens on a free port and says which; stays until it is ended, SIGTERM or not.
SERVER = """
import signal, socket, sys, time
if "--stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(120)
"""


class Place:
    """A TabbyAPI's folder with a config.yml, a model and two cards; time passes only by waiting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        synthetic.exl3(folder / "models" / MODEL, synthetic.LLAMA_1B, 4.0)
        (folder / "models" / MODEL / "chat_template.jinja").write_text("x")
        (folder / "main.py").write_text(SERVER)
        self.config = folder / "config.yml"
        self.cards = [Gpu("RTX 5090", free=31), Gpu("RTX 4090", free=23)]
        self.now, self.ended = 0.0, list[int]()
        self.children: list[subprocess.Popen[bytes]] = []
        self.say(port=1)

    def say(self, port: int, **model: Any) -> None:
        lines = {"model_name": MODEL, "max_seq_len": 4096, "cache_size": 6144, **model}
        text = "\n".join(f"  {key}: {value}" for key, value in lines.items())
        self.config.write_text(f"network:\n  port: {port}\nmodel:\n{text}\n")

    def full(self, pid: int = 1) -> None:
        """Another program has all of both cards."""
        self.cards = [
            Gpu(card.name, free=0.2, processes=[GpuProcess(pid, "blender")], index=number, uuid=f"GPU-{number}")
            for number, card in enumerate(self.cards)
        ]

    def means(self) -> Means:
        machine = Machine(gpus=lambda: self.cards)
        return Means(machine=machine, end=self._end, clock=lambda: self.now, sleep=self._sleep, environment={})

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _end(self, orphan: Process) -> bool:
        self.ended.append(orphan.pid)
        return end(orphan, self.look)

    def look(self, pid: int) -> Process | None:
        """A process as it is now. We are its parent, and until we ask after it, it would keep its number when it is gone."""
        for child in self.children:
            child.poll()
        return process(pid)

    def start(self, **options: Any) -> Report:
        return prestart(self.config, means=self.means(), **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@dataclasses.dataclass
class Server:
    """A process that has a port."""

    child: subprocess.Popen[bytes]
    port: int


@pytest.fixture
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts processes that listen: TabbyAPI's own by their folder, or foreign ones."""

    def begin(*arguments: str, foreign: bool = False) -> Server:
        folder = tmp_path_factory.mktemp("elsewhere") if foreign else place.folder
        (folder / "main.py").write_text(SERVER)
        command = [os.path.realpath(sys.executable), "main.py", *arguments]
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
        place.children.append(child)
        assert child.stdout is not None
        return Server(child, int(child.stdout.readline()))

    yield begin
    for child in place.children:
        child.kill()
        child.communicate()


PYTHON = os.path.realpath(sys.executable)


def whats(report: Report) -> list[str]:
    return [one.what for one in report if one.severity == "error"]


def test_what_can_work_may_start(place: Place) -> None:
    assert str(place.start()) == "nothing is wrong"
    assert place.now == 0.0


# ---- what is refused -----------------------------------------------------------------------------------------


def test_a_config_that_tabbyapi_does_not_take(place: Place) -> None:
    place.say(port=1, cache_size=1000)
    assert whats(place.start()) == ["model.cache_size: wrong"]
    place.config.write_text("model: [\n")
    assert len(whats(place.start())) == 1
    place.config.unlink()
    assert "cannot be read" in whats(place.start())[0]


def test_what_only_is_a_pity_stops_nothing(place: Place) -> None:
    place.say(port=1, expect_cache_tokens=8192)
    report = place.start()
    assert [one.severity for one in report] == ["warning"]
    assert not whats(report)


@pytest.mark.parametrize("text", ["api_key: [", "sesame", "api_key: sesame\n", ""])
def test_keys_that_tabbyapi_does_not_start_with(place: Place, text: str) -> None:
    tokens = place.folder / "api_tokens.yml"
    tokens.write_text(text)
    tokens.chmod(0o600)
    report = place.start()
    assert [(one.where, one.what) for one in report] == [(str(tokens), "it is not a table with api_key and admin_key")]
    assert "sesame" not in str(report)
    place.config.write_text(place.config.read_text().replace("network:\n", "network:\n  disable_auth: true\n"))
    assert place.start().healthy, "then it is not read"


def test_a_model_that_is_not_there_or_not_whole(place: Place) -> None:
    place.say(port=1, model_name="another")
    assert "another" in whats(place.start())[0]
    place.say(port=1)
    (place.folder / "models" / MODEL / "config.json").unlink()
    assert MODEL in whats(place.start())[0]


def test_a_model_that_never_fits(place: Place) -> None:
    place.cards = [Gpu("RTX 5090", free=0.5)]
    report = place.start(wait=5.0)
    assert "does not fit: needs" in whats(report)[0]
    assert place.now == 5.0, "it waited as long as it was told to"


def test_memory_that_is_given_back_is_waited_for(place: Place) -> None:
    free, means = place.cards, place.means()
    place.full()

    def sleep(seconds: float) -> None:
        place.now += seconds
        if place.now >= 3:
            place.cards = free

    report = prestart(place.config, wait=60.0, means=dataclasses.replace(means, sleep=sleep))
    assert str(report) == "nothing is wrong"
    assert place.now == 3.0


def test_the_models_own_file_and_the_visible_cards_count(place: Place) -> None:
    place.cards = [Gpu("RTX 5090", free=0.2, uuid="GPU-a"), Gpu("RTX 4090", free=23, uuid="GPU-b")]
    only = dataclasses.replace(place.means(), environment={"CUDA_VISIBLE_DEVICES": "1"})
    assert prestart(place.config, wait=1.0, means=only).healthy
    (place.folder / "models" / MODEL / "tabby_config.yml").write_text("model:\n  cache_size: 1048576\n")
    assert "does not fit" in whats(prestart(place.config, wait=1.0, means=only))[0]


def test_a_split_that_is_not_for_these_cards(place: Place) -> None:
    place.say(port=1, gpu_split="[10, 10, 10]")
    assert "gpu_split" in whats(place.start())[0]


def test_a_machine_without_a_card(place: Place) -> None:
    place.cards = []
    assert whats(place.start(wait=1.0)) == ["no NVIDIA card answers here"]


def test_a_wrong_value_in_the_models_own_file(place: Place) -> None:
    own = place.folder / "models" / MODEL / "tabby_config.yml"
    own.write_text("model:\n  cache_size: many\n")
    report = place.start()
    assert [(one.where, one.what) for one in report] == [(f"{own}:2", "model.cache_size: wrong")]
    with pytest.raises(ConfigError, match="model.cache_size must be a whole number"):
        TabbyConfig.read(place.config).plan(place.cards)


def test_a_host_by_name_may_be_any_address(place: Place, server: Any) -> None:
    foreign = server(foreign=True)
    place.say(port=foreign.port)
    place.config.write_text(place.config.read_text().replace("network:\n", "network:\n  host: gpu-box\n"))
    assert "belongs to" in whats(place.start())[0]


# ---- who is ended, and who is not ----------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True])
def test_a_foreign_process_on_the_port_is_never_ended(place: Place, server: Any, told: bool) -> None:
    foreign = server(foreign=True)
    place.say(port=foreign.port)
    report = place.start(kill_orphan=told, python=PYTHON, wait=5.0)
    assert whats(report) == [f"port {foreign.port} belongs to {process(foreign.child.pid)}"]
    assert place.ended == []
    assert foreign.child.poll() is None
    assert place.now == 0.0, "waiting does not help"


def test_a_foreign_process_on_the_cards_is_never_ended(place: Place, server: Any) -> None:
    foreign = server(foreign=True)
    place.full(foreign.child.pid)
    report = place.start(kill_orphan=True, python=PYTHON, wait=3.0)
    assert f"on the cards: {process(foreign.child.pid)}" in report.findings[0].why
    assert (place.ended, place.now) == ([], 3.0)
    assert foreign.child.poll() is None


def test_a_left_over_is_ended_only_when_told_to(place: Place, server: Any) -> None:
    own = server()
    place.say(port=own.port)
    report = place.start(python=PYTHON)
    assert "it is a left-over of this server" in whats(report)
    assert own.child.poll() is None
    assert place.start(python=PYTHON, kill_orphan=True).healthy
    assert place.ended == [own.child.pid]
    assert own.child.wait(5) == -signal.SIGTERM


def test_one_that_still_loads_has_no_port_and_is_found_by_its_memory(place: Place, server: Any) -> None:
    own = server()
    free = place.cards
    place.full(own.child.pid)
    means = place.means()

    def ends(orphan: Process) -> bool:
        place.cards = free
        return end(orphan, place.look)

    report = prestart(place.config, kill_orphan=True, python=PYTHON, means=dataclasses.replace(means, end=ends))
    assert report.healthy
    assert own.child.wait(5) == -signal.SIGTERM


def test_what_is_recorded_is_proof_by_pid_and_start(place: Place, server: Any, tmp_path: Path) -> None:
    foreign = server(foreign=True)
    suspect = process(foreign.child.pid)
    assert suspect is not None
    record(tmp_path / "served-by", suspect)
    was = recorded(tmp_path / "served-by")
    assert proof(suspect, Instance(place.config, was=was)) is not None
    assert proof(dataclasses.replace(suspect, started=suspect.started + 1), Instance(place.config, was=was)) is None
    (tmp_path / "served-by").write_text("12\n")
    with pytest.raises(ConfigError, match="no record of a process"):
        recorded(tmp_path / "served-by")
    assert recorded(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("said", "ours"), [("me", True), ("parent", True), ("another", False), (None, False)], ids=["me", "shell", "cron", "no unit"]
)
def test_a_units_cgroup_is_ours_only_where_the_unit_runs_us(
    place: Place, server: Any, monkeypatch: pytest.MonkeyPatch, said: str | None, ours: bool
) -> None:
    """Of cron's unit, or an editor's, every job is a member: one on our port is no left-over of ours."""
    foreign = server(foreign=True)
    place.say(port=foreign.port)
    unit = "/system.slice/cron.service"
    pids = {"me": os.getpid(), "parent": os.getppid(), "another": foreign.child.pid}
    environment = {} if said is None else {"SYSTEMD_EXEC_PID": str(pids[said])}
    root = place.folder / "root"
    for pid in (os.getpid(), foreign.child.pid):
        (root / f"proc/{pid}").mkdir(parents=True)
        for name in ("stat", "cmdline"):
            (root / f"proc/{pid}/{name}").write_bytes(Path(f"/proc/{pid}/{name}").read_bytes())
        (root / f"proc/{pid}/cgroup").write_text(f"0::{unit}\n")
    (one,) = (one for one in listeners() if one.port == foreign.port)
    assert one.process is not None
    there = dataclasses.replace(one, process=dataclasses.replace(one.process, group=unit))
    means = place.means()
    machine = dataclasses.replace(means.machine, root=root)
    monkeypatch.setattr(Machine, "listeners", lambda _: [there])
    report = prestart(place.config, wait=1.0, means=dataclasses.replace(means, machine=machine, environment=environment))
    assert ("it is a left-over of this server" in whats(report)) is ours
    assert foreign.child.poll() is None


def suspect(**changes: Any) -> Process:
    made = Process(77, 5, ("/v/python", "main.py"), "/v/python", "/opt/tabby", "/system.slice/tabby.service")
    return dataclasses.replace(made, **changes)


CONFIG = Path("/opt/tabby/config.yml")


@pytest.mark.parametrize(
    ("process", "instance", "ours"),
    [
        (suspect(), Instance(CONFIG, group="/system.slice/tabby.service"), True),
        (suspect(), Instance(CONFIG, group="/system.slice/other.service"), False),
        (suspect(group="/user.slice/user-1000.slice/session-3.scope"),
         Instance(CONFIG, group="/user.slice/user-1000.slice/session-3.scope"), False),
        (suspect(group="/user.slice/user-1000.slice/user@1000.service"),
         Instance(CONFIG, group="/user.slice/user-1000.slice/user@1000.service"), False),
        (suspect(), Instance(CONFIG, python="/v/python"), True),
        (suspect(command=("/v/python", "main.py", "--config", "config.yml")), Instance(CONFIG, python="/v/python"), True),
        (suspect(command=("/v/python", "main.py", "--config", "b.yml")), Instance(CONFIG, python="/v/python"), False),
        (suspect(command=("/v/python", "train.py")), Instance(CONFIG, python="/v/python"), False),
        (suspect(command=("/v/python", "train.py", "main.py")), Instance(CONFIG, python="/v/python"), False),
        (suspect(folder="/opt/second"), Instance(CONFIG, python="/v/python"), False),
        (suspect(folder=None), Instance(CONFIG, python="/v/python"), False),
        (suspect(executable=None), Instance(CONFIG, python="/v/python"), False),
        (suspect(executable="/w/python"), Instance(CONFIG, python="/v/python"), False),
        (suspect(), Instance(CONFIG), False),
        (suspect(pid=os.getpid()), Instance(CONFIG, group="/system.slice/tabby.service"), False),
    ],
)  # fmt: skip
def test_a_proof_is_more_than_a_likeness(process: Process, instance: Instance, ours: bool) -> None:
    assert (proof(process, instance) is not None) is ours


def test_one_that_ignores_the_first_signal_gets_the_second(place: Place, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.ops.orphan._PATIENCE", 0.2)
    own = server("--stubborn")
    orphan = process(own.child.pid)
    assert orphan is not None
    assert end(orphan, place.look)
    assert own.child.wait(5) == -signal.SIGKILL
    assert end(orphan), "it is gone already"


def test_a_number_that_means_another_process_by_now_is_left_alone(server: Any) -> None:
    own = server()
    orphan = process(own.child.pid)
    assert orphan is not None
    assert end(dataclasses.replace(orphan, started=orphan.started - 1)), "that one is gone"
    time.sleep(0.05)
    assert own.child.poll() is None


# ---- what it looks at ----------------------------------------------------------------------------------------


def test_listeners_and_their_owners(server: Any) -> None:
    own = server()
    (one,) = (one for one in listeners() if one.port == own.port)
    assert one.process is not None
    assert (one.address, one.process.pid) == ("127.0.0.1", own.child.pid)
    assert one.process.command[1:] == ("main.py",)
    assert one.covers("0.0.0.0")
    assert one.covers("localhost")
    assert not one.covers("192.168.1.7")


def test_a_config_is_planned_as_tabbyapi_reads_it(place: Place) -> None:
    place.say(port=1, tensor_parallel="true", cache_mode="Q8", chunk_size=1024, max_batch_size=3)
    request = TabbyConfig.read(place.config).plan(place.cards).request
    assert (request.context, request.chunk, request.slots, request.rate.name) == (6144 - 1024, 1024, 3, "q8")
    place.say(port=1, gpu_split="[10, 20]", cache_mode='"8,6"')
    planned = TabbyConfig.read(place.config).plan(place.cards)
    assert [share.gib for share in planned.request.gpu_split or ()] == [10, 20]
    place.config.write_text(f"model:\n  model_name: {MODEL}\n")
    assert TabbyConfig.read(place.config).plan(place.cards).request.context == synthetic.LLAMA_1B["max_position_embeddings"]


def test_visible_cards() -> None:
    cards = [Gpu("RTX 5090", uuid="GPU-aa"), Gpu("RTX 4090", uuid="GPU-bb")]
    for said, seen in ((None, [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-b", [1]), ("", []), ("-1", []), ("0,7,1", [0])):
        environment = {} if said is None else {"CUDA_VISIBLE_DEVICES": said}
        assert visible(cards, environment) == [cards[number] for number in seen], said


def test_the_command(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hydra_infer.ops.prestart.Means", place.means)
    assert main(["prestart", "--tabby-config", str(place.config)]) == 0
    place.say(port=1, cache_size=1000)
    capsys.readouterr()
    assert main(["prestart", "--tabby-config", str(place.config), "--wait", "1", "--json"]) == 1
    assert '"model.cache_size: wrong"' in capsys.readouterr().out
    monkeypatch.chdir(place.folder)
    place.say(port=1)
    assert main(["prestart"]) == 0

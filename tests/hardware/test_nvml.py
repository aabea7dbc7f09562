"""The NVML probe against one fake of the library: order, faults, processes, MIG; and the real one where no driver is."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import hydra_infer
from hydra_infer.hardware.nvml import gpus
from hydra_infer.units import GIB, MIB


class NVMLError(Exception):
    """The base of all of pynvml's errors."""


@dataclass
class FakeCard:
    name: str = "NVIDIA GeForce RTX 4090"
    bus: int = 1
    total: int = 24564 * MIB
    free: int = 24000 * MIB
    pids: dict[int, int | None] = field(default_factory=dict)
    instances: list[FakeCard] | None = None
    broken: tuple[str, ...] = ()


class FakeNvml:
    """Answers as nvidia-ml-py does: text may be bytes, what a card cannot say raises NVMLError."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_CLOCK_MEM = 2

    def __init__(self, *cards: FakeCard, driver: bool = True) -> None:
        self.cards, self.driver, self.open = cards, driver, 0

    def __getattr__(self, name: str) -> Any:
        """nvmlDeviceGetName is answered by answer_device_get_name below, unless the card is broken there."""
        answer = object.__getattribute__(self, "answer_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name[4:]).lower())

        def ask(*arguments: Any) -> Any:
            if arguments and isinstance(arguments[0], FakeCard) and name in arguments[0].broken:
                raise NVMLError(name)
            return answer(*arguments)

        return ask

    def answer_init(self) -> None:
        if not self.driver:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def answer_shutdown(self) -> None:
        self.open -= 1

    def answer_device_get_count(self) -> int:
        return len(self.cards)

    def answer_device_get_handle_by_index(self, index: int) -> FakeCard:
        return self.cards[index]

    def answer_device_get_pci_info(self, card: FakeCard) -> Any:
        return SimpleNamespace(domain=0, bus=card.bus, device=0)

    def answer_device_get_mig_mode(self, card: FakeCard) -> tuple[int, int]:
        if card.instances is None:
            raise NVMLError("Not Supported")
        return 1, 1

    def answer_device_get_max_mig_device_count(self, card: FakeCard) -> int:
        return 7

    def answer_device_get_mig_device_handle_by_index(self, card: FakeCard, index: int) -> FakeCard:
        if index >= len(card.instances or []):
            raise NVMLError("Not Found")
        return card.instances[index]

    def answer_device_get_name(self, card: FakeCard) -> bytes:
        return card.name.encode()

    def answer_device_get_memory_info(self, card: FakeCard) -> Any:
        return SimpleNamespace(total=card.total, free=card.free)

    def answer_device_get_cuda_compute_capability(self, card: FakeCard) -> tuple[int, int]:
        return 8, 9

    def answer_device_get_uuid(self, card: FakeCard) -> str:
        return f"GPU-{card.bus}"

    def answer_device_get_memory_bus_width(self, card: FakeCard) -> int:
        return 384

    def answer_device_get_max_clock_info(self, card: FakeCard, clock: int) -> int:
        assert clock == self.NVML_CLOCK_MEM
        return 10501

    def answer_device_get_compute_running_processes(self, card: FakeCard) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.pids.items()]

    answer_device_get_graphics_running_processes = answer_device_get_compute_running_processes

    def answer_system_get_process_name(self, pid: int) -> bytes:
        if pid == 13:
            raise NVMLError("No Permission")
        return b"/usr/bin/python3"


def install(monkeypatch: pytest.MonkeyPatch, *cards: FakeCard, driver: bool = True) -> FakeNvml:
    fake = FakeNvml(*cards, driver=driver)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_card_as_the_driver_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, FakeCard(free=20000 * MIB, pids={7: 3000 * MIB, 13: None}))
    (card,) = gpus()
    assert (card.name, card.memory, card.free, card.assumed) == ("RTX 4090", 24564 * MIB, 20000 * MIB, False)
    assert (card.capability, card.uuid, card.index, card.bandwidth) == ("8.9", "GPU-1", 0, 1008.1)
    assert [(one.pid, one.name, one.used) for one in card.processes] == [
        (7, "/usr/bin/python3", 3000 * MIB),
        (13, "pid 13", None),
    ]
    assert fake.open == 0


def test_cards_come_in_pci_order(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCard(bus=65), FakeCard("NVIDIA GeForce RTX 3060", bus=3, total=12 * GIB, free=11 * GIB))
    assert [(card.name, card.index) for card in gpus()] == [("RTX 3060 12GB", 0), ("RTX 4090", 1)]


def test_empty_leaves_out_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCard(free=100 * MIB, pids={7: 23 * GIB}))
    (card,) = gpus(empty=True)
    assert card.processes == ()
    assert card.free == card.memory - round(0.6 * GIB)
    install(monkeypatch, FakeCard(free=24500 * MIB))
    assert gpus(empty=True)[0].free == 24500 * MIB


def test_no_driver_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, driver=False)
    assert gpus() == []


@pytest.mark.parametrize("fault", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo"])
def test_a_failed_card_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    install(monkeypatch, FakeCard(broken=(fault,)), FakeCard(bus=2))
    assert [card.uuid for card in gpus()] == ["GPU-2"]


@pytest.mark.parametrize(
    "fault", ["nvmlDeviceGetUUID", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetComputeRunningProcesses"]
)
def test_what_a_card_does_not_say_is_not_needed(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    install(monkeypatch, FakeCard(broken=(fault, "nvmlDeviceGetMemoryBusWidth")))
    (card,) = gpus()
    assert (card.memory, card.bandwidth) == (24564 * MIB, 1008)


def test_a_divided_card_is_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    part = FakeCard("NVIDIA A100-SXM4-80GB MIG 1g.10gb", bus=9, total=10 * GIB, free=9 * GIB)
    install(monkeypatch, FakeCard("NVIDIA A100-SXM4-80GB", instances=[part, part]), FakeCard(bus=2))
    found = gpus()
    assert [card.memory for card in found] == [10 * GIB, 10 * GIB, 24564 * MIB]
    assert [card.index for card in found] == [0, 1, 2]


def test_the_real_library_answers_with_a_list() -> None:
    assert isinstance(hydra_infer.gpus(), list)

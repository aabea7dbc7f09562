"""Energy by one fake of NVML: the sum over cards, and None wherever a part of it is missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from hydra_infer.hardware.energy import EnergyMeter


class FakeNvml:
    """Cards with a counter in millijoules each; None: that card does not count."""

    class NVMLError(Exception):
        """Says no."""

    def __init__(self, *counters: int | None, driver: bool = True) -> None:
        self.counters, self.driver, self.open = list(counters), driver, 0
        self.nvmlDeviceGetCount = lambda: len(self.counters)
        self.nvmlDeviceGetHandleByIndex = lambda index: index
        self.nvmlInit, self.nvmlShutdown = self.init, self.shutdown
        self.nvmlDeviceGetTotalEnergyConsumption = self.energy

    def init(self) -> None:
        if not self.driver:
            raise self.NVMLError
        self.open += 1

    def shutdown(self) -> None:
        self.open -= 1

    def energy(self, index: int) -> Any:
        if self.counters[index] is None:
            raise self.NVMLError
        return self.counters[index]


def test_it_is_the_sum_over_the_cards_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(1_500, 2_000)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with EnergyMeter() as meter:
        assert meter.joules() == 3.5
        nvml.counters[0] = 4_500
        assert meter.joules() == 6.5
        assert nvml.open == 1
    assert (nvml.open, meter.joules()) == (0, None)


@pytest.mark.parametrize(
    "nvml", [FakeNvml(), FakeNvml(1, driver=False), FakeNvml(1_000, None)], ids=["no card", "no driver", "old"]
)
def test_what_nobody_counts_is_none(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with EnergyMeter() as meter:
        assert meter.joules() is None
    assert nvml.open == 0

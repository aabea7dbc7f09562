"""The energy that this machine's cards have used, as NVIDIA's management library (NVML) counts it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

__all__ = ["EnergyMeter"]


class EnergyMeter:
    """Open it, and ask before and after the work; the difference is the work's, idle cards and their other users included."""

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._cards: list[Any] | None = None

    def joules(self) -> float | None:
        """Joules of all cards since the driver was loaded (NVML counts millijoules, from Volta on).

        None without a card or a driver, or where one of the cards does not count.
        """
        try:
            return (
                sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(card) for card in self._cards) / 1000 if self._cards else None
            )
        except self._nvml.NVMLError:
            return None

    def __enter__(self) -> Self:
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError:
            return self  # no driver: nothing to count
        self._cards = [self._nvml.nvmlDeviceGetHandleByIndex(place) for place in range(self._nvml.nvmlDeviceGetCount())]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._cards is not None:
            self._nvml.nvmlShutdown()
            self._cards = None

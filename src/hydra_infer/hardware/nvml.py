"""The cards of this machine, as NVIDIA's management library (NVML) tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..units import Size
from .gpu import ASSUMED_IN_USE, Gpu, GpuProcess

__all__ = ["gpus"]

T = TypeVar("T")


def gpus(empty: bool = False) -> list[Gpu]:
    """The NVIDIA cards of this machine in PCI bus order; [] without a card or a driver.

    `empty=True` answers as if nothing ran on them: no processes, and free is all but what a driver keeps.
    A card that fails to answer is left out; one divided by MIG is listed as its instances, for those are what CUDA sees.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, or one that is being replaced: for a planner the same as no card
    try:
        found: list[Gpu] = []
        for handle in _in_pci_order(pynvml):
            for device in _mig_instances(pynvml, handle) or [handle]:
                card = _quiet(pynvml, _read, pynvml, device, len(found), empty)
                if card is not None:
                    found.append(card)
        return found
    finally:
        pynvml.nvmlShutdown()


def _quiet(nvml: Any, ask: Callable[..., T], *arguments: Any) -> T | None:
    """One NVML question; None where this card, driver or system does not answer it."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _in_pci_order(nvml: Any) -> list[Any]:
    cards = []
    for position in range(_quiet(nvml, nvml.nvmlDeviceGetCount) or 0):
        handle = _quiet(nvml, nvml.nvmlDeviceGetHandleByIndex, position)
        bus = None if handle is None else _quiet(nvml, nvml.nvmlDeviceGetPciInfo, handle)
        if bus is not None:
            cards.append(((bus.domain, bus.bus, bus.device), handle))
    return [handle for _, handle in sorted(cards, key=lambda card: card[0])]


def _mig_instances(nvml: Any, handle: Any) -> list[Any]:
    mode = _quiet(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return []
    count = _quiet(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    asked = (_quiet(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
    return [instance for instance in asked if instance is not None]


def _read(nvml: Any, handle: Any, index: int, empty: bool) -> Gpu:
    info = nvml.nvmlDeviceGetMemoryInfo(handle)
    total, free = Size(info.total), Size(info.free)
    capability = _quiet(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    uuid = _quiet(nvml, nvml.nvmlDeviceGetUUID, handle)
    return Gpu(
        _text(nvml.nvmlDeviceGetName(handle)),
        memory=total,
        free=max(free, Size(total - ASSUMED_IN_USE)) if empty else free,
        bandwidth=_bandwidth(nvml, handle),
        capability=None if capability is None else "{}.{}".format(*capability),
        processes=() if empty else sorted(_processes(nvml, handle), key=lambda one: -(one.used or 0)),
        index=index,
        uuid=None if uuid is None else _text(uuid),
    )


def _bandwidth(nvml: Any, handle: Any) -> float | None:
    """GB/s from bus width (bits) and memory clock (MHz, two transfers each): 384 bit at 9751 MHz is the 3090's 936.

    None where the card does not say; a name in the catalogue then gives it.
    """
    width = _quiet(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    clock = _quiet(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    return round(2 * width * clock / 8 / 1000, 1) if width and clock else None


def _processes(nvml: Any, handle: Any) -> Iterator[GpuProcess]:
    seen: set[int] = set()
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _quiet(nvml, ask, handle) or []:
            if process.pid not in seen:
                seen.add(process.pid)
                name = _quiet(nvml, nvml.nvmlSystemGetProcessName, process.pid)
                used = process.usedGpuMemory
                yield GpuProcess(
                    process.pid,
                    f"pid {process.pid}" if name is None else _text(name),
                    None if used is None else Size(used),
                )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value

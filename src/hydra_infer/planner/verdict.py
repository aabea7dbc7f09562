"""What a plan says in sentences: why it fits or not, what to do about it, and what its numbers rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..hardware.gpu import Gpu
from ..units import GIB, Size
from .cpu_experts import cpu_experts
from .suggest import suggestions

if TYPE_CHECKING:
    from .report import Plan
    from .usage import DeviceUse

__all__ = ["remarks", "verdict", "warnings", "why"]


def why(plan: Plan) -> str:
    """One sentence: what decides; and where it does not fit, who holds the memory and what would help."""
    said = verdict(plan)
    if plan.fits:
        return said
    if cause := _held(plan):
        return f"{said}; {cause}"
    first = next(suggestions(plan), None)
    if first is None and (moved := cpu_experts(plan)):
        return f"{said}; {moved.why}"
    if first is None:
        return f"{said}; no other setting is enough: it takes {'more RAM' if not plan.host_use.fits else 'another card'}"
    changes = [f"{name}={value!r}" for name, value in first.change.items()]
    return f"{said}; {' and '.join(changes)} {'fits' if len(changes) == 1 else 'fit'}"


def verdict(plan: Plan) -> str:
    """The figures that decide, without a next step: no other plan is made for it."""
    host = plan.host_use
    if not host.fits:
        return f"needs {plan.host} of system RAM, {host.available} are available"
    if short := [device for device in plan.devices if not device.fits]:
        return "; ".join(_shortage(device) for device in short)
    if not plan.devices:
        return f"fits in system RAM: needs {plan.host}" + ("" if host.available is None else f" of {host.available}")
    used = ", ".join(f"{use.gpu.name} {use.needed} of {use.free}" for use in plan.devices if use.used)
    return f"fits: {used}"


def _shortage(use: DeviceUse) -> str:
    if use.allowed is not None and use.loaded - use.draft > use.allowed:
        return f"needs {Size(use.loaded - use.draft)} on {use.gpu.name}, gpu_split allows {use.allowed}"
    text = f"needs {use.needed} on {use.gpu.name}, has {use.free}"
    if use.left >= 0:
        return f"{text}, of which {use.reserve} must stay free: {Size(use.reserve - use.left)} too little"
    return f"{text}: {Size(-use.left)} too little"


def _held(plan: Plan) -> str | None:
    """Who to end, where the plan would fit without the processes that NVML saw on the cards."""
    freed = [_without_processes(gpu) for gpu in plan.request.gpus]
    holders = [f"{_holders(gpu)} on {gpu.name}" for gpu, empty in zip(plan.request.gpus, freed, strict=True) if empty != gpu]
    if not holders or not plan.replan(gpus=freed).fits:
        return None
    return f"it fits without {'; '.join(holders)}"


def _without_processes(gpu: Gpu) -> Gpu:
    """The card as it is once they have ended; itself where nobody says how much they hold."""
    held = sum(process.used or 0 for process in gpu.processes)
    if not held:
        return gpu
    return Gpu(
        gpu.name,
        memory=gpu.memory,
        free=Size(min(gpu.memory, gpu.free + held)),
        bandwidth=gpu.bandwidth,
        capability=gpu.capability,
        overhead=gpu.overhead,
        index=gpu.index,
        uuid=gpu.uuid,
    )


def _holders(gpu: Gpu) -> str:
    return ", ".join(
        f"{process.name} (pid {process.pid}){'' if process.used is None else f' {process.used}'}" for process in gpu.processes
    )


def remarks(plan: Plan) -> Iterator[str]:
    """What else there is to say of a plan that fits: how fast it decodes, and whether its draft pays."""
    if plan.fits:
        yield str(plan.speed)
    if plan.draft is not None and plan.draft.pays:
        yield f"draft: {plan.draft.why}"


def warnings(plan: Plan, *, shared_memory: Size | None = None) -> Iterator[str]:
    """What the numbers rest on that may not be so, and settings that are unsafe although the sums fit.

    `shared_memory` is what /dev/shm has free, where that is known.
    """
    request, spec = plan.request, plan.request.spec
    trained = spec.geometry.trained_context
    if trained is not None and request.context > trained:
        yield f"context {request.context} is beyond the {trained} tokens the model was trained for"
    if not spec.tensors:
        yield f"weights are computed from config.json at {spec.bpw:g} bits per weight: there are no files to read"
    elif other := request.weights.other:
        yield f"{other} in the files are not counted: no layer of the text model uses them"
    if spec.missing:
        yield f"{spec.path} has no {spec.missing}: exllamav3 does not load {spec.geometry.architecture} without it"
    for use in plan.devices:
        if use.gpu.processes:
            yield f"{use.gpu.name} is in use: {_holders(use.gpu)}"
    yield from _unsafe_grants(plan)
    shared = plan.host_use.shared
    if shared and shared_memory is None:
        yield f"loading takes {shared} of shared memory (/dev/shm on Linux, where Docker gives 64 MiB unless told otherwise)"
    elif shared_memory is not None and shared > shared_memory:
        yield f"loading takes {shared} of shared memory, and /dev/shm has {shared_memory} free (Docker: --shm-size)"
    if (draft := plan.draft) is not None and not draft.pays:
        yield f"the draft {'does not pay' if draft.valid else 'is not valid'}: {draft.why}"
    if assumed := [use.gpu.name for use in plan.devices if use.gpu.assumed]:
        yield f"free memory is assumed, not measured: {', '.join(assumed)}"


def _unsafe_grants(plan: Plan) -> Iterator[str]:
    """Shares of a manual split beyond what a card has: a loader that believes them runs out of memory later, in use."""
    for use in plan.devices:
        usable = Size(use.free - use.overhead)
        if use.allowed is not None and use.used and use.allowed > usable:
            most = math.floor(max(0, usable) / GIB * 10) / 10
            yield (
                f"gpu_split grants {use.allowed} on {use.gpu.name}, {Size(use.allowed - usable)} more than is usable there "
                f"({use.free} free less {use.overhead} overhead): unsafe, {most:g} is the most"
            )

"""How many layers of a mixture must keep their experts in system RAM so that the rest fits on the cards.

Source: exllamav3 1.6.5, model_init.py and modules/block_sparse_mlp_cpu.py: moe_cpu_offload runs the routed experts of the
first N mixture layers on the CPU, in a layer split only, and only experts of the mul1 codebook, its converter's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..units import Size
from .modules import Module
from .solver import largest

if TYPE_CHECKING:
    from .report import Plan

__all__ = ["CpuExperts", "cpu_experts"]


@dataclass(frozen=True, slots=True)
class CpuExperts:
    """The experts of the first `layers` mixture layers in system RAM, `size` bytes there; `plan` is the rest, and fits.

    exllamav3 calls the number moe_cpu_offload, TabbyAPI cpu_moe_offload_layers. The speed of such a plan is not predicted.
    """

    layers: int
    size: Size
    why: str
    plan: Plan


def cpu_experts(plan: Plan) -> CpuExperts | None:
    """The fewest layers that help, None for a plan that fits, a model that is no EXL3 mixture, or where all are too few."""
    if plan.fits or plan.request.spec.format != "exl3" or plan.request.drafter is not None:
        return None
    names = plan.request.spec.tensors
    sizes = [_experts(module) for module in plan.request.weights.modules if module.layer is not None]
    mixtures = [index for index, size in enumerate(sizes) if size]
    if not mixtures or (names and not any(name.endswith(".mul1") for name in names)):
        return None
    kept = largest(lambda count: _without(plan, sizes, mixtures[: len(mixtures) - count]).fits, 0, len(mixtures) - 1)
    if kept is None:
        return None
    moved = mixtures[: len(mixtures) - kept]
    rest, size = _without(plan, sizes, moved), Size(sum(sizes[index] for index in moved))
    why = (
        f"with the experts of the first {len(moved)} of {len(mixtures)} mixture layers in system RAM ({size}) the rest fits: "
        f"moe_cpu_offload={len(moved)}, {rest.host} of RAM in all"
    )
    return CpuExperts(len(moved), size, why, rest)


def _experts(module: Module) -> int:
    """Bytes of the routed experts of one block."""
    return sum(matrix.nbytes for part in module.parts for matrix in part.matrices if "{expert}" in matrix.name)


def _without(plan: Plan, sizes: Sequence[int], moved: Sequence[int]) -> Plan:
    """The plan, layer after layer, with the experts of these layers in RAM."""
    request = plan.request if plan.request.split == "layers" else plan.replan(split="layers").request
    weights, gone = request.weights, set(moved)
    layers = tuple(
        replace(layer, mlp=Size(layer.mlp - sizes[index])) if index in gone else layer
        for index, layer in enumerate(weights.layers)
    )
    embedding = Size(weights.embedding + sum(sizes[index] for index in moved))
    return type(plan).of(replace(request, weights=replace(weights, layers=layers, embedding=embedding)))

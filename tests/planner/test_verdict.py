"""The sentences: what decides, who holds the memory, what would help, and what is unsafe although it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic import LLAMA_1B, LLAMA_70B

from hydra_infer import Gpu, Plan
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.planner.verdict import verdict
from hydra_infer.units import GIB, Size


def plan(config: dict[str, Any] = LLAMA_70B, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=4.0)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments)))


def held(free: float, *processes: GpuProcess) -> Gpu:
    return Gpu("RTX 5090", free=free, processes=processes)


def test_a_process_that_holds_what_is_missing_is_the_cause() -> None:
    holder = GpuProcess(4242, "tabbyAPI", Size(22 * GIB))
    p = plan(gpus=[held(8.5, holder), Gpu("RTX 4090", free=23.4)], context=32768)
    use = p.devices[1]
    assert not p.fits
    assert p.why == (
        f"needs {use.needed} on RTX 4090, has 23.4 GiB: {Size(-use.left)} too little; "
        "it fits without tabbyAPI (pid 4242) 22.0 GiB on RTX 5090"
    )
    assert any(warning == "RTX 5090 is in use: tabbyAPI (pid 4242) 22.0 GiB" for warning in p.warnings)


def test_a_process_that_is_not_the_cause_is_not_blamed() -> None:
    desktop = GpuProcess(7, "Xorg", Size(GIB // 4))
    p = plan(gpus=[held(30.9, desktop), Gpu("RTX 4090", free=23.4)], context=65536)
    assert "Xorg" not in p.why
    assert p.why.endswith("; cache='q8' fits")


def test_a_process_whose_share_nobody_knows_is_no_proof() -> None:
    p = plan(gpus=[held(8.5, GpuProcess(1, "python")), Gpu("RTX 4090", free=23.4)], context=32768)
    assert "without" not in p.why
    assert "RTX 5090 is in use: python (pid 1)" in p.warnings


def test_where_nothing_helps() -> None:
    assert plan(gpus="RTX 3060").why.endswith("too little; no other setting is enough: it takes another card")
    assert verdict(plan(gpus="RTX 3060")).endswith("too little")


def test_a_share_larger_than_the_card_can_hold_is_unsafe() -> None:
    p = plan(gpu_split=[28, 24], context=32768)
    grant = next(warning for warning in p.warnings if warning.startswith("gpu_split"))
    use = p.devices[1]
    usable = Size(use.free - use.overhead)
    assert grant == (
        f"gpu_split grants 24.0 GiB on RTX 4090, {Size(24 * GIB - usable)} more than is usable there "
        f"({use.free} free less {use.overhead} overhead): unsafe, 22.3 is the most"
    )
    assert usable / GIB > 22.3
    assert not any("RTX 5090" in warning for warning in p.warnings if warning.startswith("gpu_split"))
    assert not any(warning.startswith("gpu_split") for warning in plan(gpu_split=[28, 22]).warnings)
    assert not any(warning.startswith("gpu_split") for warning in plan(LLAMA_1B, gpu_split=[10, 24]).warnings)


def test_the_speed_is_said_of_what_fits() -> None:
    fitting = plan(context=32768)
    assert str(fitting.speed) in str(fitting).splitlines()
    assert str(fitting.speed) in fitting._repr_mimebundle_()["text/html"]
    assert "tokens/s" not in str(plan(context=131072))

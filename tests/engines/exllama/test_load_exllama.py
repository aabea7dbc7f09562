"""load() of an EXL3 or EXL2 folder: planned on the real cards, refused or warned about first, reported after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from engines.exllama.fake_runner import FakeRunner
from engines.exllama.test_preflight import GOOD

import hydra_infer as hydra
from hydra_infer.engines.exllama import load as room
from hydra_infer.engines.exllama.seam import Extras
from hydra_infer.errors import ConfigError, DoesNotFit, IncompatibleDraft, LoadError
from hydra_infer.hardware import nvml
from hydra_infer.hardware.gpu import Gpu
from hydra_infer.units import GIB, Size

pytestmark = pytest.mark.usefixtures("no_leaks")


class Machine:
    """Two cards, and an engine that takes 1 GiB of the first when it opens."""

    def __init__(self) -> None:
        self.around = GOOD
        self.free = [31.0, 23.0]
        self.opened: list[tuple[hydra.Plan, Extras]] = []
        self.fault: Exception | None = None
        self.runner = FakeRunner()

    def gpus(self) -> list[Gpu]:
        names = ["RTX 5090", "RTX 4090"]
        return [Gpu(name, free=self.free[at], index=at, uuid=f"GPU-{'ab'[at]}") for at, name in enumerate(names)]

    def open_runner(self, plan: hydra.Plan, extras: Extras, report: Any) -> FakeRunner:
        self.opened.append((plan, extras))
        for module in range(3):
            report((module + 1) / 3, f"module {module}")
        if self.fault is not None:
            raise self.fault
        self.free[0] -= 1.0
        return self.runner


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(room, "look", lambda _engine: replace(machine.around, cards=machine.gpus()))
    monkeypatch.setattr(nvml, "gpus", machine.gpus)
    monkeypatch.setattr(room, "_opener", lambda _engine: machine.open_runner)
    return machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.exl3(tmp_path / "Llama-3.2-1B-4.0bpw", synthetic.LLAMA_1B, 4.0)


def test_without_cuda_one_sentence_says_what_is_missing_and_what_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "gpus", list)
    with pytest.raises(LoadError) as caught:
        hydra.load(folder)
    assert "needs exllamav3, which runs on NVIDIA cards with CUDA, and CUDA shows none here" in str(caught.value)
    assert "hydra_infer.load('model.gguf')" in str(caught.value)


def test_the_plan_the_extras_and_the_report(folder: Path, machine: Machine) -> None:
    told: list[tuple[float, str]] = []
    with hydra.load(
        folder,
        context=4096,
        cache="q4",
        slots=2,
        dynamic_draft=False,
        options={"cpu_cache_size": 1},
        progress=lambda *one: told.append(one),
    ) as engine:
        ((plan, extras),) = machine.opened
        assert (plan.request.context, plan.request.rate.name, plan.request.slots) == (4096, "q4", 2)
        assert plan.request.gpus == tuple(machine.gpus()) or plan.request.gpus[0].free == Size(31 * GIB)
        assert extras == Extras(ordinals=(0, 1), options={"cpu_cache_size": 1})
        assert told == [((module + 1) / 3, f"module {module}") for module in range(3)]
        assert engine.generate("x").text == "hello"
        report = engine.load_report
        assert report is not None
        first, second = report.devices
        use = plan.devices[0]
        assert first.actual == GIB
        assert first.predicted == use.weights + use.cache + use.overhead_range.likely
        assert first.error == (first.predicted - GIB) / GIB
        assert (second.predicted, second.actual, second.error) == (0, 0, None)
        assert "RTX 5090 (0): predicted" in str(report)
        assert json.loads(json.dumps(report.to_dict()))["devices"][0]["actual_bytes"] == GIB
    assert machine.runner.calls[-1] == "close"


def test_named_cards_are_found_among_the_real_ones(folder: Path, machine: Machine) -> None:
    with hydra.load(folder, gpus=["RTX 4090"]):
        ((plan, extras),) = machine.opened
    assert [card.uuid for card in plan.request.gpus] == ["GPU-b"]
    assert plan.request.gpus[0].free == Size(23 * GIB)  # what is free, not what the catalogue assumes
    assert extras.ordinals == (1,)
    with pytest.raises(ConfigError, match="RTX 3090 is not among the cards"):
        hydra.load(folder, gpus=["RTX 3090"])


def test_a_plan_is_made_again_with_the_memory_that_is_free_now(folder: Path, machine: Machine) -> None:
    plan = hydra.plan(folder, gpus=["RTX 4090"], context=4096, cache="q8")
    machine.free[1] = 20.0
    with hydra.load(plan):
        ((again, _),) = machine.opened
    assert (again.request.context, again.request.rate.name) == (4096, "q8")
    assert again.devices[0].free == Size(20 * GIB)
    machine.free[1] = 0.5
    with pytest.raises(DoesNotFit):
        hydra.load(plan)


def test_what_cannot_fit_is_refused_unless_forced(folder: Path, machine: Machine) -> None:
    machine.free = [1.0, 1.0]
    with pytest.raises(DoesNotFit) as caught:
        hydra.load(folder, context="128k")
    assert not caught.value.plan.fits
    assert machine.opened == []
    machine.free = [1.5, 1.5]
    with hydra.load(folder, context="128k", force=True):
        assert not machine.opened[0][0].fits


def test_a_draft_that_cannot_speak_for_the_model_is_refused(tmp_path: Path, folder: Path, machine: Machine) -> None:
    draft = synthetic.exl3(tmp_path / "draft", {**synthetic.LLAMA_1B, "vocab_size": 32000}, 4.0)
    with pytest.raises(IncompatibleDraft, match="cannot draft for"):
        hydra.load(folder, draft=draft)
    assert machine.opened == []


def test_what_will_surprise_is_warned_of_before_loading(folder: Path, machine: Machine) -> None:
    machine.around = replace(GOOD, extension=False)
    with pytest.warns(UserWarning, match="not built yet"):
        engine = hydra.load(folder)
    engine.close()
    assert engine.load_report is not None
    assert "not built yet" in engine.load_report.warnings[0]
    assert "warning: " in str(engine.load_report)


def test_a_load_that_fails_leaves_nothing(folder: Path, machine: Machine) -> None:
    machine.fault = LoadError("a truncated file")
    with pytest.raises(LoadError, match="a truncated file"):
        hydra.load(folder)


def test_an_interrupted_load_is_cancelled(folder: Path, machine: Machine) -> None:
    def interrupt(fraction: float, _message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hydra.load(folder, progress=interrupt)


def test_a_backend_that_does_not_exist(folder: Path, machine: Machine) -> None:
    with pytest.raises(ConfigError, match=r"backend='gloo'.*'native' or 'nccl'"):
        hydra.load(folder, backend="gloo")


def test_threads_are_for_the_cpu(folder: Path) -> None:
    with pytest.raises(ConfigError, match="threads=4 does not apply: exllamav3 runs on cards"):
        hydra.load(folder, threads=4)


@pytest.mark.parametrize(
    ("make", "engine", "route"),
    [
        (synthetic.exl3, "exllamav2", "engine='exllamav3' does.*want an EXL2 or a GGUF"),
        (synthetic.exl2, "exllamav3", "engine='exllamav2' does.*EXL2 cannot be converted"),
        (synthetic.exl3, "llamacpp", "engine='exllamav3' does"),
    ],
)
def test_a_format_for_another_engine_says_what_to_do_instead(tmp_path: Path, make: Any, engine: str, route: str) -> None:
    with pytest.raises(LoadError, match=route):
        hydra.load(make(tmp_path / "model", synthetic.LLAMA_1B, 4.0), engine=engine)

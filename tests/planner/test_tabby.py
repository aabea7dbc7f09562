"""TabbyAPI's config.yml, read back: it says what was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from synthetic import LLAMA_1B, LLAMA_70B

from hydra_infer import ConfigError, DoesNotFit, Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.drafter import model_drafter
from hydra_infer.planner.request import Request


def plan(config: dict[str, Any] = LLAMA_70B, form: str = "exl3", path: str = "models/m", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path(path), form, geometry_of(config, Path("m")), bpw=4.0)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments)))


def read(p: Plan) -> dict[str, Any]:
    data = YAML(typ="safe").load(p.tabby_config())
    assert isinstance(data, dict)
    return data


def test_two_cards() -> None:
    p = plan(context=32000, cache="8,4", reserve=[1, 0.5], chunk=1024)
    assert read(p) == {
        "model": {
            "model_dir": "models",
            "model_name": "m",
            "max_seq_len": 32000,
            "cache_size": 33024,
            "cache_mode": "8,4",
            "chunk_size": 1024,
            "gpu_split_auto": True,
            "autosplit_reserve": [1024, 512],
        }
    }


@pytest.mark.parametrize("context", [4096, 8000, 30001])
def test_a_context_and_a_chunk_fit_into_the_cache(context: int) -> None:
    p = plan(context=context)
    model = read(p)["model"]
    assert model["cache_size"] % 256 == 0
    assert 0 <= model["cache_size"] - context - model["chunk_size"] < 256
    assert model["cache_size"] == p.replan(engine="tabby").cache_tokens


@pytest.mark.parametrize(("cache", "mode"), [("fp16", "FP16"), ("q8", "8,8"), ("q4", "4,4"), ("6,5", "6,5")])
def test_cache_modes(cache: str, mode: str) -> None:
    assert read(plan(cache=cache))["model"]["cache_mode"] == mode


def test_a_manual_split_loads_as_counted() -> None:
    p = plan(gpu_split=[20, 22])
    model = read(p)["model"]
    assert model["gpu_split_auto"] is False
    again = p.replan(engine="tabby", gpu_split=model["gpu_split"])
    assert [use.layers for use in again.devices] == [use.layers for use in p.replan(engine="tabby").devices]
    assert again.fits


def test_tensor_parallel() -> None:
    model = read(plan(split="tensor"))["model"]
    assert (model["tensor_parallel"], model["tensor_parallel_backend"]) == (True, "native")
    assert not {"gpu_split_auto", "autosplit_reserve"} & model.keys()
    model = read(plan(split="tensor", gpu_split=[26, 20]))["model"]
    assert (model["gpu_split_auto"], model["gpu_split"]) == (False, [26, 20])
    assert "tensor_parallel" not in read(plan())["model"]


def test_one_of_two_cards() -> None:
    p = plan(LLAMA_1B)
    assert p.split == "single"
    first, second = read(p)["model"]["gpu_split"]
    assert first > 0
    assert second == 0


def test_a_single_card_has_nothing_to_split() -> None:
    assert not {"gpu_split", "gpu_split_auto", "autosplit_reserve"} & read(plan(LLAMA_1B, gpus="RTX 4090"))["model"].keys()


def test_slots_are_written_when_asked_for() -> None:
    assert "max_batch_size" not in read(plan())["model"]
    assert read(plan(slots=4))["model"]["max_batch_size"] == 4


def test_a_draft_has_a_block_of_its_own() -> None:
    small = ModelSpec("small", Path("drafts/small"), "exl3", geometry_of(LLAMA_1B, Path("m")), bpw=4.0)
    drafter = model_drafter(plan().request.spec, small, (None, True))
    p = plan(draft=drafter, draft_tokens=3, cache="q8", context=16384)
    assert read(p)["draft_model"] == {
        "draft_mode": "model",
        "draft_num_tokens": 3,
        "draft_model_dir": "drafts",
        "draft_model_name": "small",
        "draft_cache_mode": "Q8",
    }
    assert read(plan(draft="ngram"))["draft_model"] == {"draft_mode": "ngram", "draft_num_tokens": 4}
    assert "draft_model" not in read(plan())
    with pytest.raises(ConfigError, match="cache='8,4': TabbyAPI has no such cache for a draft"):
        plan(draft=drafter, cache="8,4").tabby_config()


def test_the_comments_name_the_cards() -> None:
    text = plan(LLAMA_1B, path="a: b/#m").tabby_config()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in text
    assert "#   0: RTX 5090: " in text
    assert "#   1: RTX 4090: not used" in text
    assert YAML(typ="safe").load(text)["model"]["model_name"] == "#m"


def test_exllamav2_keeps_its_own_names() -> None:
    p = plan(form="exl2", cache="q6", context=16384, reserve=[1, 0.5])
    model = read(p)["model"]
    assert (model["cache_mode"], model["autosplit_reserve"]) == ("Q6", [1024, 512])
    assert "exl2-checkpoint" in p.tabby_config()
    with pytest.raises(ConfigError, match="fills RTX 3060 12GB first, and this plan wants RTX 4090 alone"):
        plan(LLAMA_1B, "exl2", gpus=["RTX 3060", "RTX 4090"]).tabby_config()


def test_what_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="gguf, which TabbyAPI does not load"):
        plan(LLAMA_1B, "gguf").tabby_config()
    with pytest.raises(DoesNotFit):
        plan(context=65536).tabby_config()
    exact = plan(gpus=[Gpu("RTX 5090"), Gpu("RTX 4090")])
    longest = exact.replan(context=exact.max_context)
    assert longest.fits
    with pytest.raises(DoesNotFit, match="fits, but not with the chunk of 2048 tokens") as caught:
        longest.tabby_config()
    shorter = longest.replan(context=caught.value.plan.max_context)
    assert f"context={shorter.request.context} " in str(caught.value)
    assert read(shorter)["model"]["max_seq_len"] == shorter.request.context

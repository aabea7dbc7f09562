"""The Plan as people and programs see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B, LLAMA_70B

from hydra_infer import ConfigError, DoesNotFit, Gpu, Plan
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.units import GIB, Size


def plan(config: dict[str, Any] = LLAMA_70B, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("Llama-70B", Path("m"), form, geometry_of(config, Path("m")), bpw=4.0)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"]} | arguments)))


def test_the_table() -> None:
    lines = str(plan(context=32768)).splitlines()
    assert lines[0] == "Llama-70B (exl3, exllamav3), context 32768, cache fp16, split layers"
    assert lines[1].split() == ["weights", "cache", "transient", "overhead", "needed", "free", "left"]
    assert lines[2].startswith("RTX 5090 ")
    assert lines[4].startswith("system RAM")
    assert lines[5].startswith("fits: RTX 5090 ")
    assert len({len(line) for line in lines[1:4]}) == 1
    assert lines[4].split()[-2:] == ["2.0", "GiB"]
    assert len(lines[4]) == lines[1].index("needed") + len("needed")  # what is needed stands under the cards'
    assert "note: weights are computed from config.json at 4 bits per weight" in str(plan())
    assert repr(plan(split="single")).startswith("<Plan Llama-70B: needs ")


def test_plain_data() -> None:
    p = plan()
    data = json.loads(p.to_json())
    assert data == p.to_dict()
    assert data["devices"][0]["weights_bytes"] == p.devices[0].weights
    assert data["devices"][0]["overhead_range_bytes"][2] == p.devices[0].overhead
    assert data["host"]["needed_bytes"] == p.host
    numbers = {key for part in (*data["devices"], data["host"]) for key, value in part.items() if isinstance(value, int)}
    assert {key for key in numbers if not key.endswith("_bytes")} == {"layers", "free_is_assumed"}
    assert (data["fits"], data["split"], data["gpu_split"]) == (True, "layers", p.gpu_split)


def test_plain_data_does_not_change_by_accident() -> None:
    assert list(plan().to_dict()) == [
        "model",
        "format",
        "architecture",
        "engine",
        "context",
        "cache",
        "cache_tokens",
        "longest_prompt",
        "slots",
        "chunk",
        "split",
        "gpu_split",
        "fits",
        "why",
        "speed",
        "draft",
        "devices",
        "host",
        "warnings",
    ]


def test_a_picture() -> None:
    spec = ModelSpec("<m>", Path("m"), "exl3", geometry_of(LLAMA_1B, Path("m")), bpw=4.0)
    bundle = Plan.of(Request.of(spec, gpus=[Gpu("<b>", memory=24)]))._repr_mimebundle_(include=None)
    assert set(bundle) == {"text/plain", "text/html"}
    assert "<b>" not in bundle["text/html"]
    assert "<m>" not in bundle["text/html"]
    assert bundle["text/html"].count('title="') == 4  # weights, cache, transient, overhead


def test_changing_one_thing() -> None:
    p = plan(context=8192)
    assert p.replan() == p
    more = p.replan(context="16k", cache="q4", gpus=["RTX 4090", "RTX 4090"], slots=2)
    assert (more.request.context, more.request.rate.name, more.request.slots) == (16384, "q4", 2)
    assert p.request.context == 8192
    split = p.replan(gpu_split=[20, 20])
    assert split.replan(reserve=1).request.gpu_split is None
    assert split.replan(split="single").split == "single"
    assert split.replan(context=4096).request.gpu_split == (20 * GIB, 20 * GIB)
    assert p.replan(reserve=2).replan(gpu_split=[20, 20]).request.reserve is None


def test_what_replan_does_not_change() -> None:
    for change, problem in (
        ({"bpw": 3.0}, "replan keeps the model: bpw="),
        ({"contxt": 3}, "no argument 'contxt'"),
        ({"draft": "some/folder"}, "is not read here"),
        ({"context": 0}, "context=0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            plan().replan(**change)


@pytest.mark.parametrize("form", ["exl3", "exl2", "gguf"])
def test_the_longest_context(form: str) -> None:
    p = plan(form=form)
    longest = p.max_context
    assert longest % 256 == 0
    assert 8192 < longest < 131072
    assert p.replan(context=longest).fits
    assert not p.replan(context=longest + 1).fits


def test_the_longest_context_ends_where_training_did() -> None:
    assert plan(LLAMA_1B).max_context == 131072
    assert plan(gpus="RTX 3060").max_context == 0
    untold = {key: value for key, value in LLAMA_1B.items() if key != "max_position_embeddings"}
    assert plan(untold, cache="q2", gpus=[Gpu("x", memory=500)]).max_context == 2**20


def test_refusing_to_go_on() -> None:
    assert plan().raise_if_unfit().fits
    p = plan(gpus="RTX 3060")
    with pytest.raises(DoesNotFit, match="Llama-70B does not fit: needs") as caught:
        p.raise_if_unfit()
    assert caught.value.plan is p
    assert caught.value.hint


def test_warnings() -> None:
    holder = GpuProcess(42, "python", Size(3 * GIB))
    quiet = GpuProcess(43, "Xorg")
    p = plan(gpus=[Gpu("RTX 5090", free=20, processes=[holder, quiet]), "RTX 4090"], context=200_000)
    assert p.warnings == (
        "context 200000 is beyond the 131072 tokens the model was trained for",
        "weights are computed from config.json at 4 bits per weight: there are no files to read",
        "RTX 5090 is in use: python (pid 42) 3.0 GiB, Xorg (pid 43)",
        "free memory is assumed, not measured: RTX 4090",
    )


def test_more_bits_and_more_context_never_need_less() -> None:
    def needed(**arguments: Any) -> int:
        return plan(gpus=[Gpu("x", memory=500)], **arguments).devices[0].needed

    by_context = [needed(context=tokens) for tokens in (256, 4096, 4097, 32768)]
    by_cache = [needed(cache=cache, context=131072) for cache in ("q2", "q4", "8,4", "q8", "fp16")]
    assert by_context == sorted(set(by_context))
    assert by_cache == sorted(set(by_cache))

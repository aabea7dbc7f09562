"""Arguments that cannot be are refused by name, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B

from hydra_infer import ConfigError, Gpu
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.units import GIB


def ask(form: str = "exl3", **arguments: Any) -> Request:
    spec = ModelSpec("m", Path("m"), form, geometry_of(LLAMA_1B, Path("m")), bpw=4.0)
    return Request.of(spec, **({"gpus": ["5090", "4090"]} | arguments))


def test_what_a_user_may_write() -> None:
    request = ask(gpus="RTX 5090", context="32k", cache="Q4", reserve=0.5)
    assert request.gpus == (Gpu("RTX 5090"),)
    assert (request.context, request.rate.name, request.engine, request.reserve) == (32768, "q4", "exllamav3", (GIB // 2,))
    assert ask(gpus=Gpu("4090")).gpus == (Gpu("4090"),)
    assert ask(gpus=(Gpu("4090"), "3060")).gpus == (Gpu("4090"), Gpu("3060"))
    assert ask(engine="auto").engine == "exllamav3"
    assert ask("exl2").engine == "exllamav2"
    assert ask(gpu_split=[20, 10]).split == "layers"


def test_arguments_give_the_request_again() -> None:
    for request in (ask(context=999, reserve=[1, 0.5], slots=3), ask(gpu_split=[20, 10], cache="8,4", engine="tabby")):
        assert Request.of(request.spec, weights=request.weights, **request.arguments()) == request


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("context", 0),
        ("context", -1),
        ("context", 2.5),
        ("context", "many"),
        ("context", True),
        ("context", 2**40),
        ("slots", 0),
        ("slots", 1.0),
        ("slots", True),
        ("chunk", 0),
        ("chunk", "2048"),
        ("cache", "q9"),
        ("split", "rows"),
        ("engine", "vllm"),
        ("engine", "llamacpp"),
        ("gpus", [3]),
        ("reserve", -1),
        ("reserve", float("nan")),
        ("reserve", "1"),
        ("gpu_split", [-1, 2]),
        ("gpu_split", [float("inf")]),
        ("gpu_split", [0, 0]),
        ("gpu_split", []),
        ("gpu_split", [1, 2, 3]),
        ("reserve", [1, 2, 3]),
    ],
)
def test_impossible_arguments_are_named(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=argument):
        ask(**{argument: value})


def test_megabytes_are_recognised() -> None:
    with pytest.raises(ConfigError, match=r"reserve\[0\]=4096 is larger than RTX 5090 .* that looks like MB"):
        ask(reserve=4096)
    with pytest.raises(ConfigError, match=r"gpu_split\[1\]=24000 .* looks like MB"):
        ask(gpu_split=[28, 24000])
    assert ask(gpu_split=[32, 24]).gpu_split == (32 * GIB, 24 * GIB)  # the marketed sizes are what people write


def test_what_excludes_each_other() -> None:
    with pytest.raises(ConfigError, match="gpu_split and reserve exclude"):
        ask(gpu_split=[20, 10], reserve=1)
    with pytest.raises(ConfigError, match="gpu_split and split='single' exclude"):
        ask(gpu_split=[20, 10], split="single")


def test_what_is_not_planned_yet_says_so() -> None:
    with pytest.raises(ConfigError, match="split='tensor' is not planned yet for gguf"):
        ask("gguf", split="tensor")


def test_exllama_needs_a_card_and_llamacpp_none() -> None:
    with pytest.raises(ConfigError, match="exllamav3 needs an NVIDIA card"):
        ask(gpus=[])
    assert ask("gguf", gpus=[]).gpus == ()
    with pytest.raises(ConfigError, match="split='layers' needs a card"):
        ask("gguf", gpus=[], split="layers")

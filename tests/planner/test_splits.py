"""The fastest division among unequal cards, against every division there is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_70B

from hydra_infer import Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request
from hydra_infer.planner.splits import LEAST_GAIN, fastest_split, token_time

SMALL = LLAMA_70B | {"num_hidden_layers": 8}
NAMES = ["RTX 3060", "RTX 5070 Ti", "RTX 4090", "RTX 3090", "RTX 5090", "RTX 4060 Ti 16GB"]


def plan(config: dict[str, Any] = LLAMA_70B, form: str = "exl3", **arguments: Any) -> Plan:
    spec = ModelSpec("m", Path("m"), form, geometry_of(config, Path("m")), bpw=4.0)
    return Plan.of(Request.of(spec, **({"gpus": ["RTX 4090", "RTX 5090"], "context": 32768} | arguments)))


def every_division(p: Plan) -> float | None:
    """The least time over gpu_splits fine enough to tell every division of eight layers of half a GiB apart."""
    grid = product([step / 2 for step in range(13)], repeat=len(p.request.gpus) - 1)
    divisions = (p.replan(gpu_split=[*shares, last]) for shares in grid for last in (0.0, 20.0) if any((*shares, last)))
    times = [token_time(tried) or 0.0 for tried in divisions if tried.fits]
    return min(times, default=None)


@pytest.mark.parametrize(("seed", "count"), [*((seed, 2 + seed % 2) for seed in range(12)), (3, 4)])
def test_nothing_is_faster(seed: int, count: int) -> None:
    dice = random.Random(seed)
    names = dice.choices(NAMES, k=count)
    p = plan(SMALL, gpus=[Gpu(name, free=round(dice.uniform(4, 6.5), 2)) for name in names], context=8192, split="layers")
    found = fastest_split(p)
    best, mine = every_division(p), token_time(found or p) if (found or p).fits else None
    assert (best is None) == (mine is None)
    if best is not None and mine is not None:
        assert mine <= best / (1 - LEAST_GAIN)


def test_the_slower_card_gets_fewer_layers() -> None:
    p = plan(split="layers")
    found = p.better_split()
    assert found is not None
    assert found.plan.fits
    assert found.plan.gpu_split == found.change["gpu_split"]
    assert found.plan == p.replan(**found.change)
    assert found.plan.devices[0].layers < p.devices[0].layers
    assert found.why.startswith(f"gpu_split={found.plan.gpu_split} decodes some ")
    assert "by assumed efficiencies" in found.why
    assert p.suggestions == (found,)
    assert found.plan.better_split() is None


def test_a_slow_card_that_is_not_needed_is_left_out() -> None:
    found = fastest_split(plan(gpus=["RTX 3060", "RTX 4090", "RTX 5090"], split="layers"))
    assert found is not None
    assert [device.layers > 0 for device in found.devices] == [False, True, True]


@pytest.mark.parametrize(
    ("names", "context"),
    [
        (["RTX 5090", "RTX 4090"], 8192),
        (["RTX 5090", "RTX 4090"], 53248),
        (["RTX 3090", "RTX 5090"], 8192),
        (["RTX 3090", "RTX 5090", "RTX 3060"], 8192),
        (["RTX 3090", "RTX 5090", "RTX 4090", "RTX 5070 Ti"], 8192),
    ],
)
def test_no_tensor_split_is_much_faster(names: list[str], context: int) -> None:
    p = plan(gpus=names, context=context, split="tensor")
    found = fastest_split(p)
    mine = token_time(p if found is None else found)
    tenths = product(range(4, 11, 1 if len(names) == 2 else 2), repeat=len(names))
    shares = ([round(gpu.free.gib * part / 10, 2) for gpu, part in zip(p.request.gpus, parts, strict=True)] for parts in tenths)
    times = [token_time(tried) or 0.0 for tried in (p.replan(gpu_split=one) for one in shares) if tried.fits]
    assert mine is not None
    assert mine <= 1.03 * min(times)


def test_shares_in_proportion_to_the_bandwidths_beat_shares_by_capacity() -> None:
    found = plan(split="tensor").better_split()
    assert found is not None
    assert (found.change["split"], found.plan.split, found.plan.fits) == ("tensor", "tensor", True)
    slow, fast = found.plan.devices
    assert fast.weights / slow.weights == pytest.approx(1792 / 1008, rel=0.03)


@pytest.mark.parametrize("names", [["RTX 4090", "RTX 5090"], ["RTX 3060", "RTX 3090", "RTX 5090"]])
def test_llamacpps_proportions_too(names: list[str]) -> None:
    p = plan(LLAMA_70B | {"num_hidden_layers": 40}, "gguf", gpus=names, context=16384, split="layers")
    found = fastest_split(p)
    assert found is not None
    assert found.fits
    assert sum(use.layers for use in found.devices) == 40
    mine, own = token_time(found), token_time(p)
    assert mine is not None
    assert own is not None
    assert mine < own
    times = [token_time(tried) for tried in _grid(p) if tried.fits]
    assert mine <= 1.03 * min(time for time in times if time is not None)
    better = p.better_split()
    assert better is not None
    assert p.replan(**better.change).devices == better.plan.devices


def _grid(p: Plan) -> Iterator[Plan]:
    """Proportions in steps of a twentieth."""
    for parts in product(range(21), repeat=len(p.request.gpus) - 1):
        if sum(parts) <= 20:
            yield p.replan(gpu_split=[*(float(part) for part in parts), float(20 - sum(parts))])


@pytest.mark.parametrize(
    "arguments",
    [
        {"gpus": ["RTX 5090", "RTX 4090"], "split": "layers"},  # the faster comes first: the loader's own order is as good
        {"gpus": ["RTX PRO 6000"]},
        {"gpus": [Gpu("a", memory=32), Gpu("b", memory=32)]},  # speeds not known
        {"split": "single", "gpus": ["RTX 4090", "RTX PRO 6000"]},
    ],
)
def test_where_there_is_none(arguments: dict[str, Any]) -> None:
    assert plan(**arguments).better_split() is None

"""Gpu: what is taken from the catalogue, what may be said, what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import pytest

from hydra_infer import ConfigError, Gpu, UnknownGpu
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.units import GIB, MIB, Size


def test_a_name_is_enough() -> None:
    card = Gpu("5090")
    assert (card.name, card.memory, card.bandwidth, card.capability) == ("RTX 5090", 32607 * MIB, 1792, "12.0")
    assert card.assumed
    assert card.free == card.memory - round(0.6 * GIB)
    assert (card.processes, card.index, card.uuid, card.overhead) == ((), None, None, None)
    assert repr(card) == "<Gpu RTX 5090: 31.8 GiB, 31.2 GiB free (assumed), 1792 GB/s>"


def test_what_is_free_can_be_said() -> None:
    card = Gpu("RTX 4090", free=22.5)
    assert (card.free, card.assumed) == (Size(22.5 * GIB), False)
    assert Gpu("RTX 4090", free=0).free == 0


def test_a_card_can_be_described() -> None:
    card = Gpu("anything", memory=48, bandwidth=960, capability="9.9", overhead=0.7)
    assert (card.name, card.memory, card.bandwidth, card.capability) == ("anything", 48 * GIB, 960, "9.9")
    assert card.overhead == round(0.7 * GIB)
    assert Gpu("anything", memory=0.25).free == 0
    assert Gpu("anything", memory=48).bandwidth is None


def test_what_is_said_wins_over_the_catalogue() -> None:
    changed = Gpu("RTX 3080", memory=20)
    assert (changed.name, changed.memory) == ("RTX 3080", 20 * GIB)
    assert Gpu("RTX 4090", bandwidth=900).bandwidth == 900
    assert Gpu("RTX 3080", memory=12).bandwidth == 912.4


def test_a_size_is_bytes() -> None:
    assert Gpu("x", memory=Size(5 * GIB + 1), free=Size(3)).memory == 5 * GIB + 1


def test_value_equality_immutability_and_copies() -> None:
    one, two = Gpu("RTX 4090", free=22.5), Gpu("4090", free=22.5)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Gpu("RTX 4090")
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(FrozenInstanceError):
        one.free = Size(0)  # type: ignore[misc]


@pytest.mark.parametrize("memory", [0, -1, float("nan"), float("inf"), 24576, True, "24"])
def test_impossible_memory(memory: float) -> None:
    with pytest.raises(ConfigError, match="memory"):
        Gpu("x", memory=memory)


def test_megabytes_are_recognised() -> None:
    with pytest.raises(ConfigError, match=r"memory=24576 GiB: that looks like MB \(memory is in GiB: 24\)"):
        Gpu("x", memory=24576)


@pytest.mark.parametrize(
    "arguments",
    [{"free": 25}, {"free": -1}, {"free": float("nan")}, {"bandwidth": 0}, {"bandwidth": float("inf")}, {"capability": "sm_89"}],
)
def test_impossible_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Gpu("RTX 4090", **arguments)


@pytest.mark.parametrize("name", ["", "  ", None, 4090])
def test_a_name_is_text(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        Gpu(name)


def test_an_unknown_card_without_memory() -> None:
    with pytest.raises(UnknownGpu, match="no card 'RX 9999'"):
        Gpu("RX 9999", bandwidth=500)


def test_processes_are_kept() -> None:
    process = GpuProcess(7, "python", Size(GIB))
    assert Gpu("RTX 4090", processes=[process]).processes == (process,)


def test_plain_data() -> None:
    data = Gpu("RTX 4090", free=20, uuid="GPU-1", index=0, processes=[GpuProcess(7, "python", Size(GIB))]).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert (data["free_bytes"], data["free_is_assumed"], data["bandwidth"]) == (20 * GIB, False, 1008)
    assert data["processes"] == [{"pid": 7, "name": "python", "used_bytes": GIB}]

"""Which card is cuda:0."""

from __future__ import annotations

from typing import Any

import pytest

from hydra_infer.engines.exllama.cuda import order, ordinals, per_device, visible
from hydra_infer.errors import ConfigError, LoadError
from hydra_infer.hardware.gpu import Gpu

CARDS = [
    Gpu("RTX 5090", index=0, uuid="GPU-aaa1"),
    Gpu("RTX 4090", index=1, uuid="GPU-bbb2"),
    Gpu("RTX 4090", index=2, uuid="GPU-bbb3"),
]


def test_cuda_is_told_to_count_as_the_bus_does() -> None:
    environ: dict[str, str] = {}
    order(environ, started=False, cards=2)
    assert environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    order(environ, started=True, cards=2)


def test_too_late_to_tell_it() -> None:
    with pytest.raises(LoadError, match=r"FASTEST_FIRST.*CUDA_DEVICE_ORDER=PCI_BUS_ID before"):
        order({}, started=True, cards=2)
    environ: dict[str, str] = {}
    order(environ, started=True, cards=1)  # one card is card 0 in any order


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("GPU-bbb3,GPU-a", [2, 0]),
        ("1,7,0", [1]),
        ("", []),
        ("-1", []),
        ("0,0,1", [0]),
    ],
)
def test_what_cuda_shows(listed: str | None, shown: list[int]) -> None:
    environ: dict[str, Any] = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert visible(CARDS, environ) == [CARDS[at] for at in shown]


def test_numbers_of_found_and_of_named_cards() -> None:
    assert ordinals([CARDS[2], CARDS[0]], [CARDS[2], CARDS[0]]) == (0, 1)
    assert ordinals([Gpu("RTX 4090"), Gpu("RTX 4090"), Gpu("RTX 5090")], CARDS) == (1, 2, 0)


def test_a_card_that_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="RTX 3090 is not among the cards .*: RTX 5090, RTX 4090"):
        ordinals([Gpu("RTX 3090")], CARDS[:2])
    with pytest.raises(ConfigError, match="RTX 5090 is not among"):
        ordinals([Gpu("RTX 5090"), Gpu("RTX 5090")], CARDS)


def test_values_spread_over_what_cuda_counts() -> None:
    assert per_device([10.0, 20.0], (2, 0), 3, 0.0) == [20.0, 0.0, 10.0]

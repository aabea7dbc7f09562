"""The catalogue: names people type and drivers print, and rows that cannot be nonsense."""

from __future__ import annotations

import pytest

from hydra_infer import UnknownGpu
from hydra_infer.hardware.catalogue import CARDS, find
from hydra_infer.units import GIB, Size


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("RTX 5090", "RTX 5090"),
        ("5090", "RTX 5090"),
        ("rtx-5090", "RTX 5090"),
        ("rtx5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("4090D", "RTX 4090 D"),
        ("4070 ti super", "RTX 4070 Ti SUPER"),
        ("3060", "RTX 3060 12GB"),
        ("RTX 3060 8GB", "RTX 3060 8GB"),
        ("3080", "RTX 3080 10GB"),
        ("RTX 3080 12 GB", "RTX 3080 12GB"),
        ("5060 Ti", "RTX 5060 Ti 16GB"),
        ("RTX 4090 24GB", "RTX 4090"),
        ("A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2 32GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("Tesla P40", "P40"),
    ],
)
def test_names(typed: str, meant: str) -> None:
    assert find(typed).name == meant


def test_memory_picks_among_cards_that_share_a_name() -> None:
    assert find("NVIDIA GeForce RTX 3080", Size(12 * GIB)).name == "RTX 3080 12GB"
    assert find("RTX 5060 Ti", Size(8 * GIB)).name == "RTX 5060 Ti 8GB"


@pytest.mark.parametrize("typed", ["RTX 6000", "RTX 4090 Laptop GPU", "5091", "Radeon", "", "GB10"])
def test_what_is_not_there_is_refused_with_a_way_out(typed: str) -> None:
    with pytest.raises(UnknownGpu) as caught:
        find(typed)
    assert "Gpu(name, memory=GiB, bandwidth=GB/s)" in str(caught.value)


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(UnknownGpu, match=r"did you mean 'RTX 5090'"):
        find("RTX 5091")
    with pytest.raises(UnknownGpu, match="RTX 6000 Ada"):
        find("RTX 6000")


def test_a_size_the_card_never_had_is_refused() -> None:
    with pytest.raises(UnknownGpu, match=r"sold with 10 GB or 12 GB, not 20 GB"):
        find("RTX 3080 20GB")


# nvidia-smi's totals and the data sheets' bandwidths for the cards plans are most often made for.
@pytest.mark.parametrize(
    ("name", "mib", "bandwidth", "capability"),
    [
        ("RTX 3060", 12288, 360, "8.6"),
        ("RTX 3090", 24576, 936.2, "8.6"),
        ("RTX 4090", 24564, 1008, "8.9"),
        ("RTX 5080", 16303, 960, "12.0"),
        ("RTX 5090", 32607, 1792, "12.0"),
        ("RTX 6000 Ada", 49140, 960, "8.9"),
        ("RTX PRO 6000", 97887, 1792, "12.0"),
        ("A100 SXM4 80GB", 81920, 2039, "8.0"),
        ("H100 SXM", 81559, 3350, "9.0"),
        ("H200", 143771, 4800, "9.0"),
        ("L40S", 46068, 864, "8.9"),
    ],
)
def test_figures(name: str, mib: int, bandwidth: float, capability: str) -> None:
    card = find(name)
    assert (card.mib, card.bandwidth, card.capability) == (mib, bandwidth, capability)


def test_every_row_is_plausible_and_found_by_its_own_name() -> None:
    for card in CARDS:
        assert find(card.name) == card
        # The printed total is never above the marketed size, and at most 6 % below it (ECC).
        assert 0.935 * card.gb * 1024 < card.mib <= 1.001 * card.gb * 1024
        assert 150 < card.bandwidth < 5000
        assert 0 < card.sms <= 188
        assert card.tflops is None or 10 < card.tflops < 1000

"""Memory against published nvidia-smi figures, and the page that shows it all."""

from __future__ import annotations

import pytest
from measured.judge import Judged, decode, difference, edge, mean, slope, speculation, used, vram, worst
from measured.write import TARGET, page


def llamacpp() -> list[Judged]:
    return [each for each in used(vram()) if each.row["engine"] == "llama.cpp"]


def test_llamacpp() -> None:
    assert len(llamacpp()) >= 19
    assert mean(llamacpp()) <= 0.015
    assert worst(llamacpp()) <= 0.04


def by_id(name: str) -> Judged:
    return next(each for each in vram() if each.row["id"] == name)


@pytest.mark.parametrize(
    ("larger", "smaller"),
    [
        ("L02", "L01"),  # 128K more context: 2944 MiB
        ("L04", "L03"),  # the same with MTP: 640 MiB more
        ("L12", "L11"),  # one more drafted token: 150 MiB
        ("L18", "L17"),
        ("L14", "L10"),  # five
    ],
)
def test_differences_are_met_to_four_mib(larger: str, smaller: str) -> None:
    measured, predicted = difference(by_id(larger), by_id(smaller))
    assert predicted == pytest.approx(measured, abs=4)


def test_slopes_of_the_old_exllamav3() -> None:
    assert abs(slope("gemma-3-27b").error) <= 0.01
    assert abs(slope("Nemotron-Super-49B").error) <= 0.08


def test_where_the_old_exllamav3_ran_out() -> None:
    """Gemma loaded at 30K and not at 31K, Nemotron at 21K and not at 22K."""
    assert 30 <= edge("gemma-3-27b") <= 31
    assert 21 <= edge("Nemotron-Super-49B") <= 22


def test_every_row_says_what_it_is_for() -> None:
    for judged in (decode(), speculation(), vram()):
        for each in judged:
            assert each.role in ("fit", "judge", "slope", "out")
            assert each.row["source"]
            assert each.role != "out" or each.row["reason"], each.row["id"]


def test_the_page_is_what_the_data_give() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), (
        "run PYTHONPATH=src:tests python -m measured.write, and read what changed"
    )

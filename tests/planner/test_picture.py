"""The picture in a notebook: bars with numbers, nothing loaded from anywhere, and no name taken for markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from synthetic import LLAMA_70B

from hydra_infer import Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.request import Request


def picture(**arguments: Any) -> tuple[Plan, str]:
    spec = ModelSpec("Llama", Path("m"), "exl3", geometry_of(LLAMA_70B, Path("m")), bpw=4.0)
    p = Plan.of(Request.of(spec, **({"gpus": ["RTX 5090", "RTX 4090"], "context": 32768, "split": "layers"} | arguments)))
    return p, p._repr_mimebundle_()["text/html"]


def widths(html: str) -> list[float]:
    return [float(width) for width in re.findall(r"[;\"]width:([\d.]+)%", html)]


def test_every_term_of_every_card_is_drawn_with_its_size() -> None:
    p, html = picture()
    for use in p.devices:
        assert f"{use.needed} of {use.free} free" in html
        assert f"{use.layers} layers" in html
        for term in ("weights", "cache", "transient", "overhead"):
            assert f'title="{term} {getattr(use, term)}"' in html
    assert ">fits<" in html
    assert p.why in html
    assert max(widths(html)) <= 100


def test_what_does_not_fit_leaves_its_frame() -> None:
    p, html = picture(context=65536)
    short = p.devices[1]
    assert ">does not fit<" in html
    assert f"{-short.left} too little" in html
    assert max(widths(html)) <= 100
    assert p.suggestions[0].change == {"cache": "q8"}
    assert "cache=&#x27;q8&#x27; fits" in html


def test_a_card_that_is_not_used_says_so() -> None:
    assert "not used, 23.4 GiB free" in picture(gpu_split=[20, 22, 0], gpus=["RTX 5090", "RTX 5090", "RTX 4090"])[1]


def test_it_needs_nothing_from_elsewhere() -> None:
    _, html = picture(gpus=[Gpu("<script>", memory=80, bandwidth=1000.0)])
    assert "<script>" not in html
    assert not re.search(r"https?:|url\(|<link|<img|<style|class=", html)

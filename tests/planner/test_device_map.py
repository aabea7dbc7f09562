"""ExLlamaV2's manual split against its own Python, by the golden table, and the plans made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic

import hydra_infer as hydra
from hydra_infer.models.folder import read_model
from hydra_infer.planner.device_map import device_map
from hydra_infer.planner.weights import weigh
from hydra_infer.units import GIB, Size

TABLE: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "exl2.json").read_text(encoding="utf-8"))
CARDS = [hydra.Gpu("RTX 5090", free=31.0), hydra.Gpu("RTX 4090", free=23.0)]


@pytest.mark.parametrize("name", TABLE)
def test_modules_and_cards_are_the_engines(name: str, tmp_path: Path) -> None:
    spec = read_model(synthetic.exl2(tmp_path / name, *synthetic.EXL2[name]))
    weights, table = weigh(spec), dict(TABLE[name])
    engine = [size for count, size in table.pop("modules") for _ in range(count)]
    assert engine[0] == weights.embedding
    loaded = [*(size for layer in weights.layers for size in (layer.attention, layer.mlp)), weights.norm, weights.head]
    # The engine does not count the map of 4 bytes per row that it makes of every matrix.
    hidden, layers = spec.geometry.hidden, spec.geometry.plain_layers()
    maps = [4 * rows for a, m in layers for rows in (3 * hidden + a.q_width, (2 * hidden + m.intermediate) * max(1, m.experts))]
    # The norms of Qwen3's queries and keys it counts as long as the hidden state.
    norms = [size for a, _ in layers for size in (2 * (2 * hidden - a.vectors) if a.vectors else 0, 0)]
    counted = [size - more for size, more in zip(loaded, [*maps, 0, 4 * hidden], strict=True)]
    assert [size + more for size, more in zip(counted, [*norms, 0, 0], strict=True)] == engine[1:]
    for case, counts in table.items():
        if "tensor" in case:
            continue  # test_exl2_parallel.py
        sizes, split = case.split(": ")
        tokens, rows = map(int, sizes.split(","))
        grants = [Size(float(size) * GIB) for size in split.split(",")]
        cards, enough = device_map(spec.geometry, weights, grants, rows=rows, tokens=tokens)
        assert ([cards.count(card) for card in range(len(grants))] if enough else None) == counts, case


def plan(folder: Path, **more: Any) -> hydra.Plan:
    return hydra.plan(folder, **({"gpus": CARDS, "context": 4096, "chunk": 1024} | more))


def test_a_plan_with_a_manual_split(tmp_path: Path) -> None:
    folder = synthetic.exl2(tmp_path / "70b", synthetic.LLAMA_70B, 3.5)
    p = plan(folder, gpu_split=[20, 20])
    counts = TABLE["70b-3.5bpw"]["4096,1024: 20,20"]
    assert (p.split, p.gpu_split, p.fits) == ("layers", [20.0, 20.0], True)
    assert [use.layers for use in p.devices] == [-(-counts[0] // 2), 80 - -(-counts[0] // 2)]
    assert sum(use.cache for use in p.devices) == 4096 * 327680
    small = plan(folder, gpu_split=[10, 10])
    assert not small.fits
    assert "gpu_split allows 10.0 GiB" in small.why


def test_the_cache_is_not_in_its_count(tmp_path: Path) -> None:
    folder = synthetic.exl2(tmp_path / "70b", synthetic.LLAMA_70B, 3.5)
    p = plan(folder, gpu_split=[29, 10], context=65536)
    assert p.devices[0].needed > p.devices[0].free
    assert not p.fits


def test_experts_go_where_the_engine_puts_them(tmp_path: Path) -> None:
    folder = synthetic.exl2(tmp_path / "experts", *synthetic.EXL2["experts-4bpw"])
    p = plan(folder, gpu_split=[2, 3])
    counts = TABLE["experts-4bpw"]["4096,1024: 2,3"]
    assert p.fits
    assert [use.layers for use in p.devices] == [-(-counts[0] // 2), 24 - -(-counts[0] // 2)]

"""ExLlamaV2's tensor parallel against its own Python, by the golden table, and the plans made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic

import hydra_infer as hydra
from hydra_infer.models.folder import read_model
from hydra_infer.planner.cache import rate_of
from hydra_infer.planner.exl2_parallel import divide, lay_out, scratch, stored
from hydra_infer.planner.options import engine_options
from hydra_infer.planner.request import Request
from hydra_infer.planner.weights import weigh
from hydra_infer.units import GIB

TABLE: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "exl2.json").read_text(encoding="utf-8"))
CARDS = [hydra.Gpu("RTX 5090", free=31.0), hydra.Gpu("RTX 4090", free=23.0)]
DENSE = [name for name, table in TABLE.items() if any("tensor" in case for case in table)]


@pytest.mark.parametrize("name", DENSE)
def test_shares_buffers_and_weights_are_the_engines(name: str, tmp_path: Path) -> None:
    spec = read_model(synthetic.exl2(tmp_path / name, *synthetic.EXL2[name]))
    weights, compared = weigh(spec), 0
    for case, found in TABLE[name].items():
        sizes, _, split = case.partition(": ")
        memory, _, cache = split.partition(" tensor ")
        if not cache:
            continue
        tokens, rows = map(int, sizes.split(","))
        cards = [int(size) * GIB for size in memory.split(",")]
        shares = divide(spec.geometry, weights, rate_of(cache, "exl2"), cards, tokens=tokens)
        units = [shares.heads, shares.wide, shares.hidden, shares.vocab]
        ours = [*map(list, units), scratch(spec.geometry, shares, rows=rows), stored(spec, weights, shares)]
        assert ours == found, case
        compared += 1
    assert compared == len(synthetic.EXL2_CONTEXTS) * len(synthetic.EXL2_PARALLEL)


def plan(folder: Path, **more: Any) -> hydra.Plan:
    return hydra.plan(folder, **({"gpus": CARDS, "context": 4096, "chunk": 1024, "split": "tensor"} | more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.exl2(tmp_path / "70b", synthetic.LLAMA_70B, 3.5)


def test_a_plan_holds_what_the_engine_divides(folder: Path) -> None:
    p = plan(folder, gpu_split=[32, 24])
    heads, *_, buffers, loaded = TABLE["70b-3.5bpw"]["4096,1024: 32,24 tensor fp16"]
    assert (p.split, p.gpu_split, p.fits) == ("tensor", [32.0, 24.0], True)
    assert [use.weights for use in p.devices] == loaded
    assert [use.cache for use in p.devices] == [4 * 128 * share * 80 * 4096 for share in heads]
    # Beside the buffer: rotary tables twice, and five hidden states of a chunk; on the first card, while there is no cache
    # yet, not the whole head, which is smaller than the cache.
    assert [use.transient - size for use, size in zip(p.devices, buffers, strict=True)] == [8 * 4096 * 128 + 10 * 1024 * 8192] * 2
    assert p.host_use.transient == 4 * 1024 * 128256


def test_the_head_lands_whole_on_the_first_card(folder: Path) -> None:
    small, large = (plan(folder, context=256, chunk=256, cache=cache) for cache in ("q4", "fp16"))
    for p in (small, large):
        first = p.devices[0]
        buffer = 2 * 2**29  # what a part of the head is dequantised in, at most
        assert first.transient == buffer + p.request.weights.head - first.cache


def test_without_gpu_split_it_divides_what_is_free(folder: Path) -> None:
    assert plan(folder).devices == tuple(plan(folder, gpu_split=[31, 23]).devices)
    assert plan(folder).gpu_split is None


def test_a_card_with_nothing_left_is_short_not_skipped(folder: Path) -> None:
    p = plan(folder, gpus=["RTX 3060", "RTX 3060"], context=131072)
    assert not p.fits
    assert all(use.left < 0 for use in p.devices)


def test_cards_without_memory_are_refused(folder: Path) -> None:
    with pytest.raises(hydra.ConfigError, match="no card has any memory"):
        plan(folder, gpus=[hydra.Gpu("RTX 5090", free=0), hydra.Gpu("RTX 4090", free=0)])


def test_nothing_left_by_gpu_split_does_not_fit(folder: Path) -> None:
    p = plan(folder, gpu_split=[2, 2])
    assert [use.allowed for use in p.devices] == [2 * GIB, 2 * GIB]
    assert not p.fits


def test_a_shape_alone_comes_close_to_the_tensors(folder: Path) -> None:
    exact = plan(folder, gpu_split=[32, 24])
    shaped = plan(folder / "config.json", bpw=3.5, format="exl2", gpu_split=[32, 24])
    for ours, theirs in zip(shaped.devices, exact.devices, strict=True):
        assert ours.weights == pytest.approx(theirs.weights, rel=0.01)


def test_the_loader_gets_what_was_counted(folder: Path) -> None:
    found = engine_options(plan(folder, gpu_split=[32, 24], cache="q6"))
    assert found["cache"] == {"class": "ExLlamaV2Cache_TP", "base": "ExLlamaV2Cache_Q6", "max_seq_len": 4096}
    assert found["load"] == {"expect_cache_tokens": 4096, "expect_cache_base": "ExLlamaV2Cache_Q6", "gpu_split": [32.0, 24.0]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (synthetic.QWEN3_30B | {"num_hidden_layers": 1}, "does not run Qwen3MoeForCausalLM tensor parallel"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "does not run Qwen3ForCausalLM tensor parallel"),
        ({"intermediate_size": 8256}, "splits blocks of 128 columns, and intermediate_size is 8256"),
        ({"head_dim": 128}, "32 x 128 must be the hidden size, 2048"),
    ],
)
def test_what_its_paths_do_not_run(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = synthetic.LLAMA_1B | {"num_hidden_layers": 1} | change
    with pytest.raises(hydra.ConfigError, match=said):
        plan(synthetic.exl2(tmp_path / "model", config, 4.0))


def test_one_card_and_plain_matrices_are_refused(tmp_path: Path) -> None:
    config = synthetic.LLAMA_1B | {"num_hidden_layers": 1}
    with pytest.raises(hydra.ConfigError, match="needs two cards"):
        plan(synthetic.exl2(tmp_path / "one", config, 4.0), gpus=CARDS[:1])
    spec = read_model(tmp_path / "one")
    tied = replace(spec, tensors={name: tensor for name, tensor in spec.tensors.items() if "lm_head" not in name})
    request = Request.of(tied, gpus=CARDS, split="tensor")
    with pytest.raises(hydra.ConfigError, match="lm_head has no q_weight"):
        lay_out(request, tokens=4096, rows=1024)

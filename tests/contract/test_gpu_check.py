"""What `make gpu-check` does on a card, on a CPU: its own code over the real exllamav3, with the card's numbers made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rig2
from gpu import drafts, failures, memory, meter, parallel, recipe, speed
from rig import tokenizer
from rig3 import CARDS, Rig

from hydra_infer.units import GIB, MIB

PEAK, RESIDENT = 5 * GIB, 4 * GIB


class Steady:
    """Says "a" whatever it reads, as the synthetic models of the check do."""

    def says(self, _: Any) -> list[int]:
        first = tokenizer().encode("a").ids[0]
        return [first, first + 1, first + 2]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with _steady(made, monkeypatch):
        monkeypatch.setattr(meter, "accounting", lambda: _accounting(made))
        monkeypatch.setattr("exllamav3.util.memory.free_mem", lambda: None)
        yield made


@pytest.fixture
def legacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[rig2.Rig]:
    """exllamav2 without flash-attn, as it is on the machines that the check was written for."""
    made = rig2.Rig(tmp_path, flash=False)
    with _steady(made, monkeypatch):
        yield made


@contextmanager
def _steady(made: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made.mind = made.drafter = Steady()
    torch_bytes = {"allocated_bytes": RESIDENT, "reserved_bytes": PEAK, "peak_allocated_bytes": PEAK, "peak_reserved_bytes": PEAK}
    with made.installed(monkeypatch):
        monkeypatch.setattr(meter, "card", lambda: CARDS[0])
        monkeypatch.setattr(meter, "used", lambda: GIB)
        monkeypatch.setattr(meter, "reset_peak", lambda: None)
        monkeypatch.setattr(meter, "torch_bytes", lambda: torch_bytes)
        yield


def _accounting(rig: Rig) -> dict[str, int]:
    """The engine's own accounts need CUDA; that the objects for it are found among all that live does not."""
    model, cache, generator = meter.loaded()
    assert cache.owner_serial == generator.cache_owner_serial
    assert Path(model.config.directory) == rig.folder
    return dict.fromkeys(("weights", "slack", "cache", "state", "statics", "generator", "other"), 0)


@pytest.mark.parametrize(("split", "budget"), [("single", None), ("layers", [24])])
def test_memory(rig: Rig, tmp_path: Path, split: str, budget: Any) -> None:
    found = memory.measure(tmp_path, model=str(rig.folder), context=2048, cache="q8", split=split, gpu_split=budget, slots=1)
    assert {row["term"] for row in found["judged"]} >= {"weights", "cache", "everything", "overhead"}
    assert found["facts"]["prompt_tokens"] == 2048 - 2 - 16
    assert [load.get("use") for load in rig.loads] == ([[24 * GIB, 0]] if budget else [None])


def test_words(rig: Rig, tmp_path: Path) -> None:
    (row,) = memory.words_of(tmp_path, model=str(rig.folder))["judged"]
    assert row["within"]


def test_tensor_parallel_on_one_card_and_no_workers_afterwards(rig: Rig, tmp_path: Path) -> None:
    found = parallel.measure(tmp_path, model=str(rig.folder), context=2048, cache="q4", slots=1)
    assert rig.loads[0]["parallel"] == [0, 1]  # the rig has two cards, and exllamav3 takes all it is not told to leave
    assert rig.workers == []
    assert found["judged"][-1]["within"]


def test_speed(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "TOKENS", 16)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    found = speed.compare(tmp_path, model=str(rig.folder), batch=2, prompts=[40, 300])
    *rows, lost = found["judged"]
    assert [row["term"] for row in rows] == ["batch 2, prompt 40", "batch 2, prompt 300"]
    assert (lost["within"], lost["found"]) == (True, "[32]")
    alone = speed.compare(tmp_path, model=str(rig.folder), batch=1, prompts=[40])
    assert alone["facts"]["pace"]["layers"] == 2


@pytest.mark.parametrize("draft", ["ngram", "model"])
def test_drafts(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draft: str) -> None:
    monkeypatch.setattr(drafts, "TOKENS", 64)
    monkeypatch.setattr(drafts, "ROUNDS", 1)
    named = draft if draft == "ngram" else str(rig.draft_folder)
    found = drafts.compare(tmp_path, model=str(rig.folder), draft=named, tokens=4)
    assert found["facts"]["same_answers"]
    assert found["facts"]["accepted"] > 0.8
    assert found["facts"]["draft_tokens"] == 4


def test_failures(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def filled(left: int) -> Iterator[None]:
        rig.faults.next("prefill" if left else "decode")
        yield
        rig.faults.next("prefill", 0)
        rig.faults.next("decode", 0)

    monkeypatch.setattr(meter, "filled", filled)
    found = failures.answering(tmp_path, model=str(rig.folder))
    assert [row["within"] for row in found["judged"]] == [True] * 4
    assert found["facts"]["rebuilds"] == 1
    assert found["facts"]["an answer whose memory was taken away"].startswith("OutOfMemory while decode")
    assert all(row["within"] for row in failures.reloading(tmp_path, model=str(rig.folder))["judged"])


def test_exllamav2(legacy: rig2.Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory.measure(tmp_path, model=str(legacy.folder), context=2048, cache="q4", split="single", gpu_split=None, slots=1)
    assert [row["term"] for row in found["judged"]] == ["weights, cache and working memory", "everything", "overhead"]
    monkeypatch.setattr(speed, "TOKENS", 16)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    *_, lost = speed.compare2(tmp_path, model=str(legacy.folder))["judged"]
    assert (lost["within"], lost["found"]) == (True, "[16]")


def test_a_synthetic_folder_is_loaded_by_the_engine_s_own_modules(tmp_path: Path) -> None:
    """Every tensor that exllamav3 asks for is there, in the shape and with the marker that it checks, and is finite."""
    import torch
    from exllamav3 import Config, Model, Tokenizer
    from gpu import shapes

    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512, "rms_norm_eps": 1e-5}
    config |= {"max_position_embeddings": 32768, "tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 5e5}
    folder = recipe._fresh(tmp_path, "tiny")
    entries, changed = shapes.of(folder, config, 2.5)
    told = recipe.finish(folder, changed, [*entries, ("lm_head.bias", "F16", [512])], says=97)
    engine_config = Config.from_directory(str(folder), load_method="python")
    own = Tokenizer.from_config(engine_config)
    assert own.encode("ab", add_bos=True).tolist() == [[510, 97, 98]]
    read = 0
    for module in Model.from_config(engine_config).modules:
        module.load(torch.device("cpu"))
        for name, tensor in (pair for part in module for pair in part.get_tensors().items()):
            read += tensor.numel() * tensor.element_size()
            assert not tensor.is_floating_point() or tensor.isfinite().all(), name
    assert read == told["bytes"]
    assert told["bytes"] < MIB * 2

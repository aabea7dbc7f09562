"""Drafts: valid pairs and invalid ones, what they take and where, and which of them pay: the known losers must lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import LLAMA_1B, LLAMA_70B, QWEN3_235B, exl2, exl3, gguf, sparse_safetensors

from hydra_infer import ConfigError, Gpu, IncompatibleDraft, load, plan
from hydra_infer.planner.draft import Draft, acceptance, row_cost, speedup
from hydra_infer.planner.report import Plan
from hydra_infer.planner.speed import PACES, Stage
from hydra_infer.units import GIB, MIB

CARDS = [Gpu("RTX 5090", free=31.0), Gpu("RTX 4090", free=23.0)]
MIQU = LLAMA_70B | {"vocab_size": 32000}

# Small enough that its headers are made in no time, with the shape of a small and of a large model.
SMALL = LLAMA_1B | {"num_hidden_layers": 4}


def of(p: Plan) -> Draft:
    assert p.draft is not None
    return p.draft


def likely(draft: Draft) -> float:
    assert draft.speedup is not None
    return draft.speedup[1]


def tokenizer(folder: Path, words: dict[str, int], special: dict[int, str] | None = None) -> Path:
    added = [{"id": number, "content": word} for number, word in (special or {}).items()]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": added}))
    return folder


# ---- the seed case ---------------------------------------------------------------------------------------------------


def test_midnight_miqu_with_a_llama_3_2_draft(tmp_path: Path) -> None:
    """Memory was never the problem: it all fits on the 5090 alone. The pair is: Llama 2's words are not Llama 3's."""
    miqu, llama = exl2(tmp_path / "Midnight-Miqu-70B", MIQU, 2.5), exl2(tmp_path / "Llama-3.2-1B", LLAMA_1B, 4.0)
    p = plan(miqu, draft=llama, gpus=CARDS, context=4096, cache="q4")
    draft = of(p)
    assert (p.fits, p.split, p.devices[0].used, p.devices[1].used) == (True, "single", True, False)
    # Weights, cache, and the scratch that exllamav2 keeps for each model: 1.17 GiB by its own figures, without tables.
    assert draft.size / GIB == pytest.approx(0.638 + 0.035 + 0.50, abs=0.06)
    assert (draft.valid, draft.fits, draft.pays, draft.speedup) == (False, True, False, None)
    assert "128256" in draft.why
    assert "32000" in draft.why
    assert any("not valid" in warning and "128256" in warning for warning in p.warnings)


def test_a_valid_pair_of_the_same_size_fits_and_pays(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "Llama-3.1-70B", LLAMA_70B, 2.5), exl3(tmp_path / "Llama-3.2-1B", LLAMA_1B, 4.0)
    p = plan(main, draft=small, gpus=CARDS, context=4096, cache="q4")
    draft = of(p)
    assert (p.fits, draft.valid, draft.fits, draft.pays) == (True, True, True, True)
    assert draft.speedup is not None
    low, middle, high = draft.speedup
    assert 1 < low < middle < high
    assert middle == pytest.approx(1.9, abs=0.2)
    assert not draft.judged  # nobody published what a row costs with exllamav3
    assert "tokenizers" in draft.why  # these folders have none: only sizes were compared


# ---- validity --------------------------------------------------------------------------------------------------------


def pair(tmp_path: Path, **changes: Any) -> tuple[Path, Path]:
    return exl3(tmp_path / "main", SMALL, 4.0), exl3(tmp_path / "small", SMALL | changes, 4.0)


def draft_of(main: Path, small: Path) -> Draft:
    return of(plan(main, draft=small, gpus=["RTX 4090"], context=1024))


def test_the_same_tokenizer_is_compared_and_padding_does_not_matter(tmp_path: Path) -> None:
    main, small = pair(tmp_path, vocab_size=128256 - 128)
    words = {"a": 0, "b": 1}
    draft = draft_of(tokenizer(main, words, {5: "<eos>"}), tokenizer(small, words, {5: "<eos>"}))
    assert draft.valid
    assert "tokenizers" not in draft.why


def test_other_sizes_need_a_tokenizer_to_be_believed(tmp_path: Path) -> None:
    draft = draft_of(*pair(tmp_path, vocab_size=128256 - 128))
    assert not draft.valid
    assert "no tokenizer.json" in draft.why


def test_other_words(tmp_path: Path) -> None:
    main, small = pair(tmp_path)
    draft = draft_of(tokenizer(main, {"a": 0, "b": 1}), tokenizer(small, {"a": 1, "b": 0}))
    assert (draft.valid, "other words" in draft.why) == (False, True)


def test_other_special_tokens(tmp_path: Path) -> None:
    main, small = pair(tmp_path)
    draft = draft_of(tokenizer(main, {"a": 0}, {7: "<eos>"}), tokenizer(small, {"a": 0}, {7: "<pad>"}))
    assert (draft.valid, "token 7 is '<pad>'" in draft.why) == (False, True)


def test_a_format_the_engine_does_not_load(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "main", SMALL, 4.0), exl2(tmp_path / "small", SMALL, 4.0)
    draft = draft_of(main, small)
    assert (draft.valid, draft.fits, draft.size) == (False, False, 0)
    assert "exl2" in draft.why


BROKEN = [
    "{}",
    '{"model": 3}',
    "{",
    '{"model": {"vocab": {}}, "added_tokens": [3]}',
    '{"model": {"vocab": {}}, "added_tokens": [{"id": [1], "content": "a"}]}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_tokenizer_names_its_file(tmp_path: Path, text: str) -> None:
    main, small = pair(tmp_path)
    for folder in (main, small):
        (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        draft_of(main, small)


def test_arguments(tmp_path: Path) -> None:
    main = exl3(tmp_path / "main", SMALL, 4.0)
    for arguments, problem in (
        ({"draft_tokens": 3}, "without a draft"),
        ({"draft": "ngram", "draft_tokens": 0}, "draft_tokens=0"),
        ({"draft": "ngram", "draft_tokens": True}, "draft_tokens=True"),
        ({"draft": "ngram", "draft_tokens": 65}, "draft_tokens=65"),
    ):
        with pytest.raises(ConfigError, match=problem):
            plan(main, gpus=["RTX 4090"], **arguments)
    p = plan(main, gpus=["RTX 4090"], draft="ngram")
    assert of(p).draft_tokens == 4
    assert of(p.replan(draft_tokens=2)).draft_tokens == 2
    assert p.replan(draft=None).draft is None
    with pytest.raises(ConfigError, match=r"plan\(draft=folder\)"):
        p.replan(draft="somewhere")


def test_a_pair_that_is_not_downloaded_yet(tmp_path: Path) -> None:
    for name, config in (("main", LLAMA_70B), ("small", LLAMA_1B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    draft = of(plan(tmp_path / "main", draft=tmp_path / "small", bpw=4.0, format="exl3", gpus=["H200"], context=32768))
    assert (draft.valid, draft.fits, draft.pays) == (True, True, True)
    assert draft.size / GIB == pytest.approx(0.638 + 1.0, abs=0.01)


def test_an_invalid_pair_is_an_error_only_when_it_is_loaded(tmp_path: Path) -> None:
    main, small = exl2(tmp_path / "main", MIQU | {"num_hidden_layers": 2}, 4.0), exl2(tmp_path / "small", SMALL, 4.0)
    p = plan(main, draft=small, gpus=["RTX 4090"])
    assert p.fits
    with pytest.raises(IncompatibleDraft, match="128256 tokens, main has 32000"):
        load(p)


def test_a_draft_is_never_left_out_silently(tmp_path: Path) -> None:
    main, small = gguf(tmp_path / "main.gguf", SMALL), gguf(tmp_path / "small.gguf", SMALL)
    with pytest.raises(ConfigError, match="does not apply"):
        load(plan(main, draft=small, gpus=["RTX 4090"]))


def test_without_cards_a_draft_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a draft in system RAM is not planned yet"):
        plan(gguf(tmp_path / "main.gguf", SMALL), draft="ngram", gpus=[])


# ---- what it takes ---------------------------------------------------------------------------------------------------


def test_the_draft_has_a_full_cache_and_goes_first(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "main", LLAMA_70B, 4.0), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    without = plan(main, gpus=CARDS, context=32768)
    p = plan(main, draft=small, gpus=CARDS, context=32768)
    assert p.split == without.split == "layers"
    first, second = p.devices
    assert second.draft == 0
    assert first.draft / GIB == pytest.approx(0.638 + 1.0, abs=0.01)  # 32,768 B per token in fp16
    assert first.layers < without.devices[0].layers  # what it takes from the main model
    assert first.needed == first.weights + first.cache + first.state + first.draft + first.transient + first.overhead
    assert sum(use.weights for use in p.devices) == sum(use.weights for use in without.devices)
    assert p.host > without.host
    assert p.to_dict()["devices"][0]["draft_bytes"] == first.draft
    assert json.loads(p.to_json())["draft"]["size_bytes"] == first.draft


def test_a_manual_split_is_granted_on_top_of_the_draft(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "main", LLAMA_70B, 4.0), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    p = plan(main, draft=small, gpus=CARDS, gpu_split=[26, 20])
    assert p.fits
    assert p.devices[0].loaded > 26 * GIB >= p.devices[0].loaded - p.devices[0].draft


def test_a_draft_never_lengthens_the_context(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "main", SMALL, 4.0), exl3(tmp_path / "small", SMALL, 4.0)
    card = [Gpu("RTX 4090", free=2.5)]
    assert 0 < plan(main, draft=small, gpus=card).max_context < plan(main, gpus=card).max_context


def test_ngram_takes_nothing(tmp_path: Path) -> None:
    main = exl3(tmp_path / "main", SMALL, 4.0)
    without, p = plan(main, gpus=["RTX 4090"]), plan(main, gpus=["RTX 4090"], draft="ngram")
    assert p.devices == without.devices
    assert (of(p).valid, of(p).fits, of(p).size) == (True, True, 0)


def with_mtp(folder: Path) -> Path:
    exl3(folder, SMALL, 4.0)
    sparse_safetensors(folder / "mtp.safetensors", [("mtp.layers.0.mlp.down_proj.weight", "F16", [2048, 8192])])
    return folder


def test_an_mtp_head_is_its_tensors_and_the_cache_of_its_layer(tmp_path: Path) -> None:
    p = plan(with_mtp(tmp_path / "main"), gpus=["RTX 4090"], draft="mtp", context=8192)
    draft = of(p)
    assert draft.valid
    assert draft.size == 2 * 2048 * 8192 + 4 * 512 * 8192
    assert p.devices[0].draft == draft.size


def test_a_model_without_an_mtp_head_says_so(tmp_path: Path) -> None:
    draft = of(plan(exl3(tmp_path / "main", SMALL, 4.0), gpus=["RTX 4090"], draft="mtp"))
    assert (draft.valid, draft.fits, draft.pays) == (False, False, False)
    assert "no MTP head" in draft.why


def test_a_gguf_draft_has_an_f16_cache(tmp_path: Path) -> None:
    main, small = gguf(tmp_path / "main.gguf", LLAMA_70B), gguf(tmp_path / "small.gguf", LLAMA_1B)
    p = plan(main, draft=small, gpus=["H200"], context=8192, cache="q4")
    own = plan(small, gpus=["H200"], context=8192, cache="f16").devices[0]
    assert p.devices[0].draft == own.weights + own.cache + own.transient


# ---- whether it pays -------------------------------------------------------------------------------------------------


def test_the_law() -> None:
    assert speedup(3, 0.5, 0.1) == pytest.approx(2.5 / 1.3)
    assert speedup(4, 0.2, 0.2) == 1
    assert acceptance("model", 1) == (0.53, 0.75, 0.90)
    assert acceptance("model", 8)[2] == pytest.approx(0.587, abs=0.08)  # the published pair it comes from
    for kind in ("model", "mtp", "ngram"):
        low, middle, high = acceptance(kind, 4)
        assert 0 <= low < middle < high <= 1
    assert acceptance("mtp", 20) == acceptance("mtp", 6)


def test_the_break_even_is_where_the_speed_up_is_one(tmp_path: Path) -> None:
    main, small = exl3(tmp_path / "main", LLAMA_70B, 4.0), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    draft = of(plan(main, draft=small, gpus=CARDS))
    assert draft.break_even is not None
    assert speedup(draft.draft_tokens, draft.break_even, draft.break_even) == 1
    assert 0.1 < draft.break_even < 0.3


def test_a_draft_larger_than_the_model_loses(tmp_path: Path) -> None:
    """Somebody paired Qwen2.5 7B and 0.5B the wrong way round: 50 tokens per second became 10."""
    large, small = exl3(tmp_path / "large", LLAMA_70B, 4.0), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    draft = of(plan(small, draft=large, gpus=["H200"]))
    assert (draft.valid, draft.fits, draft.pays) == (True, True, False)
    assert likely(draft) < 0.5


def test_more_than_three_streams_lose(tmp_path: Path) -> None:
    """2 x RTX 5060 Ti with MTP: 1.70 times the speed for one stream, 1.08 for two, 0.99 for four (qwen38-mtp)."""
    main, small = exl3(tmp_path / "main", LLAMA_70B, 3.5), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    drafts = [of(plan(main, draft=small, gpus=["H200"], slots=slots)) for slots in (1, 2, 4, 8)]
    assert [draft.pays for draft in drafts[2:]] == [False, False]
    assert "4 streams" in drafts[2].why
    assert likely(drafts[0]) > likely(drafts[1])


def test_a_card_that_verifies_slowly_loses(tmp_path: Path) -> None:
    """Apple's M4 verifies two more tokens for the price of two more steps: 5.8 tokens per second with MTP and without."""
    main = with_mtp(tmp_path / "main")
    draft = of(plan(main, draft="mtp", draft_tokens=2, gpus=[Gpu("M4", memory=24, bandwidth=120)]))
    assert not draft.pays
    assert likely(draft) < 1.1


def test_a_mixture_of_experts_gains_less(tmp_path: Path) -> None:
    """Its step is cheap and each row to verify chooses other experts: P40s gained 92 % on a dense 27B, 35 % on a 35B-A3B."""
    small = exl3(tmp_path / "small", LLAMA_1B | {"vocab_size": 151936}, 4.0)
    dense = exl3(tmp_path / "dense", LLAMA_70B | {"vocab_size": 151936}, 3.0)
    experts = exl3(tmp_path / "experts", QWEN3_235B | {"num_hidden_layers": 12}, 3.0)
    gains = [likely(of(plan(main, draft=small, gpus=["H200"]))) for main in (dense, experts)]
    assert gains[1] < 1 < gains[0]
    assert not of(plan(experts, draft=small, gpus=["H200"])).pays


def test_what_fits_only_without_it_does_not_pay(tmp_path: Path) -> None:
    """IQ4_XS on a 16 GB card: 25.2 tokens per second; with MTP four layers had to leave, and 20.3 were left."""
    main, small = exl3(tmp_path / "main", LLAMA_70B, 2.5), exl3(tmp_path / "small", LLAMA_1B, 4.0)
    card = [Gpu("RTX 4090", free=23.0)]
    assert plan(main, gpus=card, context=1024, cache="q4").fits
    p = plan(main, draft=small, gpus=card, context=1024, cache="q4")
    assert (p.fits, of(p).fits, of(p).pays) == (False, False, False)
    assert "does not fit" in of(p).why


def test_a_bad_drafter_loses_by_its_acceptance() -> None:
    """EAGLE-3 on a 4-bit target: 22.5 tokens per second became 16. At three tokens a round that is hardly any accepted."""
    main, drafts = Stage(936.2, "8.6", 16e9, layers=64), Stage(936.2, "8.6", 1e9, layers=1)
    cost = row_cost([main], drafts, (PACES["gguf"], PACES["gguf"]), "single")
    assert speedup(3, 0.05, cost) < 1 < speedup(3, 0.5, cost)


def test_unknown_bandwidth_is_not_guessed(tmp_path: Path) -> None:
    main, small = pair(tmp_path)
    draft = of(plan(main, draft=small, gpus=[Gpu("anything", memory=24)]))
    assert (draft.valid, draft.fits, draft.pays, draft.speedup) == (True, True, False, None)
    assert "not predicted" in draft.why


def test_the_table_shows_it(tmp_path: Path) -> None:
    main, small = pair(tmp_path)
    p = plan(main, draft=small, gpus=["RTX 4090"], context=1024)
    assert "draft" in str(p)
    assert str(p.devices[0].draft) in str(p)
    assert p.devices[0].draft > 50 * MIB

"""ExLlamaV2's runner over the real exllamav2 on a CPU: what every engine must do, and what only this one does."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import BOS, EOS, OTHER_EOS
from rig2 import CARDS, Rig
from scenarios import *  # noqa: F403  the tests that both engines pass
from scenarios import GREEDY, PROMPTS, crowd, say

import hydra_infer
from hydra_infer.engines.exllama import load as load_module
from hydra_infer.engines.exllama import v2
from hydra_infer.engines.exllama.seam import Extras
from hydra_infer.engines.exllama.v2_sampling import NAMES, SAMPLING
from hydra_infer.errors import ConfigError, IncompatibleDraft, LoadError, OutOfMemory

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ann", "bob"]}, "age": {"type": "integer", "minimum": 10, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with made.installed(monkeypatch):
        yield made


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The same machine without flash-attn."""
    made = Rig(tmp_path, flash=False)
    with made.installed(monkeypatch):
        yield made


# ---- where it is loaded ----------------------------------------------------------------------------------------------------


def test_one_card_is_the_one_of_the_plan(rig: Rig) -> None:
    with rig.engine(gpus=["RTX 4090"], draft="model") as engine:
        assert engine.generate(PROMPTS[0], max_tokens=4).usage.completion_tokens == 4
    # The embedding stays in system memory, which exllamav2 calls card -1.
    assert {card for _, kind, card in rig.placed if kind != "ExLlamaV2Embedding"} == {1}
    assert [folder for folder, _, _ in rig.placed] == sorted(folder for folder, _, _ in rig.placed)  # the draft first


def test_loaders_are_told_what_was_counted(rig: Rig) -> None:
    for settings in ({"split": "layers", "reserve": [1, 0.5]}, {"split": "layers"}, {"split": "tensor"}, {}):
        rig.engine(**settings).close()
    assert rig.loads == [
        ("load_autosplit", {"reserve_vram": [2**30, 2**29]}),
        ("load_autosplit", {}),
        ("load_tp", {"gpu_split": [31.0, 23.0], "expect_cache_tokens": 2048}),
        ("load", {"gpu_split": [99999.0, 0.0]}),
    ]


def test_layers_go_on_to_the_next_card_when_one_is_full(rig: Rig) -> None:
    (ids,) = rig.raw(PROMPTS[:1], **GREEDY)
    rig.placed.clear()
    rig.room = {0: 3}
    with rig.engine(split="layers") as engine:
        assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, **GREEDY).text) == ids
    assert [card for _, _, card in rig.placed] == [-1, 0, 0, 0, 1, 1, 1]


def test_layers_that_find_no_card_are_out_of_memory(rig: Rig) -> None:
    before = rig.alive()
    rig.room = {0: 2, 1: 2}
    with pytest.raises(OutOfMemory, match="Insufficient VRAM") as caught:
        rig.engine(split="layers")
    assert caught.value.stage == "loading"
    assert rig.alive() == before


def test_a_card_that_is_not_the_plans_is_not_filled(rig: Rig) -> None:
    before = rig.alive()
    rig.room = {0: 3}
    with pytest.raises(LoadError, match="went on to cuda:1"):
        rig.engine(gpus=["RTX 5090"], split="layers")
    assert rig.alive() == before


def test_a_split_by_hand_is_kept_to(rig: Rig) -> None:
    with rig.engine(chunk=256, gpu_split=[0.0043, 1]) as engine:
        assert engine.generate(PROMPTS[0], max_tokens=4).usage.completion_tokens == 4
    cards = [card for _, _, card in rig.placed]
    assert cards == [-1, 0, 0, 0, 1, 1, 1]


def test_layers_are_not_filled_in_another_order_than_cudas(rig: Rig) -> None:
    with pytest.raises(LoadError, match="cuda:1, cuda:0") as caught:
        rig.engine(gpus=["RTX 4090", "RTX 5090"], split="layers")
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.hint)


def test_tensor_parallel_is_taken_down_by_the_first_fault(rig: Rig) -> None:
    before = rig.alive()
    alone = rig.raw(PROMPTS[:2], **GREEDY)
    with rig.engine(split="tensor", slots=2, draft="model") as engine:
        assert rig.workers == [0, 1]
        assert [engine.tokenize(engine.generate(one, max_tokens=32, **GREEDY).text) for one in PROMPTS[:2]] == alone
        rig.faults.next("decode")
        with pytest.raises(OutOfMemory):
            engine.generate(PROMPTS[0], max_tokens=4)
        with pytest.raises(LoadError, match="taken down"):
            engine.generate(PROMPTS[0], max_tokens=4)
        assert rig.alive() == before
        engine.reload()
        assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, **GREEDY).text) == alone[0]
    assert rig.alive() == before


def test_a_failed_load_of_tensor_parallel_leaves_nothing(rig: Rig) -> None:
    before = rig.alive()
    rig.faults.next("load")
    with pytest.raises(OutOfMemory):
        rig.engine(split="tensor")
    assert rig.alive() == before


@pytest.mark.parametrize("modules", range(14))
def test_a_load_that_is_given_up_between_any_two_modules_leaves_nothing(rig: Rig, modules: int) -> None:
    """The draft has 5 modules, the model 7, and each is reported once more when it is complete."""
    before, seen = rig.alive(), []

    def report(fraction: float, _message: str) -> None:
        if len(seen) == modules:
            raise LoadError("loading was cancelled")
        seen.append(fraction)

    plan = hydra_infer.plan(rig.folder, gpus=CARDS, context=2048, draft=rig.draft_folder)
    with pytest.raises(LoadError, match="cancelled"):
        v2.open_runner(plan, Extras(ordinals=(0, 1)), report)
    assert len(rig.placed) == modules - (modules > 5)
    assert rig.alive() == before


@pytest.mark.parametrize("cache", ["q8", "q6", "q4"])
def test_quantised_caches(rig: Rig, cache: str) -> None:
    alone = rig.raw(PROMPTS[:2], **GREEDY)
    with rig.engine(cache=cache, draft="model") as engine:
        assert engine.info.cache == cache
        assert [engine.tokenize(engine.generate(one, max_tokens=32, **GREEDY).text) for one in PROMPTS[:2]] == alone


def test_warming_up_leaves_an_empty_cache(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "Extras", functools.partial(Extras, warmup=True))
    with rig.engine() as engine:
        assert rig.used(engine) == 0
        reply = engine.generate("Once upon a time, there was", max_tokens=4)
        assert reply.raw["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_chunk_is_rounded_to_pages_and_long_enough_for_all_slots(rig: Rig) -> None:
    rig.engine(chunk=1000, slots=4).close()
    assert (rig.generators[-1]["max_chunk_size"], rig.generators[-1]["max_batch_size"]) == (768, 4)
    with pytest.raises(ConfigError, match="64 x 8 rows") as caught:
        rig.engine(chunk=256, slots=64)
    assert "chunk=512" in str(caught.value.hint)


def test_drafts_as_long_as_the_generator_has_rows(rig: Rig) -> None:
    """exllamav2 allows 8 drafted tokens with 8 rows, and then has no row for the ninth logits."""
    alone = rig.raw(PROMPTS[:2], **GREEDY)
    with rig.engine(draft="model", draft_tokens=8) as engine:
        assert [engine.tokenize(engine.generate(one, max_tokens=32, **GREEDY).text) for one in PROMPTS[:2]] == alone


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"vision": True}, ConfigError, "vision=True"),
        ({"backend": "nccl"}, ConfigError, "backend='nccl'"),
        ({"draft": "ngram", "dynamic_draft": True}, ConfigError, "shorten its drafts"),
        ({"draft": "mtp"}, IncompatibleDraft, "MTP"),
        ({"cache": "fp8"}, ConfigError, "cache='fp8'"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(rig: Rig, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rig.engine(**settings)
    assert rig.placed == []


# ---- without flash-attn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"slots": 2}, {"split": "tensor"}])
def test_without_flash_attn_there_is_one_request_and_no_tensor_parallel(plain: Rig, settings: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match=r"flash-attn 2\.5\.7 or later, which is not installed") as caught:
        plain.engine(**settings)
    assert "pip install flash-attn" in str(caught.value.hint)
    assert plain.placed == []


def test_an_architecture_that_flash_attn_does_not_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    import exllamav2

    monkeypatch.setattr(
        exllamav2.ExLlamaV2Config, "arch_compat_overrides", lambda config, quiet: vars(config).update(no_flash_attn=True)
    )
    with pytest.raises(LoadError, match="does not run LlamaForCausalLM"):
        rig.engine(slots=2)
    rig.engine().close()
    assert rig.generators[-1]["paged"] is False


def test_without_flash_attn_answers_are_the_same(plain: Rig) -> None:
    alone = plain.raw(PROMPTS, **GREEDY)
    with plain.engine() as engine:
        jobs = [engine.submit({"prompt": one, "max_tokens": 32, **GREEDY}) for one in PROMPTS]
        assert [engine.tokenize(_text(job)) for job in jobs] == alone


@pytest.mark.parametrize("draft", ["model", "ngram"])
def test_without_flash_attn_drafts_do_not_change_the_answer(plain: Rig, draft: str) -> None:
    alone = plain.raw(PROMPTS[:3], **GREEDY)
    with plain.engine(draft=draft, draft_tokens=3) as engine:
        for _ in range(2):
            assert [engine.tokenize(engine.generate(one, max_tokens=32, **GREEDY).text) for one in PROMPTS[:3]] == alone


@pytest.mark.parametrize("draft", [None, "model", "ngram"])
def test_without_flash_attn_a_crowd_is_answered_one_by_one(plain: Rig, draft: str | None) -> None:
    crowd(plain, slots=1, draft=draft)


def test_without_flash_attn_the_last_prompt_is_not_read_again(plain: Rig) -> None:
    long = "a story that both prompts share, " * 20
    (ids,) = plain.raw([long], tokens=8, **GREEDY)
    with plain.engine(chunk=256) as engine:
        first, again = (engine.generate(long, max_tokens=8, **GREEDY) for _ in range(2))
        assert [first.raw["usage"]["prompt_tokens_details"]["cached_tokens"], engine.tokenize(first.text)] == [0, ids]
        assert again.raw["usage"]["prompt_tokens_details"]["cached_tokens"] == len(long)
        assert engine.tokenize(again.text) == ids


def test_without_flash_attn_leaving_and_faults_leave_a_right_cache(plain: Rig) -> None:
    long = "a story that both prompts share, " * 20
    (ids,) = plain.raw([long], tokens=8, **GREEDY)
    with plain.engine(chunk=256) as engine:
        with plain.faults.held("prefill") as gate:
            stream = engine.stream(long, max_tokens=8)
            gate.wait_until_met()
            stream.close()
        assert engine.tokenize(engine.generate(long, max_tokens=8, **GREEDY).text) == ids
        stream = engine.stream(long, max_tokens=900)
        next(stream)
        stream.close()
        assert engine.tokenize(engine.generate(long, max_tokens=8, **GREEDY).text) == ids
        for stage in ("prefill", "decode"):
            plain.faults.next(stage)
            with pytest.raises(OutOfMemory) as caught:
                engine.generate("another " + long, max_tokens=8)
            assert caught.value.stage == stage
            assert engine.tokenize(engine.generate(long, max_tokens=8, **GREEDY).text) == ids
        assert plain.used(engine) == 0


# ---- words, requests -----------------------------------------------------------------------------------------------------------


def test_every_end_that_config_json_names(rig: Rig) -> None:
    path = rig.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [EOS, OTHER_EOS]}))
    (rig.folder / "generation_config.json").unlink()
    with rig.engine() as engine:
        assert engine.chat(say(rig, "first<end>second")).text == "first"
        assert engine.detokenize([BOS, EOS]) == "<s></s>"


def test_memory_that_runs_out_in_a_prompt_fails_all_and_is_recovered_from(rig: Rig) -> None:
    """exllamav2 contains no fault: whatever reads or writes at that moment ends."""
    alone = rig.raw(PROMPTS[:1], **GREEDY)
    with rig.engine(slots=2) as engine:
        other = engine.stream(PROMPTS[0], max_tokens=500, **GREEDY)
        next(other)
        rig.faults.next("prefill")
        with pytest.raises(OutOfMemory) as caught:
            engine.generate("another prompt", max_tokens=4)
        assert (caught.value.stage, caught.value.device) == ("prefill", "cuda:1")
        with pytest.raises(OutOfMemory):
            list(other)
        assert rig.used(engine) == 0
        assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, **GREEDY).text) == alone[0]
        assert engine.stats()["rebuilds"] == 1


@pytest.mark.parametrize("settings", [{}, {"draft": "model"}, {"draft": "ngram"}], ids=["alone", "model", "ngram"])
def test_answers_match_their_schema(rig: Rig, settings: dict[str, Any]) -> None:
    with rig.engine(slots=4, **settings) as engine:
        for reply in engine.batch(["who?"] * 6, json_schema=SCHEMA, max_tokens=200, seed=1):
            said = json.loads(reply.text)
            assert said["name"] in ("ann", "bob")
            assert 10 <= said["age"] <= 99
            assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ({"regex": "(yes|no)!{3}"}, ("yes!!!", "no!!!")),
        ({"grammar": 'start: "left" | "right"'}, ("left", "right")),
        ({"grammar": 'root ::= "up" | "down"'}, ("up", "down")),
    ],
    ids=["regex", "lark", "gbnf"],
)
def test_an_answer_matches_its_grammar(rig: Rig, engine: Any, constraint: dict[str, str], expected: tuple[str, ...]) -> None:
    assert engine.generate("where?", max_tokens=50, **constraint).text in expected


def test_a_grammar_that_is_none_is_that_requests_error(rig: Rig, engine: Any) -> None:
    for constraint in ({"grammar": "start: ("}, {"regex": "("}, {"json_schema": {"type": "nonsense"}}):
        with pytest.raises(ConfigError, match="llguidance"):
            engine.generate("where?", max_tokens=5, **constraint)
    assert engine.chat(say(rig, "still here")).text == "still here"


def test_every_sampling_field_reaches_the_sampler(rig: Rig, engine: Any) -> None:
    """By the names of its own settings, which are fields of a dataclass."""
    from dataclasses import fields

    from exllamav2.generator import ExLlamaV2Sampler

    assert set(NAMES.values()) <= {field.name for field in fields(ExLlamaV2Sampler.Settings)}
    assert set(NAMES) < SAMPLING <= engine._core._driver.options


def test_no_probability_at_all_is_the_likeliest_token(rig: Rig, engine: Any) -> None:
    """exllamav2 itself reads top_p=0 as no limit."""
    (ids,) = rig.raw(PROMPTS[:1], **GREEDY)
    assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, top_p=0).text) == ids


def test_dry_breaks_a_repetition(rig: Rig) -> None:
    """Its word lists are kept by tokenizer, for ever: they must not outlive the engine."""
    before, text = rig.alive(), "again and again " * 6
    with rig.engine() as engine:
        assert engine.chat(say(rig, text), max_tokens=80, **GREEDY).text == text[:80]
        dry = {"dry_multiplier": 40.0, "dry_range": 64}
        assert engine.chat(say(rig, text), max_tokens=80, **dry, **GREEDY).text != text[:80]
    assert rig.alive() == before


def test_what_would_fail_in_a_step_fails_before_it(rig: Rig, engine: Any) -> None:
    for request, words in (
        ({"dry_range": 20, "dry_multiplier": 1}, "dry_range=20"),
        ({"logit_bias": {512: 1.0}}, "token 512"),
        ({"banned_strings": ["no"], "regex": "[a-z]+"}, "banned_strings"),
    ):
        with pytest.raises(ConfigError, match=words):
            engine.generate("a prompt", max_tokens=3, **request)
    with rig.engine(draft="ngram") as other:
        with pytest.raises(ConfigError, match="too short"):
            other.generate("a", max_tokens=3)
        with pytest.raises(ConfigError, match="with a draft"):
            other.generate("a prompt", max_tokens=3, banned_strings=["no"])
        assert other.generate("a prompt", max_tokens=3).usage.completion_tokens == 3
    assert engine.stats()["rebuilds"] == 0


def test_text_held_back_before_a_banned_string_is_said_once(rig: Rig, engine: Any) -> None:
    """ "ST " may begin the stop string. At the "t" after it a banned one begins, and "!", which comes next, is another."""
    prompt = say(rig, "this is ST terrible, yes")
    banned = {"stop": ["ST terrifying"], "banned_strings": ["terr", "!"]}
    reply = engine.chat(prompt, max_tokens=20, logprobs=True, top_logprobs=2, **banned, **GREEDY)
    assert reply.text.startswith("this is ST ")
    assert reply.text.count("ST") == 1
    assert not {"terr", "!"} & {reply.text[at : at + size] for at in range(20) for size in (1, 4)}
    # Tokens that were taken back are reported by exllamav2 all the same.
    tokens = reply.raw["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == reply.text
    assert reply.usage.completion_tokens == len(tokens) == 20


def test_pictures_are_refused(rig: Rig, engine: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(ConfigError, match="pictures"):
        engine.chat([{"role": "user", "content": [picture, {"type": "text", "text": "what is it?"}]}])


def _text(job: Any) -> str:
    return "".join(map(str, iter(job.take, None)))

"""ExLlamaV3's runner over the real exllamav3 on a CPU: what every engine must do, and what only this one does."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from rig3 import Model, Rig
from scenarios import *  # noqa: F403  the tests that both engines pass
from scenarios import GREEDY, PROMPTS, chat, no_engine_thread, say

import hydra_infer
from hydra_infer.engines.exllama.v3_sampling import sampler
from hydra_infer.errors import ConfigError, HydraError, IncompatibleDraft, LoadError, OutOfMemory
from hydra_infer.units import GIB


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with made.installed(monkeypatch):
        yield made


def test_memory_that_runs_out_in_a_prompt_fails_that_request_alone(rig: Any) -> None:
    alone = rig.raw([chat(PROMPTS[0])], tokens=200, **GREEDY)
    with rig.engine(slots=2) as engine:
        other = engine.stream(PROMPTS[0], max_tokens=200, **GREEDY)
        next(other)
        rig.faults.next("prefill")
        with pytest.raises(OutOfMemory) as caught:
            engine.generate("another prompt", max_tokens=4)
        assert (caught.value.stage, caught.value.device) == ("prefill", "cuda:1")
        for _ in other:
            pass
        assert engine.tokenize(other.reply.text) == alone[0]
        assert rig.used(engine) == 0
        assert engine.stats()["rebuilds"] == 0


# ---- where things lie ------------------------------------------------------------------------------------------------------


def test_one_card_is_cudas_number_of_the_plans_card(rig: Rig) -> None:
    rig.engine(gpus="RTX 4090").close()
    assert rig.loads == [{"name": "model", "component": "text", "device": "cuda:1"}]


def test_layers_leave_cards_alone_that_the_plan_does_not_have(rig: Rig) -> None:
    """A negative reserve excludes a card; exllamav3 itself would fill it where nothing is said."""
    rig.engine(gpus=["RTX 5090"], split="layers").close()
    rig.engine(gpus=["RTX 4090", "RTX 5090"], split="layers", reserve=[1.0, 2.0]).close()
    rig.engine(split="layers", gpu_split=[4.0, 6.0]).close()
    reserves = [(one["reserve"], one["use"], one["cards"]) for one in rig.loads]
    assert reserves == [
        ([GIB // 2, -GIB], None, [0]),
        ([2 * GIB, GIB], None, [0, 1]),
        (None, [4 * GIB, 6 * GIB], [0, 1]),
    ]


def test_the_loaders_chunk_is_no_longer_than_the_cache(rig: Rig) -> None:
    rig.engine(context=512, chunk=2048, split="layers").close()
    rig.engine(context=2048, chunk=700, split="layers").close()
    assert [one["chunk"] for one in rig.loads] == [512, 700]
    # The generator's chunks end on pages.
    assert [one["max_chunk_size"] for one in rig.generators] == [512, 512]


def test_tensor_parallel_by_nccl(rig: Rig) -> None:
    alone = rig.raw(PROMPTS[:1], **GREEDY)
    with rig.engine(split="tensor", backend="nccl") as engine:
        assert rig.loads[-1] == {"name": "model", "parallel": [0, 1], "backend": "nccl"}
        assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, **GREEDY).text) == alone[0]
        assert rig.workers == [0, 1]
    assert rig.workers == []


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_a_fault_in_tensor_parallel_ends_the_workers(rig: Rig, stage: str) -> None:
    """Its ranks are out of step after any exception."""
    with rig.engine(split="tensor") as engine:
        rig.faults.next(stage)
        with pytest.raises(HydraError):
            engine.generate("a prompt", max_tokens=4)
        with pytest.raises(LoadError, match="taken down"):
            engine.generate("a prompt", max_tokens=4)
        assert rig.workers == []
        engine.reload()
        assert engine.chat(say(rig, "back")).text == "back"
        assert rig.workers == [0, 1]


def test_a_failed_tensor_parallel_load_ends_its_workers(rig: Rig) -> None:
    """exllamav3 itself leaves them: it notes that a model is loaded when its last module is."""
    rig.faults.next("load")
    with pytest.raises(OutOfMemory, match="loading"):
        rig.engine(split="tensor")
    assert rig.workers == []


def test_a_cancelled_tensor_parallel_load_ends_its_workers(rig: Rig) -> None:
    def progress(_fraction: float, _message: str) -> None:
        raise KeyboardInterrupt

    with rig.faults.held("load"), pytest.raises(KeyboardInterrupt):
        rig.engine(split="tensor", progress=progress)
    no_engine_thread()
    assert rig.workers == []


def test_a_failed_split_lifts_its_limit_on_the_process(rig: Rig) -> None:
    rig.faults.next("load")
    with pytest.raises(OutOfMemory):
        rig.engine(split="layers")
    assert rig.unlimited == [[0, 1]]


def test_a_plan_is_loaded_as_it_was_made(rig: Rig) -> None:
    plan = hydra_infer.plan(rig.folder, gpus=["RTX 4090"], context=1024, cache="8,6", slots=3, chunk=512)
    with hydra_infer.load(plan, progress=False) as engine:
        assert (engine.info.context, engine.info.slots, engine.info.cache) == (1024, 3, "8,6")
        assert engine.chat(say(rig, "from quantised pages")).text == "from quantised pages"
    assert rig.loads[0]["device"] == "cuda:1"
    assert (rig.generators[0]["max_batch_size"], rig.generators[0]["max_chunk_size"]) == (3, 512)
    assert rig.caches == [("CacheLayer_quant", {"k_bits": 8, "v_bits": 6}, 3, 0)]


# ---- drafts ----------------------------------------------------------------------------------------------------------------


def test_the_draft_is_loaded_first_on_the_card_where_it_was_counted(rig: Rig) -> None:
    rig.engine(split="layers", draft="model", draft_tokens=2).close()
    assert [one["name"] for one in rig.loads] == ["draft", "model"]
    assert rig.loads[0]["device"] == "cuda:0"
    assert rig.loads[1]["tapped"] is None  # this drafter taps no states of the main model
    assert rig.generators[0]["num_draft_tokens"] == 2


def test_a_dynamic_draft_says_the_same(rig: Rig) -> None:
    alone = rig.raw(PROMPTS[:2], **GREEDY)
    with rig.engine(draft="model", dynamic_draft=True) as engine:
        assert rig.generators[-1]["dynamic_draft_tokens"] is True
        assert [engine.tokenize(engine.generate(one, max_tokens=32, **GREEDY).text) for one in PROMPTS[:2]] == alone
    with pytest.raises(ConfigError, match="dynamic draft without a draft model"):
        rig.engine(draft="ngram", dynamic_draft=True)


def test_how_much_must_repeat_for_an_ngram_is_an_option(rig: Rig) -> None:
    rig.engine(draft="ngram", draft_tokens=6).close()
    rig.engine(draft="ngram", options={"ngram_match_min": 5}).close()
    assert [(one["ngram_match_min"], one["num_draft_tokens"]) for one in rig.generators] == [(3, 6), (5, 4)]


# ---- what only this engine can do ------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ann", "bob"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_answer_obeys_a_json_schema(rig: Rig, engine: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    no_space = dict.fromkeys(engine.tokenize(" \t\r\n"), -100.0)
    for seed in range(3):
        reply = engine.chat("who?", response_format=form, seed=seed, max_tokens=60, logit_bias=no_space)
        person = json.loads(reply.text)
        assert person["name"] in ("ann", "bob")
        assert 1 <= person["age"] <= 9
        assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"grammar": 'start: "yes" | "no"'}, "yes|no"),
        ({"grammar": 'root ::= "left" | "right"'}, "left|right"),
    ],
)
def test_an_answer_obeys_a_pattern_or_a_grammar(rig: Rig, engine: Any, constraint: dict[str, str], pattern: str) -> None:
    assert re.fullmatch(pattern, engine.generate("say: ", max_tokens=20, **constraint).text)


def test_a_draft_obeys_the_constraint_too(rig: Rig) -> None:
    with rig.engine(draft="model", draft_tokens=3) as engine:
        assert re.fullmatch("[a-z]{12}", engine.generate("say: ", max_tokens=40, regex="[a-z]{12}").text)


def test_a_grammar_that_is_none_is_refused(rig: Rig, engine: Any) -> None:
    with pytest.raises(ConfigError, match="lark"):
        engine.generate("say: ", grammar="start: undefined_rule")
    with pytest.raises(ConfigError, match="regex"):
        engine.generate("say: ", regex="(")


def test_a_forced_call_is_one(rig: Rig, engine: Any) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
    choice = {"type": "function", "function": {"name": "add"}}
    no_space = dict.fromkeys(engine.tokenize("\t\r\n"), -100.0)
    reply = engine.chat("add it", tools=[tool], tool_choice=choice, max_tokens=300, logit_bias=no_space)
    (call,) = reply.tool_calls
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"])["name"] in ("ann", "bob")


def test_samplers_of_every_field_can_be_made(rig: Rig, engine: Any) -> None:
    """Those that a CPU cannot run."""
    tokenizer = engine._core._driver.thread.stepper.runner()._models.tokenizer
    said = {"xtc_probability": 0.5, "xtc_threshold": 0.2, "adaptive_target": 0.6, "dry_multiplier": 0.8, "temperature_last": True}
    names = [type(step).__name__ for step in sampler(said, tokenizer).steps]
    assert [name for name in names if name in ("SS_DRY", "SS_XTC", "SS_AdaptiveP")] == ["SS_DRY", "SS_XTC", "SS_AdaptiveP"]
    assert [type(step).__name__ for step in sampler({"top_k": 1}, tokenizer).steps] == ["SS_Argmax"]


def test_an_answer_without_a_limit_leaves_room_for_others(rig: Rig) -> None:
    """It claims its pages a piece at a time, and goes on in the next piece as if nothing had been."""
    with rig.engine(slots=3) as engine:
        endless = engine.submit({"prompt": PROMPTS[0], **GREEDY})
        endless.take()
        assert engine.generate(PROMPTS[1], max_tokens=4, **GREEDY).text == rig.mind.goes_on(PROMPTS[1], 4)
        assert not endless.ended
        while endless.take() is not None:
            pass
        tokens = endless.answer.body()["usage"]["completion_tokens"]
        assert 2040 <= tokens + len(PROMPTS[0]) <= 2048
        assert endless.answer.text == rig.mind.goes_on(PROMPTS[0], tokens)


def test_pictures_are_read_and_their_pages_found_again(rig: Rig) -> None:
    with rig.seeing().engine(vision=True) as engine:
        question = [{"role": "user", "content": [picture(), {"type": "text", "text": "what is it? " * 30}]}]
        first, again = (engine.chat(question, max_tokens=6, **GREEDY) for _ in range(2))
        assert first.usage.prompt_tokens > 300
        assert again.text == first.text
        assert again.raw["usage"]["prompt_tokens_details"]["cached_tokens"] >= 256
        assert rig.pictures == 1
        with pytest.raises(ConfigError, match="cannot be read"):
            engine.chat([{"role": "user", "content": [picture(b"no picture")]}])


def test_pictures_need_the_tower_and_a_model_that_has_one(rig: Rig, engine: Any) -> None:
    with pytest.raises(ConfigError, match="picture encoder"):
        engine.chat([{"role": "user", "content": [picture()]}])
    with pytest.raises(ConfigError, match="sees no pictures"):
        rig.engine(vision=True)


def picture(data: bytes | None = None) -> dict[str, Any]:
    if data is None:
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8), "red").save(file, "PNG")
        data = file.getvalue()
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(data).decode()}}


def test_a_recurrent_model_with_its_own_drafter(rig: Rig) -> None:
    """Its states must be able to take back what was drafted, and each slot has one."""
    with rig.hybrid().engine(draft="mtp", draft_tokens=3, slots=2, context=512, gpus="RTX 5090") as engine:
        assert engine.info.slots == 2
    assert [one["component"] for one in rig.loads] == ["mtp", "text"]
    assert [(slots, history) for _, _, slots, history in rig.caches] == [(2, 3), (2, 3)]
    assert rig.generators[0]["num_draft_tokens"] == 3


def test_a_model_without_an_mtp_head_is_said_to_have_none(rig: Rig) -> None:
    with pytest.raises(IncompatibleDraft, match="MTP"):
        rig.engine(draft="mtp")


def test_who_is_warmed_up(rig: Rig) -> None:
    for settings in ({}, {"split": "tensor", "warmup": False}):
        rig.engine(**settings).close()
        assert rig.warmups == 0
    rig.engine(split="tensor").close()
    passes = rig.warmups
    rig.engine(warmup=True).close()
    assert passes > 10
    assert rig.warmups == 2 * passes


def test_a_model_that_cannot_be_warmed_up_is_not_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rig.alive()
    monkeypatch.setattr(Model, "forward", lambda *_: 1 / 0)
    with pytest.raises(LoadError, match="cannot run it: rows 1"):
        rig.engine(split="tensor")
    assert rig.workers == []
    no_engine_thread()
    assert rig.alive() == before

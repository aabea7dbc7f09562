"""What either ExLlama engine must do behind Engine: every test here takes a `rig` (rig3.Rig, rig2.Rig) and runs for both.

A rig has: engine(**settings) by hydra_infer.load, raw(prompts, ...) by the engine's own generator, used(engine), the tokens
of the cache that jobs hold, alive(), the engine's live objects and workers, and the Mind, Faults and threads of its model.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rig import GO

from hydra_infer.errors import ConfigError, ContextTooLong, HydraError, LoadError, OutOfMemory

GREEDY = {"temperature": 0.0}
PROMPTS = [f"{number}: the quick brown fox" for number in range(8)]


@pytest.fixture
def engine(rig: Any) -> Any:
    with rig.engine() as made:
        yield made


def say(rig: Any, text: str) -> str:
    """A prompt to which the model says `text`."""
    rig.mind.texts.append(text)
    return f"[[{len(rig.mind.texts) - 1}]]<go>"


def chat(prompt: str) -> str:
    """What the chat template makes of a prompt, without the beginning of the text."""
    return f"user: {prompt}\nassistant: <go>"


# ---- the same tokens as the engine's own generator -------------------------------------------------------------------------


def test_an_answer_is_what_the_generator_says_token_for_token(rig: Any, engine: Any) -> None:
    (ids,) = rig.raw(PROMPTS[:1], tokens=40, **GREEDY)
    reply = engine.generate(PROMPTS[0], max_tokens=40, **GREEDY)
    assert engine.tokenize(reply.text) == ids
    assert reply.finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(PROMPTS[0]) + 1, 40)


def test_a_seed_draws_what_the_generator_draws(rig: Any, engine: Any) -> None:
    sampling = {"temperature": 1.3, "top_p": 0.97, "top_k": 40}
    (ids,) = rig.raw(PROMPTS[:1], seed=7, **sampling)
    assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, seed=7, **sampling).text) == ids
    assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, seed=8, **sampling).text) != ids


def test_penalties_and_biases_are_the_generators(rig: Any, engine: Any) -> None:
    sampling = {"temperature": 0.8, "min_p": 0.05, "repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2}
    sampling["logit_bias"] = {64: 2.0}
    (ids,) = rig.raw(PROMPTS[:1], seed=3, **sampling)
    assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, seed=3, **sampling).text) == ids


def test_eight_at_once_say_what_each_says_alone(rig: Any) -> None:
    alone = rig.raw(PROMPTS, **GREEDY)
    with rig.engine(slots=8) as engine, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda prompt: engine.generate(prompt, max_tokens=32, **GREEDY), PROMPTS))
        assert [engine.tokenize(reply.text) for reply in replies] == alone
        # Eight answers of 32 tokens one after the other would take 256 steps.
        assert engine.stats()["steps"] < 128


def test_a_batch_keeps_its_order(rig: Any) -> None:
    with rig.engine(slots=4) as engine:
        prompts = [say(rig, f"this is number {number}") for number in range(9)]
        assert [str(reply) for reply in engine.batch(prompts)] == [f"this is number {number}" for number in range(9)]


# ---- streams, ends ---------------------------------------------------------------------------------------------------------


def test_a_stream_brings_pieces_and_then_the_counts(rig: Any, engine: Any) -> None:
    prompt = say(rig, "one two three")
    with engine.stream(prompt) as stream:
        pieces = [str(chunk) for chunk in stream]
        reply = stream.reply
    assert "".join(pieces) == reply.text == "one two three"
    assert len([piece for piece in pieces if piece]) > 5
    assert reply.finish_reason == "stop"
    # The end of the text is a token too.
    assert reply.usage.completion_tokens == len("one two three") + 1
    assert reply.timings.ttft is not None


def test_a_stop_string_ends_the_answer_and_is_not_said(rig: Any, engine: Any) -> None:
    prompt = say(rig, "beware of STOLEN goods, then STOP here")
    reply = engine.chat(prompt, stop=["STOP"])
    assert (reply.text, reply.finish_reason) == ("beware of STOLEN goods, then ", "stop")


def test_what_was_held_back_for_a_stop_string_is_said_at_the_end(rig: Any, engine: Any) -> None:
    """The answer ends in the middle of what could have become the stop string."""
    reply = engine.chat(say(rig, "all of this is said, even ST"), stop=["STOP"], logprobs=True)
    assert reply.text == "all of this is said, even ST"
    assert "".join(token["token"] for token in reply.raw["choices"][0]["logprobs"]["content"]) == reply.text


def test_an_end_that_only_generation_config_names(rig: Any, engine: Any) -> None:
    reply = engine.chat(say(rig, "first<end>second"))
    assert (reply.text, reply.finish_reason) == ("first", "stop")


def test_a_stop_token_of_the_request(rig: Any, engine: Any) -> None:
    (comma,) = engine.tokenize(",")
    assert engine.chat(say(rig, "one, two"), stop_token_ids=[comma]).text == "one"


def test_characters_of_several_tokens_arrive_whole(rig: Any, engine: Any) -> None:
    text = "naïve 日本語 🙂 end"
    with engine.stream(say(rig, text)) as stream:
        pieces = [str(chunk) for chunk in stream]
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


def test_banned_strings_are_never_said(rig: Any, engine: Any) -> None:
    text = engine.chat(say(rig, "this is a terrible idea, really"), max_tokens=30, banned_strings=["terrible"], **GREEDY).text
    assert text.startswith("this is a ")
    assert "terrible" not in text


def test_min_tokens_holds_the_end_off(rig: Any, engine: Any) -> None:
    assert engine.chat(say(rig, "ab"), min_tokens=6, max_tokens=20).usage.completion_tokens >= 6


def test_log_probabilities_are_natural_and_of_the_chosen_token(rig: Any, engine: Any) -> None:
    reply = engine.chat("a question", max_tokens=12, logprobs=True, top_logprobs=3, **GREEDY)
    tokens = reply.raw["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == reply.text
    for token in tokens:
        # The mind's three candidates stand at 3.0, 2.0 and 1.5, all others far below.
        assert token["logprob"] == pytest.approx(-0.4644, abs=1e-2)
        assert [round(top["logprob"] - token["logprob"], 2) for top in token["top_logprobs"]] == [0.0, -1.0, -1.5]


def test_a_chat_calls_a_tool(rig: Any, engine: Any) -> None:
    """The tag is a special token, as Llama's is, which an engine leaves out of the text unless it is told."""
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    prompt = say(rig, 'one moment<|python_tag|>{"name": "add", "parameters": {"a": 1}}')
    reply = engine.chat(prompt, tools=[tool])
    assert (reply.text, reply.finish_reason) == ("one moment", "tool_calls")
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in reply.tool_calls] == [
        ("add", {"a": 1})
    ]


# ---- the cache -------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_begins_like_another_is_not_read_again(rig: Any, engine: Any) -> None:
    long = "a story that both prompts share, " * 20
    first = engine.generate(long, max_tokens=4, **GREEDY)
    again = engine.generate(long, max_tokens=4, **GREEDY)
    assert first.raw["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert again.raw["usage"]["prompt_tokens_details"]["cached_tokens"] >= 512
    assert again.text == first.text


def test_pages_used_again_by_other_prompts_say_the_same(rig: Any, engine: Any) -> None:
    """Prompts of 600 tokens in a cache of 2048: pages are given up, taken again and moved."""
    prompts = [f"{number} {'tell me a story ' * 38}" for number in range(6)]
    alone = rig.raw(prompts, tokens=8, **GREEDY)
    for _ in range(2):
        assert [engine.tokenize(engine.generate(prompt, max_tokens=8, **GREEDY).text) for prompt in prompts] == alone
    assert rig.used(engine) == 0


def test_a_prompt_that_is_too_long_is_refused_with_its_numbers(rig: Any, engine: Any) -> None:
    with pytest.raises(ContextTooLong) as caught:
        engine.generate("x" * 3000, max_tokens=1)
    assert (caught.value.tokens, caught.value.context) == (3001, 2048)
    assert engine.generate("x" * 2000, max_tokens=4).usage.completion_tokens == 4


@pytest.mark.parametrize("draft", [None, "model"])
def test_every_prompt_up_to_the_longest_is_answered_and_none_beyond(rig: Any, draft: str | None) -> None:
    answered = []
    with rig.engine(draft=draft) as engine:
        for length in range(2030, 2050):
            try:
                answered.append(engine.generate("x" * length, max_tokens=1).usage.completion_tokens == 1)
            except ContextTooLong:
                answered.append(False)
    assert answered == sorted(answered, reverse=True)
    assert 0 < sum(answered) < len(answered)


def test_without_a_limit_the_context_is_the_limit(rig: Any, engine: Any) -> None:
    reply = engine.generate("y" * 1900, **GREEDY)
    assert reply.finish_reason == "length"
    assert 2040 <= reply.usage.total_tokens <= 2048


# ---- drafts ----------------------------------------------------------------------------------------------------------------


def test_a_draft_model_changes_the_steps_and_not_the_answer(rig: Any) -> None:
    alone = rig.raw(PROMPTS, **GREEDY)
    with rig.engine(slots=2, draft="model", draft_tokens=3) as engine:
        replies = [engine.generate(prompt, max_tokens=32, **GREEDY) for prompt in PROMPTS]
        stats = engine.stats()
        assert [engine.tokenize(reply.text) for reply in replies] == alone
    assert all(0 < reply.draft["acceptance"] < 1 for reply in replies)
    assert stats["draft_accepted"] == sum(reply.draft["accepted"] for reply in replies)
    assert stats["steps"] < 8 * 32 * 0.75


def test_drafts_in_a_batch_are_each_its_own(rig: Any) -> None:
    alone = rig.raw(PROMPTS, **GREEDY)
    with rig.engine(slots=8, draft="model", draft_tokens=3) as engine, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda prompt: engine.generate(prompt, max_tokens=32, **GREEDY), PROMPTS))
        assert [engine.tokenize(reply.text) for reply in replies] == alone


def test_the_text_so_far_can_draft(rig: Any) -> None:
    text = "copy this line. " * 8
    with rig.engine(draft="ngram", draft_tokens=4) as engine:
        reply = engine.chat(say(rig, text))
        assert reply.text == text
        assert reply.draft["accepted"] > len(text) // 2
        assert engine.stats()["steps"] < len(text)


# ---- leaving ---------------------------------------------------------------------------------------------------------------


def test_leaving_a_stream_frees_its_pages(rig: Any, engine: Any) -> None:
    stream = engine.stream("a prompt without an end", max_tokens=1500, **GREEDY)
    assert next(stream) is not None
    stream.close()
    assert rig.used(engine) == 0
    assert engine.chat(say(rig, "next")).text == "next"
    assert engine.stats()["cancelled"] == 1


def test_leaving_while_the_prompt_is_read(rig: Any) -> None:
    with rig.engine(chunk=256) as engine, rig.faults.held("prefill") as gate:
        stream = engine.stream("z" * 1700, max_tokens=8)
        gate.wait_until_met()
        stream.close()
        gate.open()
        assert rig.used(engine) == 0
        assert engine.chat(say(rig, "next")).text == "next"
        # Seven chunks it would have been.
        assert rig.faults.met["prefill"] <= 3


def test_closing_fails_what_is_in_flight_and_ends_the_thread(rig: Any) -> None:
    engine = rig.engine(slots=2)
    jobs = [engine.submit({"prompt": prompt, "max_tokens": 900}) for prompt in PROMPTS[:4]]
    engine.close()
    for job in jobs:
        with pytest.raises(LoadError, match="closed"):
            while job.take() is not None:
                pass
    with pytest.raises(LoadError, match="closed"):
        engine.chat("more")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hydra-")]


@pytest.mark.parametrize("draft", [None, "model", "ngram"])
def test_a_crowd_that_shares_beginnings_and_leaves_early_says_what_each_should(rig: Any, draft: str | None) -> None:
    crowd(rig, slots=4, draft=draft)


def crowd(rig: Any, **settings: Any) -> None:
    """More prompts than slots and pages, of any length, a third of them given up: all others are as the mind has them."""
    chance = random.Random(5)
    base = "".join(chance.choice("abc ") for _ in range(900))
    asked = [(base[: chance.randint(1, 900)] + str(number % 3), chance.randint(1, 300), number % 3 == 1) for number in range(15)]

    def ask(prompt: str, tokens: int, leaves: bool) -> str:
        job = engine.submit({"prompt": prompt, "max_tokens": tokens, **GREEDY})
        if leaves:
            job.take()
            job.cancel()
            return rig.mind.goes_on(prompt, tokens)
        return "".join(chunk.text for chunk in iter(job.take, None))

    with rig.engine(chunk=512, **settings) as engine, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: ask(*one), asked))
        assert answers == [rig.mind.goes_on(prompt, tokens) for prompt, tokens, _ in asked]
        assert rig.used(engine) == 0


# ---- faults ----------------------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_in_decoding_fails_the_active_and_is_recovered_from(rig: Any) -> None:
    alone = rig.raw(PROMPTS, **GREEDY)
    with rig.engine(slots=8) as engine:
        streams = [engine.stream(prompt, max_tokens=400, **GREEDY) for prompt in PROMPTS[:3]]
        for stream in streams:
            next(stream)
        rig.faults.next("decode")
        for stream in streams:
            with pytest.raises(OutOfMemory) as caught:
                list(stream)
            assert caught.value.stage == "decode"
        assert rig.used(engine) == 0
        replies = [engine.generate(prompt, max_tokens=32, **GREEDY) for prompt in PROMPTS]
        assert [engine.tokenize(reply.text) for reply in replies] == alone
        assert engine.stats()["rebuilds"] == 1


def test_a_second_fault_takes_the_engine_down_and_reload_brings_it_back(rig: Any) -> None:
    alone = rig.raw(PROMPTS[:1], **GREEDY)
    before = rig.alive()
    with rig.engine() as engine:
        for _ in range(2):
            rig.faults.next("decode")
            with pytest.raises(HydraError):
                engine.generate("a prompt", max_tokens=4)
        with pytest.raises(LoadError, match="taken down") as caught:
            engine.generate("a prompt", max_tokens=4)
        assert "reload" in str(caught.value.hint)
        assert rig.alive() == before
        assert engine.stats()["loaded"] is False
        engine.reload()
        assert engine.tokenize(engine.generate(PROMPTS[0], max_tokens=32, **GREEDY).text) == alone[0]


def test_a_fault_long_after_another_is_a_first_one(rig: Any, engine: Any) -> None:
    for _ in range(3):
        rig.faults.next("decode")
        with pytest.raises(OutOfMemory):
            engine.generate("a prompt", max_tokens=4)
        assert engine.chat(say(rig, "well again")).text == "well again"
    assert engine.stats()["rebuilds"] == 3


# ---- many at once ----------------------------------------------------------------------------------------------------------


def test_two_hundred_requests_from_threads_and_a_loop_lose_nothing(rig: Any) -> None:
    rig.threads.clear()
    texts = [f"answer {number} of many" for number in range(20)]
    prompts = [say(rig, text) for text in texts]
    with rig.engine(slots=8) as engine, ThreadPoolExecutor(16) as pool:
        owner = engine._core._driver.thread.ident

        async def ask() -> list[str]:
            replies = await asyncio.gather(*(engine.aio.chat(prompts[number % 20]) for number in range(100)))
            return [reply.text for reply in replies]

        from_threads = [pool.submit(engine.chat, prompts[number % 20]) for number in range(100)]
        from_loop = asyncio.run(ask())
        assert [future.result().text for future in from_threads] == texts * 5
        assert from_loop == texts * 5
        stats = engine.stats()
    assert (stats["finished"], stats["failed"], stats["cancelled"], stats["in_flight"]) == (200, 0, 0, 0)
    assert rig.threads == {owner}


# ---- loading and freeing ---------------------------------------------------------------------------------------------------


def test_twenty_loads_leave_nothing_behind(rig: Any) -> None:
    before, threads = rig.alive(), threading.active_count()
    for _ in range(20):
        with rig.engine(slots=2, draft="model") as engine:
            assert engine.generate("a prompt", max_tokens=3, **GREEDY).usage.completion_tokens == 3
    gc.collect()
    assert rig.alive() == before
    assert threading.active_count() == threads


def test_an_interrupt_from_the_progress_function_cancels_the_load(rig: Any) -> None:
    before, seen = rig.alive(), []

    def progress(fraction: float, message: str) -> None:
        seen.append((fraction, message))
        raise KeyboardInterrupt

    with rig.faults.held("load"), pytest.raises(KeyboardInterrupt):
        rig.engine(progress=progress)
    no_engine_thread()
    assert rig.alive() == before
    assert len(seen) == 1


def test_progress_rises_to_the_end(rig: Any) -> None:
    seen: list[float] = []
    rig.engine(draft="model", progress=lambda fraction, _: seen.append(fraction)).close()
    assert seen == sorted(seen)
    assert len(seen) >= 4
    assert all(0 <= fraction <= 1 for fraction in seen)


def test_memory_that_runs_out_while_loading_is_said_and_all_is_freed(rig: Any) -> None:
    before = rig.alive()
    rig.faults.next("load")
    with pytest.raises(OutOfMemory) as caught:
        rig.engine()
    assert (caught.value.stage, caught.value.device) == ("loading", "cuda:1")
    no_engine_thread()
    assert rig.alive() == before


def test_an_option_that_the_generator_lacks_is_an_error(rig: Any) -> None:
    with pytest.raises(ConfigError, match="max_batchsize"):
        rig.engine(options={"max_batchsize": 4})
    with pytest.raises(ConfigError, match="max_batch_size"):
        rig.engine(options={"max_batch_size": 4})


def test_a_sampling_field_that_the_engine_lacks_is_an_error(rig: Any, engine: Any) -> None:
    with pytest.raises(ConfigError, match="temprature"):
        engine.chat("hello", temprature=1.0)


def test_words_and_numbers(rig: Any, engine: Any) -> None:
    ids = engine.tokenize("a<go>b")
    assert len(ids) == len("a<go>b")  # plain text: nothing in it is special
    assert engine.detokenize(ids) == "a<go>b"
    assert engine.detokenize([GO]) == "<go>"


def no_engine_thread() -> None:
    """Wait for the end of engines whose callers did not."""
    for thread in threading.enumerate():
        if thread.name.startswith("hydra-"):
            thread.join(10)
            assert not thread.is_alive()
    gc.collect()

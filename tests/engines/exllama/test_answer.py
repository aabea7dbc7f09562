"""An engine's results as OpenAI-shaped events: text, reasoning, calls, log probabilities, how it ended."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hydra_infer.engines.exllama.answer import Answer
from hydra_infer.engines.formats import Format
from hydra_infer.engines.parts import Reader
from hydra_infer.reply import Assembler

PIECES = ["<s>", "</s>", "Hel", "lo", "!"]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
HERMES = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
NUMBERS = {
    "prompt_tokens": 4,
    "new_tokens": 3,
    "cached_tokens": 0,
    "time_enqueued": 0.0,
    "time_prefill": 2.0,
    "time_generate": 4.0,
}


class Rows:
    """As much of a tensor as is read: nested lists that can be flattened and reshaped."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def flatten(self) -> Rows:
        return self

    def reshape(self, count: int, _rest: int) -> Rows:
        wide = len(self.values) // count
        return Rows([self.values[at * wide : (at + 1) * wide] for at in range(count)])

    def tolist(self) -> list[Any]:
        return self.values


def result(text: str = "", reason: str | None = None, **more: Any) -> dict[str, Any]:
    ending = {} if reason is None else {"eos_reason": reason, **NUMBERS}
    return {"stage": "streaming", "eos": reason is not None, "text": text, **ending, **more}


def answer(template: str | None = "", tools: Any = None, prompt: str = "") -> Answer:
    reader = None if template is None else Reader(Format.of(template), prompt=prompt, tools=tools)
    return Answer(number=7, model="m", reader=reader, pieces=lambda: PIECES)


def told(one: Answer, *results: dict[str, Any]) -> Assembler:
    heard = Assembler()
    for each in results:
        for event in one.events(each):
            heard.add(event)
    return heard


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop_token", "stop"),
        ("stop_string", "stop"),
        ("end_filter", "stop"),
        ("loop_detected", "stop"),
        ("max_new_tokens", "length"),
    ],
)
def test_how_it_ended(reason: str, finish: str) -> None:
    for template in (None, ""):
        reply = told(answer(template), result("Hel"), result("lo", reason)).reply()
        assert (reply.text, reply.finish_reason) == ("Hello", finish)


def test_a_chat_begins_with_its_role_and_ends_with_usage_and_timings() -> None:
    events = [event for each in (result("Hel"), result("lo", "stop_token")) for event in answer().events(each)]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[0]["object"] == "chat.completion.chunk"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 7
    timings = events[-1]["timings"]
    assert (timings["prompt_per_second"], timings["predicted_per_second"]) == (2.0, 0.5)
    assert "draft_n" not in timings
    assert {event["id"] for event in events} == {"chatcmpl-7"}


def test_an_answer_of_nothing_is_whole() -> None:
    reply = told(answer(), result("", "stop_token")).reply()
    assert (reply.text, reply.message["role"], reply.finish_reason) == ("", "assistant", "stop")


def test_thoughts_and_calls_are_parted() -> None:
    one = answer("<think></think><tool_call>", TOOLS, prompt="…<think>\n")
    reply = told(one, result("hm</th"), result("ink>Well" + HERMES), result("", "stop_token")).reply()
    assert (reply.reasoning, reply.text, reply.finish_reason) == ("hm", "Well", "tool_calls")
    (call,) = reply.tool_calls
    assert (call["function"]["name"], call["function"]["arguments"]) == ("f", '{"a": 1}')


def test_what_was_held_back_comes_out_at_the_end() -> None:
    reply = told(answer("<tool_call>", TOOLS), result("a <tool_"), result("", "stop_token")).reply()
    assert (reply.text, reply.finish_reason) == ("a <tool_", "stop")


def probabilities() -> dict[str, Any]:
    return {
        "token_ids": Rows([2, 3]),
        "token_probs": Rows([0.5, 0.0]),
        "top_k_tokens": Rows([2, 3, 3, 99]),
        "top_k_probs": Rows([0.5, 0.25, 0.75, 0.25]),
    }


def test_log_probabilities_of_a_chat() -> None:
    reply = told(answer(), result("Hello", **probabilities()), result("", "stop_token")).reply()
    first, second = reply.raw["choices"][0]["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("Hel", math.log(0.5), [72, 101, 108])
    assert [(one["token"], one["logprob"]) for one in first["top_logprobs"]] == [("Hel", math.log(0.5)), ("lo", math.log(0.25))]
    assert second["logprob"] == -9999.0
    assert second["top_logprobs"][1]["token"] == ""  # an id beyond the vocabulary: padding


def test_log_probabilities_of_a_completion() -> None:
    one = answer(None)
    reply = told(one, result("Hello", **probabilities()), result("!", "stop_token")).reply()
    found = reply.raw["choices"][0]["logprobs"]
    assert (found["tokens"], found["text_offset"]) == (["Hel", "lo"], [0, 3])
    assert found["top_logprobs"][0] == {"Hel": math.log(0.5), "lo": math.log(0.25)}


def test_tokens_whose_text_is_held_back_have_their_probabilities_already() -> None:
    one = answer("<tool_call>", TOOLS)
    one.events(result("a"))
    (event,) = one.events(result("<tool", token_ids=Rows([2]), token_probs=Rows([1.0])))
    assert event["choices"][0]["delta"] == {}
    assert event["choices"][0]["logprobs"]["content"][0]["logprob"] == 0.0

"""Putting streamed pieces together."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hydra_infer.reply import Assembler, Timings


def chat(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "local", "choices": [choice], **more}


def test_a_chat_is_what_a_plain_call_would_have_returned() -> None:
    assembler = Assembler()
    for event in [
        chat({"role": "assistant", "content": ""}),
        chat({"content": "Hel"}),
        chat({"content": "lo"}),
        chat({}, "stop"),
    ]:
        assembler.add(event)
    assembler.add(
        {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, "x_extra": 7}
    )
    reply = assembler.reply(model="llama-70b", timings=Timings(ttft=0.5))
    assert reply.text == "Hello"
    assert reply.raw == {
        "id": "c1",
        "model": "llama-70b",
        "object": "chat.completion",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "x_extra": 7,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    }
    assert (reply.usage.total_tokens, reply.finish_reason, reply.timings.ttft) == (5, "stop", 0.5)
    assert json.loads(json.dumps(reply.to_dict())) == reply.to_dict()


def test_tool_call_pieces_are_merged_by_index_and_whole_ones_appended() -> None:
    assembler = Assembler()
    assembler.add(
        chat({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x"'}}]})
    )
    assembler.add(
        chat(
            {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "id": "b", "function": {"name": "g"}}]}
        )
    )
    assembler.add(chat({"tool_calls": [{"id": "c", "function": {"name": "h", "arguments": "{}"}}]}, "tool_calls"))
    calls = assembler.reply().tool_calls
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("a", "f", '{"x": 1}'),
        ("b", "g", ""),
        ("c", "h", "{}"),
    ]


def test_pieces_go_on_with_a_call_that_came_in_a_message_and_lacks_half_of_it() -> None:
    assembler = Assembler()
    assembler.add({"choices": [{"index": 0, "message": {"tool_calls": [{"id": "a"}]}}]})
    assembler.add(chat({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}))
    assert assembler.reply().tool_calls == [{"id": "a", "type": None, "function": {"name": "f", "arguments": "{}"}}]


def test_both_spellings_of_reasoning_are_read() -> None:
    for key in ("reasoning_content", "reasoning"):
        assembler = Assembler()
        chunk = assembler.add(chat({key: "hm"}))
        assembler.add(chat({key: "m", "content": None}))
        assert chunk.reasoning == "hm"
        assert assembler.reply().reasoning == "hmm"
        assert assembler.reply().message[key] == "hmm"


def test_several_choices_and_logprobs_are_kept_apart() -> None:
    assembler = Assembler()
    for index, word in [(0, "a"), (1, "x"), (0, "b"), (1, "y")]:
        event = chat({"content": word}, index=index)
        event["choices"][0]["logprobs"] = {"content": [{"token": word}]}
        assembler.add(event)
    body = assembler.body()
    assert [choice["message"]["content"] for choice in body["choices"]] == ["ab", "xy"]
    assert [token["token"] for token in body["choices"][1]["logprobs"]["content"]] == ["x", "y"]
    assert assembler.text == "ab"


def test_a_text_completion_has_text_and_no_message() -> None:
    assembler = Assembler()
    for text, finish in [("Once", None), (" upon", "length")]:
        assembler.add({"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": finish}]})
    reply = assembler.reply()
    assert (reply.text, reply.raw["object"], reply.finish_reason) == ("Once upon", "text_completion", "length")
    assert "message" not in reply.raw["choices"][0]


def test_a_whole_body_is_taken_as_it_is() -> None:
    body = {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
    }
    assembler = Assembler()
    assembler.whole(body)
    assert (assembler.reply().text, assembler.reply().raw) == ("hi", body)


def test_the_servers_own_speeds_win_over_ours() -> None:
    assembler = Assembler()
    assembler.add(chat({"content": "x"}, "stop", timings={"predicted_per_second": 40.0, "prompt_per_second": 900.0}))
    timings = assembler.reply(timings=Timings(ttft=1.0, decode_tps=5.0)).timings
    assert (timings.ttft, timings.decode_tps, timings.prefill_tps) == (1.0, 40.0, 900.0)


def test_a_long_answer_is_not_copied_for_each_of_its_tokens() -> None:
    def event(token: str, times: int) -> dict[str, Any]:
        logprobs = {"content": [{"token": token}] * times}
        return {"choices": [{"index": 0, "delta": {"content": token * times}, "logprobs": logprobs}]}

    assembler, first = Assembler(), event("x", 2**20)
    tracemalloc.start()
    try:
        assembler.add(first)
        assembler.add(event("y", 1))  # from here on the texts are nobody's but its own
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assembler.add(event("z", 1))
        assert tracemalloc.get_traced_memory()[1] < held + 2**19
    finally:
        tracemalloc.stop()
    assert assembler.text[-3:] == "xyz"
    assert len(assembler.body()["choices"][0]["logprobs"]["content"]) == 2**20 + 2
    assert len(first["choices"][0]["logprobs"]["content"]) == 2**20  # an event stays as it came

"""The Responses API in the words of chat completions: requests to there, answers from there, checked by openai's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from hydra_infer import ConfigError
from hydra_infer.wire.responses import NoCounterpart, Speaker, as_chat

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def chunk(finish: str | None = None, usage: dict[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "created": 7, "model": "local", "choices": choices, **({"usage": usage} if usage else {})}


def call(index: int, **piece: Any) -> dict[str, Any]:
    name = {"name": piece["name"]} if "name" in piece else {}
    head = {"id": piece["id"]} if "id" in piece else {}
    return {"index": index, **head, "function": {**name, "arguments": piece.get("arguments", "")}}


def said(*chunks: dict[str, Any], **asked: Any) -> tuple[list[dict[str, Any]], Response]:
    """Every event, and the whole response; each as openai's package reads it, unknown fields and missing ones being errors."""
    speaker = Speaker(asked, "m", "1")
    events = [event for piece in chunks for event in speaker.feed(piece)] + list(speaker.end())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(json.loads(json.dumps(event)))
    return events, Response.model_validate(events[-1]["response"])


# ---- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_question() -> None:
    asked = {"model": "m", "input": "hi", "instructions": "be brief", "max_output_tokens": 9, "temperature": 0, "top_k": 3}
    assert as_chat({**asked, "stream": True, "store": True, "metadata": {"a": "b"}, "truncation": "auto"}) == {
        "model": "m",
        "stream": True,
        "temperature": 0,
        "top_k": 3,  # a server's own sampler goes through
        "max_tokens": 9,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    }


def test_a_conversation_with_tools_and_pictures() -> None:
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
    items = [
        {"role": "developer", "content": "use tools"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "a "}, {"type": "input_text", "text": "?"}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "see"}, picture]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
    ]
    chat = as_chat(
        {
            "model": "m",
            "input": items,
            "instructions": "be brief",
            "tools": [tool],
            "tool_choice": {"type": "function", "name": "f"},
        }
    )
    calls = [
        {"id": str(n), "type": "function", "function": {"name": "f", "arguments": a}} for n, a in ((1, "{}"), (2, '{"a":1}'))
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
    assert chat["messages"] == [
        {"role": "system", "content": "be brief\n\nuse tools"},
        {"role": "user", "content": "a ?"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, image]},
        {"role": "assistant", "content": "wait", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    ]
    assert chat["tools"] == [{"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "f"}}


def test_formats_and_effort() -> None:
    wanted = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    chat = as_chat({"model": "m", "input": "a", "text": {"format": wanted, "verbosity": "low"}, "reasoning": {"effort": "high"}})
    schema = {"name": "x", "schema": {"type": "object"}, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert (chat["verbosity"], chat["reasoning_effort"]) == ("low", "high")
    assert as_chat({"model": "m", "input": "a", "text": {"format": {"type": "text"}}}).keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("previous_response_id", "resp_1", "answers are not stored"),
        ("conversation", "conv_1", "answers are not stored"),
        ("background", True, "answers are not stored"),
        ("tools", [{"type": "web_search"}], "tool of type 'web_search'"),
        ("input", [{"type": "item_reference", "id": "x"}], "item_reference"),
        ("input", [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}], "'input_file' by file_id"),
    ],
)
def test_what_chat_completions_cannot_say_is_refused_with_the_switch(field: str, value: Any, words: str) -> None:
    with pytest.raises(NoCounterpart, match=words) as caught:
        as_chat({"model": "m", "input": "a", field: value})
    assert "switch the client to chat completions" in str(caught.value)


def test_nonsense_is_the_callers_mistake() -> None:
    for value in (None, 3, ["a"], [{"role": "user", "content": 3}]):
        with pytest.raises(ConfigError) as caught:
            as_chat({"model": "m", "input": value})
        assert not isinstance(caught.value, NoCounterpart)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["function", "message", "input_text", "json_schema", "low"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "format", "output", "effort"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["input", "instructions", "tools", "tool_choice", "text", "reasoning"]), _ANYTHING))
def test_whatever_stands_there_nothing_else_is_raised(fields: dict[str, Any]) -> None:
    try:
        chat = as_chat({"model": "m", "input": "a", **fields})
    except ConfigError:
        return
    assert json.loads(json.dumps(chat))["messages"]


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_a_text_answer() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    events, response = said(
        chunk(role="assistant", content=""),
        chunk(content="one"),
        chunk(content=" two"),
        chunk("stop", usage=usage),
        instructions="be brief",
        temperature=0.5,
    )
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert (response.output_text, response.status, response.model, response.created_at) == ("one two", "completed", "m", 7)
    assert (response.instructions, response.temperature, response.store) == ("be brief", 0.5, False)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 2)


def test_thoughts_then_text_then_two_calls_in_pieces() -> None:
    events, response = said(
        chunk(reasoning_content="hm"),
        chunk(content="so"),
        chunk(tool_calls=[call(0, id="a", name="f")]),
        chunk(tool_calls=[call(0, arguments='{"x"'), call(1, id="b", name="g", arguments="{}")]),
        chunk("tool_calls", tool_calls=[call(0, arguments=":1}")]),
    )
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    calls = [(item.call_id, item.name, item.arguments) for item in response.output if item.type == "function_call"]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", "{}")]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"] == [
        '{"x"',
        "{}",
        ":1}",
    ]


def test_an_answer_cut_at_the_limit_is_incomplete() -> None:
    events, response = said(chunk("length", content="on"))
    assert events[-1]["type"] == "response.incomplete"
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_broken_answer_is_an_error_that_sdks_raise() -> None:
    speaker = Speaker({}, "m", "1")
    list(speaker.feed(chunk(content="so far")))
    event = speaker.failed({"message": "broke off", "code": "stream_broken"})
    assert (event["type"], event["error"]["message"], speaker.text) == ("error", "broke off", "so far")

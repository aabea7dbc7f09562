"""What a model writes, in every family's format, parted into content, reasoning and calls, however it is cut."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_infer.engines.formats import FORMATS, PLAIN, Format
from hydra_infer.engines.parts import Reader
from hydra_infer.reply import Assembler

THINK = ("<think>", "</think>")
# What tells each format apart, as it stands in chat templates.
MARKS = {
    "plain": "{{ message.content }}",
    "hermes": "<tool_call> {{ call | tojson }} </tool_call>",
    "qwen-xml": "<tool_call> <function={{ name }}>",
    "glm": "<tool_call>{{ name }} <arg_key>",
    "llama": "<|python_tag|>",
    "mistral": "[TOOL_CALLS]",
    "mistral-args": "[TOOL_CALLS] [ARGS]",
    "deepseek-v3": "<｜tool▁calls▁begin｜> ```json",
    "deepseek-v3.1": "<｜tool▁calls▁begin｜>",
    "harmony": "<|channel|> <|message|>",
}
FORMS = {name: Format.of(marks + " </think>") for name, marks in MARKS.items()}


def tool(name, **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [
    tool("weather", city={"type": "string"}, days={"type": "integer"}),
    tool("note", text={"anyOf": [{"type": "string"}, {"type": "null"}]}, tags={"type": "array"}),
]


def read(form, *pieces, tools=TOOLS, **options):
    """(content, reasoning, [(name, arguments)]) and the reader."""
    numbers = itertools.count()
    reader = Reader(form, tools=tools, new_id=lambda: f"{next(numbers):09}", **options)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.end()
    whole = Assembler()
    for delta in deltas:
        assert len(delta) == 1
        whole.add({"choices": [{"index": 0, "delta": delta}]})
    calls = whole.reply().tool_calls
    assert [call["id"] for call in calls] == [f"{form.prefix}{n:09}" for n in range(len(calls))]
    assert reader.called == bool(calls)
    return whole.text, whole.reasoning, [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


A = ("weather", '{"city": "Paris {\\"<tool_call>\\"}", "days":  2}')
B = ("note", '{"text": "Füße ✓ </tool_call> [x] }{"}')
GOLDEN = {
    "hermes": (
        f'<tool_call>\n{{"name": "weather", "arguments": {A[1]}}}\n</tool_call>\n'
        f'<tool_call>{{"arguments": {B[1]}, "name": "note"}}</tool_call>'
    ),
    "llama": f'{{"name": "weather", "parameters": {A[1]}}}; {{"name": "note", "parameters": {B[1]}}}',
    "mistral": f'[TOOL_CALLS] [{{"name": "weather", "arguments": {A[1]}}}, {{"name": "note", "arguments": {B[1]}, "id": "x"}}]',
    "mistral-args": f"[TOOL_CALLS]weather[ARGS]{A[1]}[TOOL_CALLS]note[CALL_ID]abc123def[ARGS]{B[1]}",
    "deepseek-v3": (
        "<｜tool▁calls▁begin｜>"
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{A[1]}\n```<｜tool▁call▁end｜>\n"
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>note\n```json\n{B[1]}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{A[1]}<｜tool▁call▁end｜>"
        f"<｜tool▁call▁begin｜>note<｜tool▁sep｜>{B[1]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "harmony": (
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{A[1]}<|call|>"
        f"<|start|>assistant to=functions.note<|channel|>commentary json<|message|>{B[1]}<|call|>"
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_two_calls_with_their_arguments_byte_for_byte(name):
    assert read(FORMS[name], GOLDEN[name]) == ("", "", [A, B])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in ("llama", "harmony")])
def test_calls_after_words_and_words_between(name):
    text, _, calls = read(FORMS[name], "Let me see.\n" + GOLDEN[name] + "\n\nDone.")
    assert (text, calls) == ("Let me see.\nDone.", [A, B])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "harmony"])
def test_thoughts_then_calls(name):
    form = FORMS[name]
    expected = ("", "I need\nthe weather.", [A, B])
    assert read(form, "<think>\nI need\nthe weather.\n</think>\n\n" + GOLDEN[name]) == expected
    assert read(form, "\nI need\nthe weather.\n</think>\n\n" + GOLDEN[name], prompt="…<|assistant|><think>\n") == expected


QWEN = (
    "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
    "<tool_call>\n<function=note>\n<parameter=text>\na\n\n</tool_call> </parameter> b\n</parameter>\n"
    '<parameter=tags>\n["x", {"y": 1}]\n</parameter>\n</function>\n</tool_call>'
)
GLM = (
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
    "<tool_call>note\n<arg_key>text</arg_key>\n<arg_value>a\n\n</tool_call> </parameter> b</arg_value>"
    '<arg_key>tags</arg_key><arg_value>["x", {"y": 1}]</arg_value></tool_call>'
)


@pytest.mark.parametrize(("name", "said"), [("qwen-xml", QWEN), ("glm", GLM)])
def test_values_in_tags_get_their_types_from_the_tools(name, said):
    _, _, calls = read(FORMS[name], said)
    assert [(call, json.loads(arguments)) for call, arguments in calls] == [
        ("weather", {"city": "12", "days": 3}),
        ("note", {"text": "a\n\n</tool_call> </parameter> b", "tags": ["x", {"y": 1}]}),
    ]


def test_a_value_for_text_or_null_and_one_that_no_schema_knows():
    said = "<tool_call><function=note><parameter=text>null</parameter><parameter=more>no json</parameter></function></tool_call>"
    assert json.loads(read(FORMS["qwen-xml"], said)[2][0][1]) == {"text": None, "more": "no json"}


@pytest.mark.parametrize(
    ("name", "said", "arguments"),
    [
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', '{"a": 1}'),
        ("glm", "<tool_call>f\n</tool_call>", "{}"),
        ("qwen-xml", "<tool_call><function=f></function></tool_call>", "{}"),
        ("mistral", '[TOOL_CALLS]f{"a": 1}', '{"a": 1}'),
    ],
)
def test_arguments_left_out_or_wrapped_in_a_string(name, said, arguments):
    assert read(FORMS[name], said) == ("", "", [("f", arguments)])


def test_llama_calls_behind_the_python_tag_and_on_lines_of_their_own():
    one, two = (f'{{"name": "{name}", "parameters": {arguments}}}' for name, arguments in (A, B))
    assert read(FORMS["llama"], f"<|python_tag|>{one}\n{two}")[2] == [A, B]
    typed = '{"type": "function", "name": "weather", "parameters": {}}'
    assert read(FORMS["llama"], typed)[2] == [("weather", "{}")]


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "Ada", "parameters": {}}',  # JSON, but no tool's name
        '{"answer": 42}',
        'Say {"name": "weather", "parameters": {}}',  # not the whole answer
        "<|python_tag|>print(1)",
        "; then",
    ],
)
def test_llama_answers_that_are_no_calls(said):
    assert read(FORMS["llama"], said) == (said, "", [])


BROKEN = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}}'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    ("hermes", "  <tool_call> is how it begins"),
    ("hermes", "a </tool_call> b </think> c <think> d"),
    ("hermes", '<tool_call>{"a": ' + "[" * 100_000 + "]" * 100_000 + "}</tool_call>"),
    ("qwen-xml", "<tool_call>\n<function=f>\n<parameter=a>\n1"),
    ("qwen-xml", "<tool_call>\n<function=f>\nwords\n</function>\n</tool_call>"),
    ("glm", "<tool_call>two words</tool_call>"),
    ("mistral", "[TOOL_CALLS] said the bird"),
    ("mistral", "[TOOL_CALLS][1, 2]"),
    ("mistral", '[TOOL_CALLS][["name", "f"]]'),
    ("mistral-args", "[TOOL_CALLS]f[ARGS]{"),
    ("deepseek-v3", "<｜tool▁calls▁begin｜>words"),
    ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁calls▁end｜>"),
    ("harmony", "<|channel|>nowhere"),
    ("harmony", "to=morrow"),
]


@pytest.mark.parametrize(("name", "said"), BROKEN)
def test_what_is_no_call_after_all_is_the_text_that_it_is(name, said):
    assert read(FORMS[name], said) == (said, "", [])
    assert read(FORMS[name], *said[:2000])[0] == said[:2000]


def test_a_call_behind_a_broken_one_is_found():
    text, _, calls = read(FORMS["hermes"], '<tool_call>{"name": "f"\n</tool_call>\n' + GOLDEN["hermes"])
    assert text.startswith('<tool_call>{"name": "f"\n</tool_call>')
    assert calls == [A, B]


def test_thoughts_that_do_not_end():
    assert read(FORMS["hermes"], "<think>\nWhat if <tool_call>{}</tool_call> </thi") == (
        "", "What if <tool_call>{}</tool_call> </thi", []
    )  # fmt: skip


def test_a_prompt_that_ends_its_thoughts_has_not_begun_them():
    assert read(FORMS["plain"], "Yes.", prompt="<think>\n\n</think>\n\n") == ("Yes.", "", [])
    assert read(FORMS["plain"], "Hm.</think>Yes.", prompt="<think>\n") == ("Yes.", "Hm.", [])


def test_an_answer_may_speak_of_thoughts():
    said = "Models write <think> and </think>."
    assert read(FORMS["plain"], said) == (said, "", [])


def test_magistral_thinks_in_brackets():
    form = Format.of("[TOOL_CALLS] [ARGS] [THINK] [/THINK]")
    assert form.special
    assert read(form, "[THINK]Hm.[/THINK]Yes.") == ("Yes.", "Hm.", [])


def test_harmony_channels():
    said = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Bonn"}'
    )
    assert read(FORMS["harmony"], said) == ("I look.", "Hm.", [("weather", '{"city": "Bonn"}')])
    final = "<|channel|>final<|message|>Sunny <b>\n"
    assert read(FORMS["harmony"], final, tools=None) == ("Sunny <b>\n", "", [])
    recipient_first = ' to=functions.weather<|channel|>commentary<|message|>{"city": "Bonn"}'
    assert read(FORMS["harmony"], recipient_first)[2] == [("weather", '{"city": "Bonn"}')]


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "harmony"])
def test_without_tools_nothing_is_a_call(name):
    said = GOLDEN[name]
    assert read(FORMS[name], said, tools=None) == (said, "", [])
    assert read(FORMS[name], said, tool_choice="none") == (said, "", [])


def test_only_what_may_become_a_tag_is_held_back():
    reader = Reader(FORMS["hermes"], tools=TOOLS)
    assert [reader.feed(piece) for piece in ("Hi", " <", "b> <tool", "s", " \n")] == [
        [{"content": "Hi"}], [{"content": " "}], [{"content": "<b> "}], [{"content": "<tools"}], [{"content": " \n"}]
    ]  # fmt: skip
    plain = Reader(PLAIN, tools=TOOLS)
    assert plain.feed("<tool_call>") == [{"content": "<tool_call>"}]
    call = Reader(FORMS["hermes"], tools=TOOLS)
    assert call.feed('<tool_call>{"name": "f"}') == []
    assert len(call.feed("</tool_call>")) == 1


def test_the_format_is_told_from_the_template():
    assert {name: Format.of(marks).name for name, marks in MARKS.items()} == {name: name for name in MARKS}
    assert Format.of(None) == Format.of("") == PLAIN
    assert Format.of("{% if '</think>' in content %}").think == THINK
    assert Format.of("<|im_start|>…<|im_end|>").ends == ("<|im_end|>",)
    assert FORMS["harmony"].ends == ("<|call|>", "<|return|>")
    assert {name for name, form in FORMS.items() if form.special} == {
        "llama", "mistral", "mistral-args", "deepseek-v3", "deepseek-v3.1", "harmony"
    }  # fmt: skip
    assert len({form.name for _, form in FORMATS}) == len(MARKS) - 1


@given(st.sampled_from(sorted(FORMS)), st.text(alphabet=st.characters(exclude_characters="<[{;t", exclude_categories=["Cs"])))
def test_text_without_tags_comes_out_byte_for_byte(name, said):
    assert read(FORMS[name], *said) == (said, "", [])


WORDS = sorted(
    {tag for form in FORMS.values() for tag in (*form.opens, *form.starts, *form.drops)}
    | {*THINK, "</tool_call>", "<function=f>", "</function>", "<parameter=a>", "</parameter>", "<|message|>", "final", " ", "\n"}
    | {"{", "}", '"', "[", "]", '{"name": "weather"', ', "arguments": {}', "words", "<", "ü", "<arg_key>", "[ARGS]", "weather"}
)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.sampled_from([*WORDS, *GOLDEN.values(), QWEN, GLM]), max_size=12).map("".join),
    st.lists(st.integers(min_value=1, max_value=30), min_size=1, max_size=8),
    st.sampled_from(["", "<think>\n"]),
)
def test_the_cut_does_not_matter(name, said, sizes, prompt):
    lengths, pieces, at = itertools.cycle(sizes), [], 0
    while at < len(said):
        pieces.append(said[at : at + next(lengths)])
        at += len(pieces[-1])
    form = replace(FORMS[name], think=None) if FORMS[name].channels else FORMS[name]
    assert read(form, *pieces, prompt=prompt) == read(form, said, prompt=prompt)

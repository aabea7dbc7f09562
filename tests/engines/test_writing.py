"""A forced call: the grammar is one that llguidance takes, it lets nothing but the call through, and the Reader reads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import llguidance
import pytest

from hydra_infer.engines.formats import FORMATS, PLAIN, Format
from hydra_infer.engines.parts import Reader
from hydra_infer.errors import ConfigError

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "scale": {"enum": ["C", "F"]},
        "days": {"type": "integer"},
        "place": {"$ref": "#/$defs/Place"},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "now"}},
]
WEATHER = {"type": "function", "function": {"name": "weather"}}
FORMS = {form.name: form for _, form in FORMATS if form.writing is not None}
ARGUMENTS = '{"city": "Köln", "days": 2, "place": {"x": 1.5}}'
QWEN_CITY = "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n"
SAID = {
    "hermes": f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "qwen-xml": (
        f'{QWEN_CITY}<parameter=days>\n2\n</parameter>\n<parameter=place>\n{{"x": 1.5}}\n</parameter>\n</function>\n</tool_call>'
    ),
    "glm": (
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>days</arg_key>\n"
        '<arg_value>2</arg_value>\n<arg_key>place</arg_key>\n<arg_value>{"x": 1.5}</arg_value>\n</tool_call>'
    ),
    "llama": f'{{"name": "weather", "parameters": {ARGUMENTS}}}',
    "mistral": f'[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}}}]',
    "mistral-args": f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}",
    "deepseek-v3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        f"{ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
}


ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "<｜tool▁sep｜>"]


class Bytes:
    """A vocabulary of the 256 bytes, an end and some tags."""

    bos_token_id = unk_token_id = None
    eos_token_id = 256
    special_token_ids = tuple(range(256, 257 + len(ADDED)))
    tokens = (*(bytes([value]) for value in range(256)), b"<|eos|>", *(tag.encode() for tag in ADDED))

    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)


def token(text):
    """The id of a text that is one token of this vocabulary."""
    return 257 + ADDED.index(text) if text in ADDED else None


TOKENIZER = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def accepts(grammar, said):
    """Whether `said`, a text or tokens, can be written to its end, and the answer ended there."""
    assert llguidance.LLMatcher.validate_grammar(llguidance.grammar_from("lark", grammar), TOKENIZER) == ""
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.grammar_from("lark", grammar))
    tokens = list(said.encode()) if isinstance(said, str) else said
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_every_format_with_calls_is_here():
    assert set(FORMS) == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_the_call_is_let_through_and_read(name):
    grammar = FORMS[name].constraint(TOOLS, WEATHER)
    assert accepts(grammar, SAID[name])
    reader = Reader(FORMS[name], tools=TOOLS)
    [delta] = reader.feed(SAID[name]) + reader.end()
    function = delta["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", json.loads(ARGUMENTS))


@pytest.mark.parametrize("name", SAID)
def test_nothing_else_is(name):
    grammar = FORMS[name].constraint(TOOLS, WEATHER)
    assert not accepts(grammar, "")
    assert not accepts(grammar, "It rains.")
    assert not accepts(grammar, SAID[name].replace("weather", "now"))
    assert not accepts(grammar, SAID[name].replace("1.5", '"1.5"'))
    assert not accepts(grammar, SAID[name].replace("2", "2\n\n\n"))
    assert not accepts(grammar, SAID[name] + "\n" + SAID[name])


def test_required_is_one_call_or_several_and_of_any_function():
    now = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    both = f"{SAID['hermes']}\n{now}"
    assert accepts(FORMS["hermes"].constraint(TOOLS, "required"), both)
    assert accepts(FORMS["hermes"].constraint(TOOLS, "required"), now)
    assert not accepts(FORMS["hermes"].constraint(TOOLS, "required", parallel=False), both)
    lists = SAID["mistral"][:-1] + ", " + SAID["mistral"].removeprefix("[TOOL_CALLS][")
    assert accepts(FORMS["mistral"].constraint(TOOLS, "required"), lists)


def test_thoughts_may_come_first():
    form = Format.of("<tool_call> </think>")
    free, begun = form.constraint(TOOLS, WEATHER), form.constraint(TOOLS, WEATHER, prompt="<think>\n")
    call = SAID["hermes"]
    assert accepts(free, call)
    assert accepts(free, f"<think>\nHm, <b>.\n</think>\n\n{call}")
    assert accepts(begun, f"Hm.\n</think>\n\n{call}")
    assert not accepts(begun, call)


def test_a_text_without_quotes_is_free_and_a_choice_is_not():
    grammar = FORMS["qwen-xml"].constraint(TOOLS, WEATHER)
    end = "</function>\n</tool_call>"
    assert accepts(grammar, f"{QWEN_CITY}{end}".replace("Köln", '"</param> {\n\n</tool_call>'))
    assert accepts(grammar, f"{QWEN_CITY}<parameter=scale>\nC\n</parameter>\n{end}")
    assert not accepts(grammar, f"{QWEN_CITY}<parameter=scale>\nK\n</parameter>\n{end}")
    assert not accepts(grammar, f"<tool_call>\n<function=weather>\n{end}")


@pytest.mark.parametrize("name", [name for name in SAID if name != "llama"])
def test_tags_are_written_as_the_tokens_that_they_are(name):
    form = replace(FORMS[name], think=("<think>", "</think>"))
    grammar = form.constraint(TOOLS, WEATHER, token=token)
    parts = re.split("(" + "|".join(map(re.escape, ADDED)) + ")", f"<think>Hm.</think>\n\n{SAID[name]}")
    tokens = [byte for part in parts for byte in ([token(part)] if part in ADDED else part.encode())]
    assert accepts(grammar, tokens)
    assert not accepts(grammar, SAID[name])


def test_a_choice_that_forces_nothing():
    assert [PLAIN.constraint(TOOLS, choice) for choice in (None, "auto", "none")] == [None] * 3


@pytest.mark.parametrize(
    ("form", "tools", "choice", "words"),
    [
        (PLAIN, TOOLS, "required", "its chat template has no tool calls"),
        (Format.of("<|channel|><|message|>"), TOOLS, "required", "harmony"),
        (FORMS["hermes"], [], "required", "no tools are offered"),
        (FORMS["hermes"], TOOLS, {"function": {"name": "rain"}}, "'rain', which is not among the tools"),
        (FORMS["hermes"], TOOLS, "always", "'always' is not known"),
        (FORMS["hermes"], [{"function": {"name": 'a"b'}}], "required", "cannot be called"),
    ],
)
def test_what_cannot_be_forced_is_refused(form, tools, choice, words):
    with pytest.raises(ConfigError, match=words):
        form.constraint(tools, choice)

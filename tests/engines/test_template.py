"""Chat templates: where they are found, what they are given, and what they are kept from."""

from __future__ import annotations

import json
import sys

import pytest

from hydra_infer.engines import sandbox
from hydra_infer.engines.template import ChatTemplate
from hydra_infer.errors import ConfigError, MissingExtra

USER = [{"role": "user", "content": "Hi"}]
CHATML = """\
{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}
{%- for message in messages -%}
    <|im_start|>{{ message.role }}
    {%- if message.reasoning_content %}<think>{{ message.thinking }}</think>{% endif %}:{{ message.content }}
    {%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.arguments | tojson }}{% endfor %}
    {%- generation %}<|im_end|>{% endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant{% endif %}
{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}
"""
LLAMA = "{{ bos_token }}{% for m in messages %}<|h|>{{ m['role'] }}<|/h|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
MISTRAL = """\
{{ bos_token }}
{%- for m in messages %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
    {%- if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content + eos_token }}{% endif %}
{%- endfor %}
"""
PARTS = """\
{%- for m in messages %}
    {%- for part in m.content %}{% if part.type == 'text' %}{{ part.text }}|{% endif %}{% endfor %}
{%- endfor %}
"""
DEEPSEEK = """\
{%- for m in messages %}{{ m.content }}
    {%- for call in m.tool_calls or [] %}{{ call.function.name + '\\n' + call.function.arguments }}{% endfor %}
{%- endfor %}
"""


@pytest.fixture
def folder(tmp_path):
    """Writes files (text, or what becomes JSON) and gives the folder."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_jinja", ".jinja").replace("_json", ".json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def render(folder):
    def render(template, messages, **options):
        config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "chat_template": template}
        return ChatTemplate.read(folder(tokenizer_config_json=config)).render(messages, **options)

    return render


def test_a_folder_without_one(folder):
    assert ChatTemplate.read(folder()) is None
    assert ChatTemplate.read(folder(tokenizer_config_json={"bos_token": "<s>"})) is None


def test_the_order_of_precedence(folder):
    def found(**files):
        template = ChatTemplate.read(folder(**files))
        return template.path.name, template.text, template.tool_text

    assert found(tokenizer_config_json={"chat_template": "C"}) == ("tokenizer_config.json", "C", "C")
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    assert found(tokenizer_config_json={"chat_template": named}) == ("tokenizer_config.json", "D", "T")
    assert found(chat_template_json={"chat_template": "J"}) == ("chat_template.json", "J", "J")
    assert found(chat_template_jinja="X") == ("chat_template.jinja", "X", "X")
    assert found(additional_chat_templates__tool_use_jinja="Y") == ("chat_template.jinja", "X", "Y")


def test_tools_get_their_own_template(folder):
    named = [{"name": "default", "template": "none"}, {"name": "tool_use", "template": "{{ tools[0].function.name }}"}]
    template = ChatTemplate.read(folder(tokenizer_config_json={"chat_template": named}))
    assert template.render(USER) == template.render(USER, tools=[]) == "none"
    assert template.render(USER, tools=[{"type": "function", "function": {"name": "f"}}]) == "f"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["x"], "neither a text nor a list"), (7, "neither a text nor a list"), ({"default": 1}, "neither a text nor a list"),
        ([{"name": "rag", "template": "R"}], "no chat template is called 'default', only rag"),
    ],
)  # fmt: skip
def test_a_field_of_another_shape_is_refused(folder, value, words):
    with pytest.raises(ConfigError, match=words):
        ChatTemplate.read(folder(tokenizer_config_json={"chat_template": value}))


def test_special_tokens_of_both_files_and_both_shapes(folder):
    template = ChatTemplate.read(
        folder(
            chat_template_jinja="{{ bos_token + eos_token + image_token + additional_special_tokens[0] }}{{ pad_token }}",
            special_tokens_map_json={"bos_token": "<old>", "eos_token": {"content": "</s>"}},
            tokenizer_config_json={
                "bos_token": "<s>", "image_token": "<img>", "pad_token": None, "additional_special_tokens": [{"content": "<x>"}],
            },
        )
    )  # fmt: skip
    assert template.render(USER) == "<s></s><img><x>"


def test_whitespace_is_as_transformers_has_it(render):
    assert render("{% for m in messages %}\n   {% if true %}\n{{ m.content }}\n   {% endif %}\n{% endfor %}", USER) == "Hi\n"


def test_chatml(render):
    assert render(CHATML, USER) == "<|im_start|>user:Hi<|im_end|><|im_start|>assistant"
    assert render(CHATML, USER, add_generation_prompt=False) == "<|im_start|>user:Hi<|im_end|>"
    assert render(CHATML, USER, enable_thinking=False).endswith("assistant<think></think>")
    tools = [{"type": "function", "function": {"name": "a<b", "description": "ü"}}]
    assert render(CHATML, USER, tools=tools).startswith(
        '<tools>[{"type": "function", "function": {"name": "a<b", "description": "ü"}}]'
    )


def test_messages_reach_the_template_in_its_own_shape(render):
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "content": "no JSON", "tool_call_id": "call_1"},
    ]
    assert render(CHATML, messages, add_generation_prompt=False) == (
        '<|im_start|>system:Be brief.<|im_end|><|im_start|>assistant<think>Hm.</think>:<tool_call>{"a": [1]}<|im_end|>'
        "<|im_start|>tool:no JSON<|im_end|>"
    )
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"a": [1]}'
    assert "<|im_start|>developer" in render("{# developer #}" + CHATML, messages)


def test_a_template_that_adds_arguments_to_a_text_gets_a_text(render):
    for arguments in ('{"a": 1}', {"a": 1}):
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        assert render(DEEPSEEK, [*USER, {"role": "assistant", "content": "", "tool_calls": [call]}]) == 'Hif\n{"a": 1}'


def test_a_template_that_wants_parts_gets_parts(render):
    parts = [{"type": "text", "text": "<image>"}, {"type": "text", "text": "What?"}]
    assert render(PARTS, [*USER, {"role": "user", "content": parts}]) == "Hi|<image>|What?|"
    assert render(LLAMA, [{"role": "user", "content": parts}]) == "<s><|h|>user<|/h|><image>What?</s>"


def test_a_part_that_is_no_text_is_refused(render):
    with pytest.raises(ConfigError, match=r"'image_url'.*put the text that stands for it in its place"):
        render(LLAMA, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}])


@pytest.mark.parametrize("template", [CHATML, LLAMA, PARTS])
def test_the_last_message_is_continued(render, template):
    messages = [*USER, {"role": "assistant", "content": "Well, "}]
    assert render(template, messages, continue_final_message=True).endswith("Well, ")


def test_a_message_that_is_not_written_cannot_be_continued(render):
    with pytest.raises(ConfigError, match="cannot be continued"):
        render("nothing", USER, continue_final_message=True)
    with pytest.raises(ConfigError, match="no message"):
        render(CHATML, [], continue_final_message=True)


def test_a_templates_refusal_has_its_words(render):
    assert render(MISTRAL, USER) == "<s>[INST] Hi [/INST]"
    with pytest.raises(ConfigError, match="tokenizer_config.json refuses these messages: Roles must alternate"):
        render(MISTRAL, [*USER, *USER])


def test_a_broken_template_is_named_with_its_line(folder):
    with pytest.raises(ConfigError, match=r"chat_template.jinja, line 2 of the chat template"):
        ChatTemplate.read(folder(chat_template_jinja="Hello\n{% for %}")).render(USER)
    with pytest.raises(ConfigError, match="cannot be read"):
        (folder() / "chat_template.jinja").write_bytes(b"\xff")
        ChatTemplate.read(folder())


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__ }}", "not allowed"),
        ("{{ messages.append(1) }}", "not allowed"),
        ("{{ 'a' * 10 ** 9 }}", "powers"),
        ("{{ 'a' * 1000000000 }}", "1,000,000,000 times"),
        ("{{ range(1000000) }}", "Range too big"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "200,000 turns"),
        ("{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 32,000,000 characters"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ nobody.name }}", "'nobody' is undefined"),
        ("{% include 'x' %}", "failed"),
    ],
)
def test_a_template_is_kept_from_harm(render, template, words):
    with pytest.raises(ConfigError, match=words):
        render(template, USER)


def test_messages_are_plain_data(render):
    with pytest.raises(ConfigError, match="plain data"):
        render(CHATML, [{"role": "user", "content": object()}])


def test_the_date_can_be_given(render):
    assert render("{{ strftime_now('%Y') }}", USER).isdigit()
    assert render("{{ strftime_now('%Y') }}", USER, strftime_now=lambda form: f"<{form}>") == "<%Y>"


def test_without_jinja2_the_error_has_the_command(render, monkeypatch):
    sandbox._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match="pip install 'jinja2>=3.1.6'"):
        render(LLAMA, USER)

"""From messages to tokens: template, pictures, tools, the tokens that end a turn."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from engines.exllama.fake_runner import FakeRunner

from hydra_infer.engines.exllama.prompt import Prompts
from hydra_infer.errors import ConfigError

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}{{ mood }}"
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
PICTURE = b"\x89PNG not really"
URL = "data:image/png;base64," + base64.b64encode(PICTURE).decode()


class Runner(FakeRunner):
    """Its vocabulary has one token for <|im_end|>."""

    def encode(self, text: str, *, whole: bool, images: Any = ()) -> Any:
        ids, seen = super().encode(text.replace("<|im_end|>", "\x03"), whole=whole, images=images)
        return ids, seen


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return Prompts.read(tmp_path)


def chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def text_of(ids: Any) -> str:
    return "".join(map(chr, ids))


def test_the_template_is_applied_and_nothing_added(prompts: Prompts) -> None:
    prompt = prompts.of(chat("hi", chat_template_kwargs={"mood": "!"}), Runner())
    assert text_of(prompt.ids) == "<user>hi\x03<assistant>!"
    assert prompt.ends == (3,)
    assert prompt.reader is not None
    assert prompt.reader.feed("a <tool_call>") == [{"content": "a <tool_call>"}]  # no tools, no calls
    assert prompts.of(chat("hi", add_generation_prompt=False), Runner()).ids[-1] == 3


def test_a_completion_is_whole_and_has_no_reader(prompts: Prompts) -> None:
    prompt = prompts.of({"prompt": "hi"}, Runner())
    assert (prompt.ids, prompt.reader, prompt.ends) == ([1, 104, 105], None, ())
    assert prompts.of({"prompt": [5, 6]}, Runner()).ids == [5, 6]


def test_tools_reach_the_template_and_the_reader(prompts: Prompts) -> None:
    prompt = prompts.of(chat("hi", tools=TOOLS), Runner())
    assert '"name": "f"' in text_of(prompt.ids)
    assert prompt.constraint is None
    assert prompt.reader is not None
    (delta,) = prompt.reader.feed('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert delta["tool_calls"][0]["function"]["name"] == "f"


def test_a_call_can_be_demanded_or_forbidden(prompts: Prompts) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        forced = prompts.of(chat("hi", tools=TOOLS, tool_choice=choice), Runner()).constraint
        assert forced is not None
        assert forced.kind == "lark"
        assert "integer" in forced.text
    free = prompts.of(chat("hi", tools=TOOLS, tool_choice="none"), Runner())
    assert free.constraint is None
    assert free.reader is not None
    assert "tool_calls" not in free.reader.feed('<tool_call>{"name": "f", "arguments": {}}</tool_call>')[0]
    with pytest.raises(ConfigError):
        prompts.of(chat("hi", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}}), Runner())


def test_pictures_reach_the_engine_in_order_behind_marks_that_nobody_can_write(prompts: Prompts) -> None:
    runner = Runner()
    parts = [{"type": "text", "text": "see "}, *({"type": "image_url", "image_url": url} for url in ({"url": URL}, URL))]
    prompt = prompts.of(chat(parts), runner)
    assert [image.data for image in runner.pictures] == [PICTURE, PICTURE]
    first, second = (image.mark for image in runner.pictures)
    assert f"<user>see {first}{second}\x03" in text_of(prompt.ids)
    assert first != second
    assert prompt.images == [f"seen {first}", f"seen {second}"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:image/png;base64,%%%",
        "data:text/html;base64,aGk=",
        None,
    ],
)
def test_nothing_is_fetched_or_opened_for_a_picture(prompts: Prompts, url: Any) -> None:
    with pytest.raises(ConfigError, match="data: URL"):
        prompts.of(chat([{"type": "image_url", "image_url": {"url": url}}]), Runner())

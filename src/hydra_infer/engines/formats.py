"""Format: how a model's family writes its thoughts and its tool calls, told from its chat template's own text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError
from . import calls
from .calls import Read, schemas
from .writing import Token, Writing, chosen

__all__ = ["PLAIN", "Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """One family's way: `name` is that of its calls ("plain" has none), `think` the tags around thoughts.

    A call begins with one of `opens` anywhere, or with one of `starts` where nothing has been said yet, and `read` reads
    it. Of harmony's, `opens` are the heads of all messages (`channels`), and `drops` the tokens between them.
    `special`: some of the tags are special tokens in the usual vocabularies, so the engine has to decode with special
    tokens (decode_special_tokens=True). No reader strips stop tokens, for engines do not pass them on: `ends` are those
    that end an answer besides the model's own eos, to be given to the engine where its vocabulary has them.
    `prefix` begins the ids of calls.
    """

    name: str
    think: tuple[str, str] | None = None
    opens: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    read: Read | None = None
    channels: bool = False
    special: bool = False
    ends: tuple[str, ...] = ()
    prefix: str = "call_"
    writing: Writing | None = None

    @classmethod
    def of(cls, template: str | None) -> Format:
        """The format of a model with this chat template; without one, plain text."""
        text = template or ""
        found = next((form for marks, form in FORMATS if all(mark in text for mark in marks)), PLAIN)
        if found.channels:
            return found
        think = next((tags for tags in THINK if tags[1] in text), None)
        ends = tuple(end for end in ENDS if end in text and end not in found.ends)
        special = found.special or (think is not None and think[0] == "[THINK]")
        return replace(found, think=think, ends=found.ends + ends, special=special)

    def thinking(self, prompt: str) -> bool:
        """Whether the prompt has begun the model's thoughts already: it ends with their opening tag."""
        return self.think is not None and prompt.rstrip().endswith(self.think[0])

    def constraint(
        self,
        tools: Iterable[Mapping[str, Any]],
        tool_choice: Any,
        *,
        prompt: str = "",
        parallel: bool = True,
        token: Token = lambda _: None,
    ) -> str | None:
        """A grammar for llguidance 1.9 (Lark) that leaves nothing but the call that `tool_choice` asks for.

        None for "auto" and "none". "required" is one call or, if `parallel`, several; a named function is called once.
        `prompt` is the rendered one, whose thoughts go on first; `token` gives the id of a text that is one token of the
        vocabulary, or None: tags have to be written as the tokens that they are.
        Raises ConfigError for another tool_choice, and for a format that no call can be forced in.
        """
        functions = schemas(tools)
        wanted = chosen(functions, tool_choice)
        if wanted is None:
            return None
        if self.writing is None:
            why = "its chat template has no tool calls" if self.read is None else "a grammar cannot lead through its channels"
            raise ConfigError(f"no tool call can be forced in the format {self.name!r}: {why}", hint='tool_choice="auto"')
        return self.writing.grammar(
            wanted,
            several=parallel and tool_choice == "required",
            think=self.think,
            thinking=self.thinking(prompt),
            token=token,
        )


# R1, Qwen3, GLM and most others; Magistral since 2507. A template names at least the closing tag, to cut old thoughts off.
THINK = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))

# The tokens by which templates end a turn.
ENDS = ("<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<｜end▁of▁sentence｜>", "<|user|>")

PLAIN = Format("plain")

_HERMES = Format(
    "hermes",
    opens=("<tool_call>",),
    read=calls.hermes,
    writing=Writing('<tool_call>\n{"name": "NAME", "arguments": ', "}\n</tool_call>", "\n"),
)
_QWEN_XML = Format(
    "qwen-xml",
    opens=("<tool_call>",),
    read=calls.qwen_xml,
    writing=Writing(
        "<tool_call>\n<function=NAME>\n",
        "</function>\n</tool_call>",
        "\n",
        pair=("<parameter=KEY>\n", "\n</parameter>\n"),
    ),
)
_GLM = Format(
    "glm",
    opens=("<tool_call>",),
    read=calls.glm,
    writing=Writing(
        "<tool_call>NAME\n",
        "</tool_call>",
        "\n",
        pair=("<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
)
_LLAMA = Format(
    "llama",
    opens=("<|python_tag|>",),
    starts=("{", ";"),
    read=calls.llama,
    special=True,
    ends=("<|eom_id|>",),
    writing=Writing('{"name": "NAME", "parameters": ', "}", "; "),
)
# Its older templates accept ids of nine letters and digits only.
_MISTRAL = Format(
    "mistral",
    opens=("[TOOL_CALLS]",),
    read=calls.mistral,
    special=True,
    prefix="",
    writing=Writing('{"name": "NAME", "arguments": ', "}", ", ", "[TOOL_CALLS][", "]"),
)
_MISTRAL_ARGS = Format(
    "mistral-args",
    opens=("[TOOL_CALLS]",),
    read=calls.mistral,
    special=True,
    prefix="",
    writing=Writing("[TOOL_CALLS]NAME[ARGS]"),
)
_DEEPSEEK_TAGS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_DEEPSEEK_V3 = Format(
    "deepseek-v3",
    opens=("<｜tool▁calls▁begin｜>",),
    read=calls.deepseek,
    special=True,
    writing=Writing(
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n",
        "\n```<｜tool▁call▁end｜>",
        "\n",
        *_DEEPSEEK_TAGS,
    ),
)
_DEEPSEEK_V31 = Format(
    "deepseek-v3.1",
    opens=("<｜tool▁calls▁begin｜>",),
    read=calls.deepseek,
    special=True,
    writing=Writing("<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "", *_DEEPSEEK_TAGS),
)
_HARMONY = Format(
    "harmony",
    opens=("<|start|>", "<|channel|>"),
    starts=("to=",),  # a prompt ends in "<|start|>assistant", which the recipient may follow at once
    drops=("<|end|>", "<|call|>", "<|return|>"),
    read=calls.harmony,
    channels=True,
    special=True,
    ends=("<|call|>", "<|return|>"),
)

# What a template holds -> its format; the first row of which it holds everything.
FORMATS = (
    (("<|channel|>", "<|message|>"), _HARMONY),
    (("<tool_call>", "<function="), _QWEN_XML),
    (("<tool_call>", "<arg_key>"), _GLM),
    (("<tool_call>",), _HERMES),
    (("[TOOL_CALLS]", "[ARGS]"), _MISTRAL_ARGS),
    (("[TOOL_CALLS]",), _MISTRAL),
    (("<｜tool▁calls▁begin｜>", "```json"), _DEEPSEEK_V3),
    (("<｜tool▁calls▁begin｜>",), _DEEPSEEK_V31),
    (("<|python_tag|>",), _LLAMA),
    (('{"name": function name, "parameters": ',), _LLAMA),
)

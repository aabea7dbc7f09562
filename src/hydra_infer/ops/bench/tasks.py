"""The built-in tasks: questions with one right answer, answers held to a JSON schema, calls of a tool. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...reply import Reply

__all__ = ["TASKS", "Task", "fits_schema"]

JsonDict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """`group` is "exact", "json" or "tools"; `right` the answer, or the arguments that the call must have."""

    group: str
    question: str
    right: Any = None
    schema: JsonDict = field(default_factory=dict)
    tool: str = ""

    @property
    def fields(self) -> JsonDict:
        """The request's fields beside the message, as OpenAI has them."""
        if self.group == "json":
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}}
        if self.group == "tools":
            return {
                "tools": [{"type": "function", "function": {"name": self.tool, "parameters": self.schema} | _ABOUT[self.tool]}]
            }
        return {}

    def passed(self, reply: Reply) -> bool:
        """Whether the answer is right.

        "exact": its last line is the answer, whatever the case and the marks around it. "json": it is JSON that fits the schema.
        "tools": one call of the tool, whose arguments fit its schema and are as asked.
        """
        if self.group == "exact":
            lines = [line.strip(" \t*_`\"'.,:;!?()") for line in reply.text.splitlines() if line.strip()]
            return bool(lines) and lines[-1].casefold() == self.right.casefold()
        if self.group == "json":
            return fits_schema(_parsed(reply.text), self.schema)
        calls = [call["function"] for call in reply.tool_calls]
        if len(calls) != 1 or calls[0].get("name") != self.tool:
            return False
        arguments = _parsed(calls[0].get("arguments"))
        return fits_schema(arguments, self.schema) and all(_same(arguments.get(key), value) for key, value in self.right.items())


def fits_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether `value` is what `schema` asks for: type, enum, properties with required and nothing else, items, minimum."""
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "minimum" in schema and value < schema["minimum"]:
        return False
    if kind == "array":
        return all(fits_schema(item, schema.get("items", {})) for item in value)
    if kind == "object":
        properties = schema.get("properties", {})
        complete = set(schema.get("required", ())) <= set(value) <= set(properties)
        return complete and all(fits_schema(item, properties[key]) for key, item in value.items())
    return True


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _same(value: Any, right: Any) -> bool:
    """Equal; a text may have more around it ("Paris, France")."""
    return right.casefold() in value.casefold() if isinstance(right, str) and isinstance(value, str) else bool(value == right)


def _parsed(text: Any) -> Any:
    """The JSON in a text; None, which fits no schema, where there is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def _object(**properties: JsonDict) -> JsonDict:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_ABOUT: dict[str, JsonDict] = {
    "get_weather": {"description": "The weather in a city today."},
    "set_timer": {"description": "Start a kitchen timer."},
    "add_to_list": {"description": "Put things on the shopping list."},
}
_EXACT = (
    ("What is 17 + 26? Answer with the number only.", "43"),
    ("What is 9 times 8? Answer with the number only.", "72"),
    ("What is 100 minus 37? Answer with the number only.", "63"),
    ("What is 144 divided by 12? Answer with the number only.", "12"),
    ("A shelf has 4 rows of 6 jars. 5 jars are taken away. How many are left? Answer with the number only.", "19"),
    ("Anna is taller than Ben, Ben is taller than Cem. Who is the shortest? Answer with the name only.", "Cem"),
    ("Which word does not belong: apple, pear, hammer, plum? Answer with the word only.", "hammer"),
    ("What is the capital of Japan? Answer with the name only.", "Tokyo"),
    ("Which planet is nearest to the sun? Answer with the name only.", "Mercury"),
    ("What is the opposite of 'ancient': modern, old or slow? Answer with the word only.", "modern"),
    ("Write the word 'lantern' in capital letters. Answer with the word only.", "LANTERN"),
    ("Which is the third letter of the word 'garden'? Answer with the letter only.", "r"),
    ("Write the word 'stop' backwards. Answer with the word only.", "pots"),
    ("Which number comes next: 2, 4, 8, 16? Answer with the number only.", "32"),
    ("How many days has a leap year? Answer with the number only.", "366"),
    ("In Python, what does len([1, [2, 3], 4]) give? Answer with the number only.", "3"),
    ("In Python, what does 'abcdef'[1:3] give? Answer with the letters only.", "bc"),
    ("Is 91 a prime number? Answer yes or no only.", "no"),
    ("The train leaves at 14:50 and takes 25 minutes. When does it arrive? Answer as HH:MM only.", "15:15"),
    ("Text: 'The key is in the blue jar beside the stove.' Which colour has the jar? Answer with the word only.", "blue"),
)
TASKS = (
    *(Task("exact", question, right) for question, right in _EXACT),
    Task("json", "Describe a person named Bo, who is 41 years old.", schema=_object(name=_TEXT, age=_WHOLE)),
    Task(
        "json",
        "Is the sentence 'I loved every minute of it' positive or negative? How sure are you, from 0 to 1?",
        schema=_object(mood={"type": "string", "enum": ["positive", "negative"]}, sure={"type": "number", "minimum": 0}),
    ),
    Task(
        "json",
        "List the ingredients of a pancake with grams for each.",
        schema=_object(ingredients={"type": "array", "items": _object(name=_TEXT, grams={"type": "number", "minimum": 0})}),
    ),
    Task("tools", "What is the weather in Oslo?", {"city": "Oslo"}, _object(city=_TEXT), "get_weather"),
    Task("tools", "Set a timer for 12 minutes.", {"minutes": 12}, _object(minutes=_WHOLE), "set_timer"),
    Task(
        "tools",
        "Put milk and eggs on my shopping list.",
        {},
        _object(things={"type": "array", "items": _TEXT}),
        "add_to_list",
    ),
)

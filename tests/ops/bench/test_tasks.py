"""The tasks pass what is right, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hydra_infer.ops.bench.tasks import TASKS, Task, fits_schema
from hydra_infer.reply import Reply


def reply(text: str = "", *calls: tuple[str, Any]) -> Reply:
    said = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return Reply(text=text, model="m", finish_reason="stop", message={"content": text, "tool_calls": said}, raw={})


def test_there_are_twenty_questions_and_some_of_each_other_kind() -> None:
    groups = [task.group for task in TASKS]
    assert (groups.count("exact"), groups.count("json"), groups.count("tools")) == (20, 3, 3)
    assert len({task.question for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize("task", [task for task in TASKS if task.group == "exact"], ids=lambda task: task.right)
def test_the_right_answer_passes_however_it_is_dressed(task: Task) -> None:
    for text in (task.right, f"**{task.right}**.", f"Let me think.\n\n  {task.right.lower()}\n"):
        assert task.passed(reply(text)), text
    for text in ("", "I do not know", f"It is {task.right}, is it not?", f"{task.right}\nor not"):
        assert not task.passed(reply(text)), text


def test_json_must_fit_its_schema() -> None:
    person = next(task for task in TASKS if task.group == "json")
    assert person.fields["response_format"]["json_schema"]["schema"] == person.schema
    assert person.passed(reply('{"name": "Bo", "age": 41}'))
    for text in ("Bo is 41", '{"name": "Bo"}', '{"name": "Bo", "age": "41"}', '{"name": "Bo", "age": 41, "more": 1}', "[]"):
        assert not person.passed(reply(text)), text


def test_a_tool_is_called_once_with_fitting_arguments() -> None:
    weather = next(task for task in TASKS if task.tool == "get_weather")
    assert weather.fields["tools"][0]["function"]["name"] == "get_weather"
    assert weather.passed(reply("", ("get_weather", '{"city": "Oslo, Norway"}')))
    wrong = [
        reply("It is cold in Oslo."),
        reply("", ("get_weather", "{broken")),
        reply("", ("get_weather", '{"city": "Rome"}')),
        reply("", ("get_weather", '{"town": "Oslo"}')),
        reply("", ("set_timer", '{"city": "Oslo"}')),
        reply("", *[("get_weather", '{"city": "Oslo"}')] * 2),
    ]
    assert not any(weather.passed(one) for one in wrong)


def test_every_schema_accepts_an_answer_and_refuses_another_type() -> None:
    right = [
        {"name": "Bo", "age": 41},
        {"mood": "positive", "sure": 0.9},
        {"ingredients": [{"name": "flour", "grams": 100}]},
        {"city": "Oslo"},
        {"minutes": 12},
        {"things": ["milk", "eggs"]},
    ]
    held = [task for task in TASKS if task.schema]
    for task, value in zip(held, right, strict=True):
        assert fits_schema(json.loads(json.dumps(value)), task.schema)
        assert not fits_schema([value], task.schema)
        assert not fits_schema({}, task.schema)
    assert not fits_schema({"mood": "mixed", "sure": 0.9}, held[1].schema)
    assert not fits_schema({"mood": "positive", "sure": -1}, held[1].schema)
    assert not fits_schema({"mood": "positive", "sure": True}, held[1].schema)
    assert not fits_schema({"ingredients": [{"name": "flour"}]}, held[2].schema)

"""smolagents through router.client(): plain, streamed and with a tool. It has no async face."""

from __future__ import annotations

from typing import Any

import pytest
from frameworks.versions import at_least
from smolagents import OpenAIModel, tool

from hydra_infer import Router

HELLO: list[Any] = [{"role": "user", "content": "one two three"}]


@tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"sunny in {city}"


@pytest.fixture(params=["httpx", "httpx2"])
def model(request: pytest.FixtureRequest, router: Router) -> OpenAIModel:
    client = {"http_client": router.client(request.param)}
    return OpenAIModel("llama", api_base="http://hydra.invalid/v1", api_key="-", client_kwargs=client)


def test_it_is_no_ancient_release() -> None:
    at_least("smolagents", 1, 26)


def test_sync(model: OpenAIModel) -> None:
    assert model(HELLO).content == "one two three"
    assert "".join(piece.content or "" for piece in model.generate_stream(HELLO)) == "one two three"
    calls = model([{"role": "user", "content": "how is it?"}], tools_to_call_from=[weather]).tool_calls
    assert calls is not None
    assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", '{"city": "Basel"}')]

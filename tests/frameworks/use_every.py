"""Each framework of this environment: a plain call, the server that answered switched off, then a streamed and a tool call."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from servers.ollama import OllamaServer
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, Router

BASE = "http://hydra.invalid/v1"
HELLO = "one two three"
PIECES = ["one", " two", " three"]


def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"sunny in {city}"


class Uses(NamedTuple):
    """Three calls through one framework: the answer to HELLO, the same in its pieces, and what the tool was made to say."""

    plain: Callable[[], str]
    streamed: Callable[[], list[str]]
    tool: Callable[[], str]


def with_openai(router: Router) -> Uses:
    import openai

    create: Any = openai.OpenAI(base_url=BASE, api_key="-", http_client=router.client()).chat.completions.create
    asked = {"model": "llama", "messages": [{"role": "user", "content": HELLO}]}
    offered = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}}

    def tool() -> str:
        import json

        (call,) = create(tools=[offered], **asked).choices[0].message.tool_calls
        return weather(**json.loads(call.function.arguments))

    return Uses(
        lambda: str(create(**asked).choices[0].message.content),
        lambda: [text for piece in create(stream=True, **asked) if (text := piece.choices[0].delta.content)],
        tool,
    )


def with_openai_agents(router: Router) -> Uses:
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)
    model = OpenAIChatCompletionsModel(model="llama", openai_client=router.aio.openai())

    async def streamed() -> list[str]:
        events = [event async for event in Runner.run_streamed(Agent("a", model=model), HELLO).stream_events()]
        told = [event.data for event in events if event.type == "raw_response_event"]
        return [one.delta for one in told if one.type == "response.output_text.delta"]

    return Uses(
        lambda: str(Runner.run_sync(Agent("a", model=model), HELLO).final_output),
        lambda: asyncio.run(streamed()),
        lambda: str(Runner.run_sync(Agent("a", model=model, tools=[function_tool(weather)]), "how is it?").final_output),
    )


def with_pydantic_ai(router: Router) -> Uses:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("llama", provider=OpenAIProvider(openai_client=router.aio.openai()))

    async def streamed() -> list[str]:
        async with Agent(model).run_stream(HELLO) as run:
            return [piece async for piece in run.stream_text(delta=True, debounce_by=None)]

    return Uses(
        lambda: str(Agent(model).run_sync(HELLO).output),
        lambda: asyncio.run(streamed()),
        lambda: str(Agent(model, tools=[weather]).run_sync("how is it?").output),
    )


def with_langchain(router: Router) -> Uses:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    clients: Any = {"http_client": router.client(), "http_async_client": router.aio.client()}
    model = ChatOpenAI(model="llama", base_url=BASE, api_key="-", **clients)  # type: ignore[arg-type]

    def with_tool() -> str:
        helped, question, made = model.bind_tools([weather]), HumanMessage("how is it?"), tool(weather)
        called: Any = helped.invoke([question])
        (call,) = called.tool_calls
        return str(helped.invoke([question, called, ToolMessage(made.invoke(call["args"]), tool_call_id=call["id"])]).content)

    return Uses(
        lambda: str(model.invoke(HELLO).content),
        lambda: [str(piece.content) for piece in model.stream(HELLO) if piece.content],
        with_tool,
    )


def with_llama_index(router: Router) -> Uses:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    clients: Any = {"http_client": router.client(), "async_http_client": router.aio.client()}
    model = OpenAILike(model="llama", api_base=BASE, api_key="-", is_chat_model=True, is_function_calling_model=True, **clients)
    hello, made = [ChatMessage(role="user", content=HELLO)], FunctionTool.from_defaults(weather)
    return Uses(
        lambda: str(model.chat(hello).message.content),
        lambda: [piece.delta for piece in model.stream_chat(hello) if piece.delta],
        lambda: str(model.predict_and_call([made], user_msg="how is it?").response),
    )


def with_smolagents(router: Router) -> Uses:
    from smolagents import OpenAIModel, tool

    client = {"http_client": router.client("httpx2")}
    model = OpenAIModel("llama", api_base=BASE, api_key="-", client_kwargs=client)
    hello: Any = [{"role": "user", "content": HELLO}]

    def with_tool() -> str:
        import json

        (call,) = model([{"role": "user", "content": "how is it?"}], tools_to_call_from=[tool(weather)]).tool_calls or ()
        return weather(**json.loads(call.function.arguments))

    return Uses(
        lambda: str(model(hello).content),
        lambda: [piece.content for piece in model.generate_stream(hello) if piece.content],
        with_tool,
    )


EVERY = {
    "openai": with_openai,
    "agents": with_openai_agents,
    "pydantic_ai": with_pydantic_ai,
    "langchain_openai": with_langchain,
    "llama_index": with_llama_index,
    "smolagents": with_smolagents,
}
HERE = [module for module in EVERY if importlib.util.find_spec(module)]


@pytest.mark.parametrize("module", HERE)
def test_plain_streamed_and_with_a_tool_with_a_failover_in_between(module: str) -> None:
    with TabbyServer(["Llama-70B"], "Llama-70B") as tabby, OllamaServer(["llama3.1:8b"]) as ollama:
        backends = [
            Backend.tabby(tabby.url, {"llama": "Llama-70B"}, api_key=API_KEY, name="tabby"),
            Backend.ollama(ollama.url, {"llama": "llama3.1:8b"}, name="ollama"),
        ]
        with Router(backends) as router:
            uses = EVERY[module](router)
            assert uses.plain() == HELLO
            assert {backend for backend, _, _ in router.usage()} == {"tabby"}
            tabby.close()
            assert uses.streamed() == PIECES
            assert uses.tool() == "sunny in Basel"
            answers = {backend: entry.answers for backend, _, entry in router.usage()}
            assert answers["tabby"] == 1
            assert answers["ollama"] >= 2

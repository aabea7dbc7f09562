"""The clients that measure.py measures: each asks for one chat, whole or streamed, and reads what it says.

Heavy libraries are imported when a client is made: what that costs is measured too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

MESSAGES = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Say something of foxes."}]
WHOLE: dict[str, Any] = {"model": "m", "messages": MESSAGES}
STREAM = {**WHOLE, "stream": True}


class Floor:
    """asyncio's streams and a parser that knows what comes: what a call costs at the least."""

    def __init__(self, url: str) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _send(self, asked: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
        body = json.dumps(asked).encode()
        line[1].write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        return line

    async def whole(self) -> str:
        line = await self._send(WHOLE)
        head = await line[0].readuntil(b"\r\n\r\n")
        answer = json.loads(await line[0].readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0])))
        self._free.append(line)
        return str(answer["choices"][0]["message"]["content"])

    async def stream(self) -> str:
        line, text = await self._send(STREAM), ""
        await line[0].readuntil(b"\r\n\r\n")
        while size := int(await line[0].readline(), 16):
            data = await line[0].readexactly(size + 2)
            if data.startswith(b"data: {"):
                text += json.loads(data[6:])["choices"][0]["delta"]["content"]
        await line[0].readline()
        self._free.append(line)
        return text


class Aiohttp:
    def __init__(self, url: str) -> None:
        import aiohttp

        self._session, self._url = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)), f"{url}/v1/chat/completions"

    async def whole(self) -> str:
        async with self._session.post(self._url, json=WHOLE) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    async def stream(self) -> str:
        text = ""
        async with self._session.post(self._url, json=STREAM) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"]["content"]
        return text


class Httpx:
    """Without a limit on connections, and they are kept as long as the Router keeps its own."""

    library = "httpx"

    def __init__(self, url: str) -> None:
        library = __import__(self.library)
        limits = library.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30)
        self._client, self._url = library.AsyncClient(timeout=300, limits=limits), f"{url}/v1/chat/completions"

    async def whole(self) -> str:
        return str((await self._client.post(self._url, json=WHOLE)).json()["choices"][0]["message"]["content"])

    async def stream(self) -> str:
        text = ""
        async with self._client.stream("POST", self._url, json=STREAM) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"]["content"]
        return text


class Httpx2(Httpx):
    library = "httpx2"


class HttpxSync:
    """With pydantic, as whoever uses models of answers has it."""

    def __init__(self, url: str) -> None:
        import httpx
        import pydantic  # noqa: F401 - it is the stack that is compared

        self._client, self._url = httpx.Client(timeout=300), f"{url}/v1/chat/completions"

    def whole(self) -> str:
        return str(self._client.post(self._url, json=WHOLE).json()["choices"][0]["message"]["content"])

    def stream(self) -> str:
        text = ""
        with self._client.stream("POST", self._url, json=STREAM) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"]["content"]
        return text


class Router:
    """A whole answer comes by the desk, as `serve` asks: Router.chat always streams, to know a silent server from a slow one."""

    def __init__(self, url: str) -> None:
        import hydra_infer as hydra

        self._router = hydra.Router([hydra.Backend.openai(url, models=["m"], name=name) for name in ("a", "b")])
        self._desk = self._router.desk()

    async def whole(self) -> str:
        _, body = await self._desk.ahandle("POST", "/v1/chat/completions", (), json.dumps(WHOLE).encode(), None)
        return str(json.loads(b"".join([part async for part in body]).decode())["choices"][0]["message"]["content"])

    async def stream(self) -> str:
        return "".join([chunk.text async for chunk in self._router.aio.stream("m", MESSAGES)])


class RouterHttpcore(Router):
    def __init__(self, url: str) -> None:
        sys.modules["aiohttp"] = None  # type: ignore[assignment]  # as where it is not installed
        super().__init__(url)


class RouterSync(Router):
    def whole(self) -> str:  # type: ignore[override]
        _, body = self._desk.handle("POST", "/v1/chat/completions", (), json.dumps(WHOLE).encode(), None)
        return str(json.loads(b"".join(body))["choices"][0]["message"]["content"])

    def stream(self) -> str:  # type: ignore[override]
        with self._router.stream("m", MESSAGES) as answer:
            return "".join(chunk.text for chunk in answer)


class OpenAI:
    def __init__(self, url: str) -> None:
        import openai

        self._client = openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0)

    async def whole(self) -> str:
        answer = await self._client.chat.completions.create(**WHOLE)
        return str(answer.choices[0].message.content)

    async def stream(self) -> str:
        answer = await self._client.chat.completions.create(**STREAM)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


class LangChain:
    """Two models, one the other's fallback."""

    def __init__(self, url: str) -> None:
        from langchain_openai import ChatOpenAI

        one, other = (ChatOpenAI(model="m", base_url=f"{url}/v1", api_key="x", max_retries=0) for _ in range(2))
        self._model = one.with_fallbacks([other])
        self._messages = [(message["role"], message["content"]) for message in MESSAGES]

    async def whole(self) -> str:
        return str((await self._model.ainvoke(self._messages)).content)

    async def stream(self) -> str:
        return "".join([chunk.content async for chunk in self._model.astream(self._messages)])


class PydanticAI:
    """Two models, one the other's fallback."""

    def __init__(self, url: str) -> None:
        from pydantic_ai import direct
        from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart
        from pydantic_ai.models.fallback import FallbackModel
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        one, other = (OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="x")) for _ in range(2))
        self._model, self._direct = FallbackModel(one, other), direct
        parts = [SystemPromptPart(MESSAGES[0]["content"]), UserPromptPart(MESSAGES[1]["content"])]
        self._messages = [ModelRequest(parts=parts)]

    async def whole(self) -> str:
        return str((await self._direct.model_request(self._model, self._messages)).parts[0].content)

    async def stream(self) -> str:
        async with self._direct.model_request_stream(self._model, self._messages) as answer:
            async for _ in answer:
                pass
            return str(answer.get().parts[0].content)


class AnyLLM:
    """A client made once, as its makers advise; it has no fallback."""

    def __init__(self, url: str) -> None:
        from any_llm import AnyLLM as Made

        self._client = Made.create("openai", api_key="x", api_base=f"{url}/v1")

    async def whole(self) -> str:
        return str((await self._client.acompletion(**WHOLE)).choices[0].message.content)

    async def stream(self) -> str:
        answer = await self._client.acompletion(**STREAM)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


class LiteLLM:
    """litellm.Router with two deployments."""

    def __init__(self, url: str) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its prices when imported
        import litellm

        litellm.suppress_debug_info = True
        rows = [
            {"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": f"{url}/v1", "api_key": key}} for key in "ab"
        ]
        self._router = litellm.Router(model_list=rows, num_retries=0)

    async def whole(self) -> str:
        return str((await self._router.acompletion(**WHOLE)).choices[0].message.content)

    async def stream(self) -> str:
        answer = await self._router.acompletion(**STREAM)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


# Those that are held against each other stand next to each other: a machine's speed changes while all take their turns.
CLIENTS: dict[str, Callable[[str], Any]] = {
    "a bare asyncio socket": Floor,
    "aiohttp": Aiohttp,
    "litellm.Router": LiteLLM,
    "Router over aiohttp": Router,
    "httpx": Httpx,
    "Router over httpcore": RouterHttpcore,
    "httpx2": Httpx2,
    "openai": OpenAI,
    "LangChain with_fallbacks": LangChain,
    "pydantic-ai FallbackModel": PydanticAI,
    "any-llm": AnyLLM,
    "httpx + pydantic, sync": HttpxSync,
    "Router, sync": RouterSync,
}

"""LiteLLM's own loader reads what hydra_infer writes for it, and its router then goes where the file says.

Run by `make test-litellm` in an environment of its own. Three servers on loopback answer; nothing else is reached.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from hydra_infer.configs.litellm import Deployment, LiteLLMConfig
from hydra_infer.configs.litellm_text import litellm_text

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "homelab" / "rendered" / "litellm" / "litellm.yaml"

os.environ |= {
    "TABBY_KEY": "sk-tabby",
    "TABBY_API_KEY": "sk-tabby",  # the example's
    "LITELLM_MASTER_KEY": "sk-a-long-enough-master-key-000",
    "OPENAI_API_KEY": "sk-foreign",  # must not reach our servers
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}


class Server:
    """An OpenAI-compatible server that answers, or fails with 500, and remembers the keys it was sent."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.keys: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - http.server's name; self is the server around it
                handler.rfile.read(int(handler.headers["content-length"]))
                self.keys.append(handler.headers.get("authorization", ""))
                message = {"role": "assistant", "content": name}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                good = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                body = json.dumps({"error": {"message": "broken"}} if broken else good).encode()
                handler.send_response(500 if broken else 200)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()


def only_loopback() -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"{address}: nothing but loopback is reached here")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]


def fleet(broken: Server, good: Server, spare: Server) -> LiteLLMConfig:
    def row(group: str, kind: str, url: str, **options: Any) -> Deployment:
        return Deployment(group=group, kind=kind, url=url, local_name="m", line=0, **options)

    return LiteLLMConfig(
        deployments=(
            row("big", "tabby", broken.url, api_key="os.environ/TABBY_KEY", context=4096),
            row("big", "openai", good.url, context=8192),
            row("lone", "openai", broken.url),
            row("spare", "openai", spare.url, context=32768),
            row("small", "ollama", "http://127.0.0.1:9", context=16384, options={"timeout": 5}),
            row("vectors", "ollama", "http://127.0.0.1:9"),
        ),
        fallbacks={"lone": ("spare",), "big": ("spare",)},
        aliases={"gpt-4": "big"},
        strategy="ordered",
        settings={},
        warnings=(),
    )


async def check(path: str, broken: Server, good: Server, spare: Server) -> None:
    from litellm.proxy.proxy_server import ProxyConfig

    router, _, general = (await ProxyConfig().load_config(router=None, config_file_path=path))[:3]
    assert len(router.model_list) == 6
    assert general["master_key"] == os.environ["LITELLM_MASTER_KEY"]
    assert (router.num_retries, router.allowed_fails, router.cooldown_time, router.timeout) == (0, 1, 30, 600)
    assert router.get_model_group_info("small").max_input_tokens == 16384
    assert router.get_model_group_info("vectors").mode == "embedding"
    question: Any = [{"role": "user", "content": "Who?"}]
    for name, expected in (("gpt-4", "good"), ("lone", "spare")):
        reply = await router.acompletion(model=name, messages=question)
        assert reply.choices[0].message.content == expected, (name, reply)
    # In their order, each once, and with no key but their own.
    assert broken.keys == ["Bearer sk-tabby", "Bearer none"]
    assert good.keys == spare.keys == ["Bearer none"]


async def check_example() -> None:
    from litellm.proxy.proxy_server import ProxyConfig

    router = (await ProxyConfig().load_config(router=None, config_file_path=str(EXAMPLE)))[0]
    names = ("llama-70b", "llama-8b", "qwen-14b", "embed")
    assert [router.get_model_group_info(name).max_input_tokens for name in names] == [32768, 8192, 16384, None]
    assert router.model_group_alias == {"gpt-4": "llama-70b"}
    assert {"llama-70b": ["qwen-14b", "llama-8b"]} in router.fallbacks


def main() -> int:
    only_loopback()
    servers = Server("broken", broken=True), Server("good"), Server("spare")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "litellm.yaml"
        path.write_text(litellm_text(fleet(*servers), embeddings={"vectors"}), encoding="utf-8")
        asyncio.run(check(str(path), *servers))
    asyncio.run(check_example())
    print(f"LiteLLM {version('litellm')} takes the file, and goes where it says")
    return 0


if __name__ == "__main__":
    sys.exit(main())

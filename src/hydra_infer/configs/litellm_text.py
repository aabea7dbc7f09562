"""LiteLLM's proxy config.yaml written from the same plain data that configs/litellm.py reads.

Keys and their meaning: litellm 1.106.2, router.py and main.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import ConfigError
from .document import flow
from .litellm import Deployment, LiteLLMConfig

__all__ = ["litellm_text"]

_PROVIDERS = {"tabby": "openai", "openai": "openai", "litellm": "litellm_proxy", "ollama": "ollama_chat"}
_STRATEGIES = {
    "ordered": "simple-shuffle",
    "shuffle": "simple-shuffle",
    "least-busy": "least-busy",
    "fastest": "latency-based-routing",
    "cheapest": "cost-based-routing",
}
_OPTIONS = {
    "weight": "weight",
    "max_parallel": "max_parallel_requests",
    "timeout": "timeout",
    "tags": "tags",
    "input_cost_per_token": "input_cost_per_token",
    "output_cost_per_token": "output_cost_per_token",
}
# Without a key LiteLLM sends OPENAI_API_KEY (or LITELLM_PROXY_API_KEY) from its environment to the server.
_NO_KEY = "none"


def litellm_text(config: LiteLLMConfig, *, embeddings: Collection[str] = ()) -> str:
    """The file's text. Every `api_key` is "os.environ/NAME" or None; a key itself is refused. `embeddings` names the groups
    that embed: Ollama's need another provider there.

    "ordered" keeps the order of a group's deployments. Fallbacks are written out, also to larger contexts; nothing is asked
    twice, as LiteLLM waits between retries even where a fallback stands by. Raises ConfigError for what LiteLLM has no word for.
    """
    if config.strategy not in _STRATEGIES:
        raise ConfigError(f"LiteLLM has no strategy {config.strategy!r}", hint=f"one of {', '.join(_STRATEGIES)}")
    lines = ["# Written by hydra_infer. Keys are in the environment of LiteLLM, never here.", "model_list:"]
    sizes, seen = Counter(one.group for one in config.deployments), Counter[str]()
    for one in config.deployments:
        seen[one.group] += 1
        order = seen[one.group] if config.strategy == "ordered" and sizes[one.group] > 1 else None
        lines += _deployment(one, order, one.group in embeddings)
    lines += ["", "router_settings:", *_block(_settings(config, max(sizes.values(), default=1)), "  ")]
    lines += [
        "",
        "general_settings:",
        "  # LiteLLM does not start where it is empty or well known.",
        "  master_key: os.environ/LITELLM_MASTER_KEY",
    ]
    return "\n".join([*lines, ""])


def _deployment(one: Deployment, order: int | None, embeds: bool) -> Iterator[str]:
    if one.api_key is not None and not one.api_key.startswith("os.environ/"):
        raise ConfigError(f"{one.group}: its key would stand in the file", hint='api_key="os.environ/NAME"')
    params: dict[str, Any] = {"model": _model(one, embeds), "api_base": _base(one)}
    if one.api_key or one.kind != "ollama":
        params["api_key"] = one.api_key or _NO_KEY
    if one.kind == "ollama" and one.context and not embeds:
        params["num_ctx"] = one.context
    for name, value in one.options.items():
        if name not in _OPTIONS:
            raise ConfigError(f"{one.group}: LiteLLM has no word for {name}", hint=f"it has {', '.join(_OPTIONS)}")
        params[_OPTIONS[name]] = value
    if order is not None:
        params["order"] = order
    info: dict[str, Any] = {"max_input_tokens": one.context} if one.context else {}
    if embeds:
        info["mode"] = "embedding"
    yield f"  - model_name: {flow(one.group)}"
    yield "    litellm_params:"
    yield from _block(params, "      ")
    if info:
        yield "    model_info:"
        yield from _block(info, "      ")


def _model(one: Deployment, embeds: bool) -> str:
    if one.kind not in _PROVIDERS:
        raise ConfigError(
            f"{one.group}: {one.kind!r} is no server that LiteLLM could ask", hint=f"one of {', '.join(_PROVIDERS)}"
        )
    # ollama_chat/ is /api/chat, with tools and honest finish reasons; embeddings are there under ollama/ alone.
    provider = "ollama" if one.kind == "ollama" and embeds else _PROVIDERS[one.kind]
    return f"{provider}/{one.local_name}"


def _base(one: Deployment) -> str:
    base = one.url.rstrip("/").removesuffix("/v1")
    return f"{base}/v1" if one.kind in ("tabby", "openai") else base


def _settings(config: LiteLLMConfig, largest: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "routing_strategy": _STRATEGIES[config.strategy],
        "num_retries": config.settings.get("retries", 0),
        "timeout": config.settings.get("timeout", 600),
        # Without a number of failures a deployment that is alone in its group never rests.
        "allowed_fails": 1,
        "cooldown_time": config.settings.get("cooldown", 30),
        # Looks at max_input_tokens before it sends.
        "enable_pre_call_checks": True,
    }
    if largest > 1 and config.strategy == "shuffle":
        found["enable_weighted_failover"] = True  # else a failure leaves the group at once
    if config.fallbacks:
        found["fallbacks"] = [{model: list(others)} for model, others in config.fallbacks.items()]
    if larger := _larger(config):
        found["context_window_fallbacks"] = larger
    if config.aliases:
        found["model_group_alias"] = dict(config.aliases)
    return found


def _larger(config: LiteLLMConfig) -> list[dict[str, list[str]]]:
    """Where a prompt that is too long may go: those fallbacks that are known to take more."""
    room: dict[str, int] = {}
    for one in config.deployments:
        room[one.group] = max(room.get(one.group, 0), one.context or 0)
    rows = []
    for model, others in config.fallbacks.items():
        own = room.get(model, 0)
        if more := [other for other in others if own and room.get(other, 0) > own]:
            rows.append({model: more})
    return rows


def _block(values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, value in values.items():
        yield f"{indent}{name}: {flow(value)}"

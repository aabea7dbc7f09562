"""A fleet as a LiteLLM proxy's config.yaml: every server that lists its models, under the names that users say here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from ..configs.litellm import Deployment, LiteLLMConfig
from ..configs.litellm_text import litellm_text
from .names import aliases_of, fallbacks_of

if TYPE_CHECKING:
    from .schema import FleetFile, Server

__all__ = ["key_variables", "proxy_config"]

# Strategies that LiteLLM has as well; the others become list order.
_STRATEGIES = ("ordered", "shuffle", "least-busy", "fastest", "cheapest")
_OPTIONS = ("weight", "max_parallel", "timeout", "tags", "input_cost_per_token", "output_cost_per_token")


def proxy_config(file: FleetFile, notes: list[str]) -> str:
    """The text; keys are names of environment variables. What could not be taken over is added to `notes`."""
    deployments = tuple(_deployments(file, notes))
    groups = {one.group for one in deployments}
    aliases = {alias: model for alias, model in aliases_of(file).items() if model in groups}
    known = groups | aliases.keys()
    fallbacks = {model: tuple(name for name in names if name in known) for model, names in fallbacks_of(file).items()}
    strategy = file.router.strategy or "ordered"
    if strategy not in _STRATEGIES:
        notes.append(f"LiteLLM has no strategy {strategy!r}: it got list order")
    said = {"retries": 0, "timeout": file.router.timeout, "cooldown": file.router.cooldown}
    config = LiteLLMConfig(
        deployments=deployments,
        fallbacks={model: names for model, names in fallbacks.items() if names and model in groups},
        aliases=aliases,
        strategy=strategy if strategy in _STRATEGIES else "ordered",
        settings={name: value for name, value in said.items() if value is not None},
        warnings=(),
    )
    vectors = {name for server in file.servers.values() for name, model in (server.models or {}).items() if model.embeds}
    return litellm_text(config, embeddings=vectors)


def key_variables(file: FleetFile) -> dict[str, str]:
    """By server, the environment variable in which LiteLLM finds its key: the file's own, or one named after the server."""
    found: dict[str, str] = {}
    keys = {name: server.api_key for name, server in file.servers.items() if server.api_key and server.kind != "litellm"}
    said = {key.env for key in keys.values()}
    for name, key in keys.items():
        base = re.sub(r"\W", "_", name).upper() + "_API_KEY"
        free = (
            word for word in chain([base], (f"{base}_{number}" for number in count(2))) if word not in {*said, *found.values()}
        )
        found[name] = key.env or next(free)
    return found


def _deployments(file: FleetFile, notes: list[str]) -> Iterator[Deployment]:
    variables = key_variables(file)
    for name, server in file.servers.items():
        if server.kind == "litellm":
            continue  # the proxy itself
        if server.models is None:
            notes.append(f"{name} lists no models: LiteLLM does not know it")
        for said, model in (server.models or {}).items():
            yield Deployment(
                group=said,
                kind=server.kind,
                url=server.url if "://" in server.url else f"http://{server.url}",
                local_name=model.name or said,
                line=0,
                api_key=f"os.environ/{variables[name]}" if name in variables else None,
                context=model.context or server.context,
                options=_options(server),
            )


def _options(server: Server) -> dict[str, Any]:
    return {name: value for name in _OPTIONS if (value := getattr(server, name)) not in (None, [])}

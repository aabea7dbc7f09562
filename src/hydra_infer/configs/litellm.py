"""LiteLLM's proxy config.yaml: its deployments, fallbacks and settings as plain data, and what cannot be taken over.

Keys and their meaning: litellm 1.109.1, types/router.py and router_python_core.py. LiteLLM itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .document import line_of, parse

__all__ = ["Deployment", "LiteLLMConfig", "read_litellm"]

_ENVIRONMENT = "os.environ/"
# LiteLLM's providers that are servers of one's own, by our kinds of backends.
_KINDS = {
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "litellm_proxy": "litellm",
    "openai": "openai",
    "hosted_vllm": "openai",
    "vllm": "openai",
    "openai_like": "openai",
    "custom_openai": "openai",
    "lm_studio": "openai",
    "llamafile": "openai",
    "text-completion-openai": "openai",
}
# Where LiteLLM goes when api_base is not given.
_BASES = {"ollama": "http://localhost:11434", "ollama_chat": "http://localhost:11434", "openai": "https://api.openai.com"}
_STRATEGIES = {
    "simple-shuffle": "shuffle",
    "least-busy": "least-busy",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
}
# A deployment's parameters by our options of a Backend.
_OPTIONS = {
    "weight": "weight",
    "max_parallel_requests": "max_parallel",
    "timeout": "timeout",
    "tags": "tags",
    "input_cost_per_token": "input_cost_per_token",
    "output_cost_per_token": "output_cost_per_token",
}
# What stands in the place of a setting that was not taken over.
_INSTEAD = {
    "set_verbose": ": LiteLLM itself has LITELLM_LOG in its place by now",
    "drop_params": ": parameters go to each server as they are",
    "enable_pre_call_checks": ": a context that is known counts anyway",
}
_SETTINGS = {"num_retries": "retries", "timeout": "timeout", "request_timeout": "timeout", "cooldown_time": "cooldown"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One server for one model group: `kind`, `url`, `api_key` and `options` as a Backend takes them."""

    group: str
    kind: str
    url: str
    local_name: str
    line: int
    api_key: str | None = field(default=None, repr=False)
    context: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiteLLMConfig:
    """What a config.yaml says in our words: `settings` as Router takes them; each warning names its line."""

    deployments: tuple[Deployment, ...]
    fallbacks: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]
    strategy: str
    settings: Mapping[str, Any]
    warnings: tuple[str, ...]


def read_litellm(text: str, where: str, environment: Mapping[str, str]) -> LiteLLMConfig:
    """Read the file's text; `where` names it in errors. `environment` is looked into for what it calls os.environ/NAME only.

    Raises ConfigError with file and line, MissingExtra where ruamel.yaml is not installed.
    """
    return _Reader(where, environment).read(parse(text, where))


class _Reader:
    """One file on its way; what is left out on the way is noted."""

    def __init__(self, where: str, environment: Mapping[str, str]) -> None:
        self._where, self._environment = where, dict(environment)
        self._warnings: list[str] = []
        self._orders: dict[str, list[Any]] = {}

    def read(self, root: Any) -> LiteLLMConfig:
        if not isinstance(root, dict):
            raise ConfigError(f"{self._where} is no LiteLLM config", hint="it has model_list: at its top")
        own = self._section(root, "environment_variables")
        self._environment |= {name: self._text(own, name) for name in own}
        deployments = tuple(self._deployments(root))
        if not deployments:
            raise self._wrong(root, "model_list", "has no model that can be taken over", "; ".join(self._warnings) or None)
        router, litellm = self._section(root, "router_settings"), self._section(root, "litellm_settings")
        groups = {one.group for one in deployments}
        aliases = self._aliases(router, groups)
        known = groups | aliases.keys()
        fallbacks = {**self._fallbacks(litellm, known), **self._fallbacks(router, known)}
        settings = {**self._settings(litellm), **self._settings(router)}
        strategy = self._strategy(router)
        for key in root:
            if key not in ("model_list", "router_settings", "litellm_settings", "environment_variables"):
                self._warn(root, key, f"{key} is the proxy's own and was not taken over")
        return LiteLLMConfig(deployments, fallbacks, aliases, strategy, settings, tuple(self._warnings))

    # ---- model_list ------------------------------------------------------------------------------------------

    def _deployments(self, root: dict[str, Any]) -> Iterator[Deployment]:
        rows = root.get("model_list")
        if not isinstance(rows, list):
            raise self._wrong(root, "model_list", "is not a list of models")
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("litellm_params"), dict):
                raise self._wrong(root, "model_list", f"has an entry without litellm_params: {str(row)[:60]!r}")
            for key in row:
                if key not in ("model_name", "litellm_params", "model_info"):
                    self._warn(row, key, f"{key} was not taken over")
            if (one := self._deployment(row, row["litellm_params"])) is not None:
                yield one

    def _deployment(self, row: dict[str, Any], params: dict[str, Any]) -> Deployment | None:
        group, model = self._text(row, "model_name"), self._text(params, "model")
        provider, _, local_name = model.rpartition("/") if model.count("/") == 0 else model.partition("/")
        provider = str(params.get("custom_llm_provider") or provider or ("openai" if "api_base" in params else ""))
        kind = _KINDS.get(provider)
        if kind is None:
            self._warn(
                params, "model", f"{group!r} was left out: {model!r} is not a server of your own, but {provider or 'unsaid'}"
            )
            return None
        if "*" in group or "*" in local_name:
            self._warn(row, "model_name", f"{group!r} was left out: there are no wildcards here")
            return None
        base = next((key for key in ("api_base", "base_url") if params.get(key)), None)
        if base is None and provider not in _BASES:
            raise self._wrong(params, "model", f"{group!r} ({model}) has no api_base")
        if base is None and provider == "openai" and not params.get("api_key"):
            self._warn(params, "model", f"{group!r} has no api_key: OPENAI_API_KEY is read only where the file says so")
        return Deployment(
            group=group,
            kind=kind,
            url=self._text(params, base) if base else _BASES[provider],
            local_name=local_name or model,
            line=line_of(params, "model"),
            api_key=self._text(params, "api_key") if params.get("api_key") else None,
            context=self._context(kind, group, row, params),
            options=self._options(group, row, params),
        )

    def _options(self, group: str, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        taken = {"model", "api_base", "base_url", "api_key", "custom_llm_provider", "num_ctx", "order", *_OPTIONS}
        for key in params:
            if key not in taken:
                self._warn(params, key, f"{key} of {group!r} was not taken over")
        if "order" in params:
            before = self._orders.setdefault(group, [])
            if before and params["order"] < before[-1]:
                self._warn(params, "order", f"order of {group!r} was not taken over: here the file's order counts")
            before.append(params["order"])
        info = row.get("model_info")
        prices = {key: info[key] for key in _OPTIONS if "cost" in key and key in info} if isinstance(info, dict) else {}
        given = {key: value for key, value in {**prices, **params}.items() if key in _OPTIONS and value is not None}
        for key, value in given.items():
            fine = isinstance(value, list) and all(isinstance(tag, str) for tag in value) if key == "tags" else _is_number(value)
            if not fine:
                raise self._wrong(params, key, f"is {str(value)[:60]!r}")
        return {_OPTIONS[key]: tuple(value) if key == "tags" else value for key, value in given.items()}

    def _context(self, kind: str, group: str, row: dict[str, Any], params: dict[str, Any]) -> int | None:
        """num_ctx is what Ollama is told; max_input_tokens only says what a server takes."""
        info: dict[str, Any] = told if isinstance(told := row.get("model_info"), dict) else {}
        if info.get("max_tokens") and not info.get("max_input_tokens"):
            where = "num_ctx in litellm_params" if kind == "ollama" else "max_input_tokens"
            self._warn(info, "max_tokens", f"max_tokens of {group!r} is an answer's length: {where} says the context")
        if kind != "ollama":
            return self._tokens(info, "max_input_tokens")
        if info.get("max_input_tokens") and "num_ctx" not in params:
            self._warn(
                row, "model_info", f"max_input_tokens of {group!r} was not taken over: say num_ctx to have Ollama serve it"
            )
        return self._tokens(params, "num_ctx")

    def _tokens(self, table: dict[str, Any], key: str) -> int | None:
        value = table.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self._wrong(table, key, f"is {str(value)[:60]!r}, not a number of tokens")
        return value

    # ---- settings --------------------------------------------------------------------------------------------

    def _settings(self, section: dict[str, Any]) -> dict[str, Any]:
        read = {"fallbacks", "model_group_alias", "routing_strategy", *_SETTINGS}
        for key in section:
            if key not in read:
                self._warn(section, key, f"{key} was not taken over{_INSTEAD.get(key, '')}")
        found = {key: value for key, value in section.items() if key in _SETTINGS and value is not None}
        for key, value in found.items():
            if not _is_number(value):
                raise self._wrong(section, key, f"is {str(value)[:60]!r}, not a number")
        return {_SETTINGS[key]: value for key, value in found.items()}

    def _strategy(self, section: dict[str, Any]) -> str:
        asked = str(section.get("routing_strategy") or "simple-shuffle")  # LiteLLM's own default
        if asked not in _STRATEGIES:
            self._warn(section, "routing_strategy", f"{asked!r} has no counterpart here: it became 'least-busy'")
        if asked == "simple-shuffle" and self._orders:
            return "ordered"
        return _STRATEGIES.get(asked, "least-busy")

    def _aliases(self, section: dict[str, Any], groups: set[str]) -> dict[str, str]:
        table = section.get("model_group_alias") or {}
        if not isinstance(table, dict):
            raise self._wrong(section, "model_group_alias", "is not a table of names")
        found = {}
        for alias, meant in table.items():
            model = meant.get("model") if isinstance(meant, dict) else meant
            if isinstance(model, str) and model in groups:
                found[str(alias)] = str(model)
            else:
                self._warn(table, alias, f"the alias {alias!r} was left out: {model!r} is not among the models taken over")
        return found

    def _fallbacks(self, section: dict[str, Any], known: set[str]) -> dict[str, tuple[str, ...]]:
        rows = section.get("fallbacks") or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._wrong(section, "fallbacks", "is not a list of one-key tables", '[{"a": ["b", "c"]}]')
        found: dict[str, tuple[str, ...]] = {}
        for row in rows:
            for model, others in row.items():
                names = [str(name) for name in others] if isinstance(others, list) else [str(others)]
                for name in [model, *names]:
                    if name not in known:
                        self._warn(
                            row, model, f"the fallback {model!r} to {name!r} was left out: it is not among those taken over"
                        )
                if model in known:
                    found[str(model)] = tuple(name for name in names if name in known)
        return found

    # ---- words -----------------------------------------------------------------------------------------------

    def _section(self, root: dict[str, Any], name: str) -> dict[str, Any]:
        section = root.get(name)
        if section is not None and not isinstance(section, dict):
            raise self._wrong(root, name, "is not a table")
        return section or {}

    def _text(self, table: dict[str, Any], key: str) -> str:
        """A value that must be text, out of the environment where the file says so."""
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(table, key, "is not text")
        if not value.startswith(_ENVIRONMENT):
            return value
        name = value.removeprefix(_ENVIRONMENT)
        if not self._environment.get(name):
            raise self._wrong(table, key, f"is {value}, and the environment has no {name}")
        return self._environment[name]

    def _wrong(self, table: Any, key: str, what: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self._where}:{line_of(table, key)}: {key} {what}", hint=hint)

    def _warn(self, table: Any, key: Any, what: str) -> None:
        self._warnings.append(f"{self._where}:{line_of(table, key)}: {what}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""A fleet written as LiteLLM's config.yaml, and read again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hydra_infer import ConfigError
from hydra_infer.configs.litellm import Deployment, LiteLLMConfig, read_litellm
from hydra_infer.configs.litellm_text import litellm_text

KEYS = {"TABBY_KEY": "sk-tabby", "LITELLM_MASTER_KEY": "sk-master"}


def row(group: str, kind: str, url: str, local_name: str, **options: Any) -> Deployment:
    return Deployment(group=group, kind=kind, url=url, local_name=local_name, line=0, **options)


FLEET = LiteLLMConfig(
    deployments=(
        row("llama-70b", "tabby", "http://desk:5000", "Llama-3.1-70B", api_key="os.environ/TABBY_KEY", context=32768),
        row("llama-8b", "ollama", "http://shelf:11434", "llama3.1:8b", context=16384, options={"timeout": 120}),
        row(
            "llama-8b",
            "ollama",
            "http://cpu:11434/",
            "llama3.1:8b",
            context=65536,
            options={"max_parallel": 1, "tags": ("slow",)},
        ),
        row("embed", "ollama", "http://cpu:11434", "nomic-embed-text"),
        row("team", "litellm", "http://proxy:4000", "team"),
        row("vllm", "openai", "http://rack:8000/v1", "org/model"),
    ),
    fallbacks={"llama-70b": ("llama-8b", "team")},
    aliases={"gpt-4": "llama-70b"},
    strategy="ordered",
    settings={},
    warnings=(),
)


def written(config: LiteLLMConfig = FLEET, **options: Any) -> Any:
    return YAML(typ="safe", pure=True).load(litellm_text(config, **options))


def test_each_server_is_asked_in_the_way_that_works() -> None:
    file = written(embeddings={"embed"})
    params = [(entry["model_name"], entry["litellm_params"]) for entry in file["model_list"]]
    assert params == [
        ("llama-70b", {"model": "openai/Llama-3.1-70B", "api_base": "http://desk:5000/v1", "api_key": "os.environ/TABBY_KEY"}),
        (
            "llama-8b",
            {"model": "ollama_chat/llama3.1:8b", "api_base": "http://shelf:11434", "num_ctx": 16384, "timeout": 120, "order": 1},
        ),
        (
            "llama-8b",
            {
                "model": "ollama_chat/llama3.1:8b",
                "api_base": "http://cpu:11434",
                "num_ctx": 65536,
                "max_parallel_requests": 1,
                "tags": ["slow"],
                "order": 2,
            },
        ),
        ("embed", {"model": "ollama/nomic-embed-text", "api_base": "http://cpu:11434"}),
        ("team", {"model": "litellm_proxy/team", "api_base": "http://proxy:4000", "api_key": "none"}),
        ("vllm", {"model": "openai/org/model", "api_base": "http://rack:8000/v1", "api_key": "none"}),
    ]
    infos = [entry.get("model_info") for entry in file["model_list"]]
    assert infos == [
        {"max_input_tokens": 32768},
        {"max_input_tokens": 16384},
        {"max_input_tokens": 65536},
        {"mode": "embedding"},
        None,
        None,
    ]


def test_fallbacks_are_explicit_nothing_is_asked_twice_and_the_lone_rest_too() -> None:
    assert written()["router_settings"] == {
        "routing_strategy": "simple-shuffle",
        "num_retries": 0,
        "timeout": 600,
        "allowed_fails": 1,
        "cooldown_time": 30,
        "enable_pre_call_checks": True,
        "fallbacks": [{"llama-70b": ["llama-8b", "team"]}],
        "context_window_fallbacks": [{"llama-70b": ["llama-8b"]}],
        "model_group_alias": {"gpt-4": "llama-70b"},
    }
    assert written()["general_settings"] == {"master_key": "os.environ/LITELLM_MASTER_KEY"}


def test_a_balanced_group_goes_to_its_others_first() -> None:
    file = written(dataclasses.replace(FLEET, strategy="shuffle", settings={"retries": 2, "timeout": 60, "cooldown": 5}))
    assert file["router_settings"]["enable_weighted_failover"] is True
    assert [file["router_settings"][name] for name in ("num_retries", "timeout", "cooldown_time")] == [2, 60, 5]
    assert not any("order" in entry["litellm_params"] for entry in file["model_list"])


def read_again(config: LiteLLMConfig, **options: Any) -> LiteLLMConfig:
    return read_litellm(litellm_text(config, **options), "config.yaml", KEYS)


def as_read(one: Deployment) -> Deployment:
    """What becomes of a deployment on its way: the key is the environment's, a TabbyAPI is any OpenAI-compatible server."""
    kind = "openai" if one.kind == "tabby" else one.kind
    key = KEYS.get((one.api_key or "").removeprefix("os.environ/"), None if kind == "ollama" else "none")
    base = one.url.rstrip("/").removesuffix("/v1")
    return dataclasses.replace(one, kind=kind, url=f"{base}/v1" if kind == "openai" else base, api_key=key, line=0)


@pytest.mark.parametrize("strategy", ["ordered", "shuffle", "least-busy", "fastest", "cheapest"])
def test_what_is_written_is_read_again(strategy: str) -> None:
    config = dataclasses.replace(FLEET, strategy=strategy, settings={"retries": 1, "timeout": 90.5, "cooldown": 7})
    again = read_again(config, embeddings={"embed"})
    assert [dataclasses.replace(one, line=0) for one in again.deployments] == [as_read(one) for one in config.deployments]
    assert (again.fallbacks, again.aliases, again.strategy) == (config.fallbacks, config.aliases, config.strategy)
    assert again.settings == config.settings
    # What is for LiteLLM alone is said to be.
    assert {warning.partition(": ")[2].split()[0] for warning in again.warnings} <= {
        "allowed_fails",
        "enable_pre_call_checks",
        "enable_weighted_failover",
        "context_window_fallbacks",
        "general_settings",
    }


NAMES = st.text(alphabet="abz09-_.: /#'\"é", min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and "*" not in name
)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.builds(
            row,
            NAMES,
            st.sampled_from(["tabby", "ollama", "openai"]),
            st.sampled_from(["http://a:5000", "https://b/prefix"]),
            NAMES,
            context=st.none() | st.integers(1, 10**6),
            options=st.fixed_dictionaries({}, optional={"weight": st.integers(0, 9), "input_cost_per_token": st.floats(0, 1e-3)}),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_fleet_is_read_again(rows: list[Deployment]) -> None:
    config = LiteLLMConfig(tuple(rows), {}, {}, "shuffle", {}, ())
    again = read_again(config)
    assert [dataclasses.replace(one, line=0) for one in again.deployments] == [as_read(one) for one in rows]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (dataclasses.replace(FLEET, strategy="sticky"), "has no strategy 'sticky'"),
        (
            dataclasses.replace(FLEET, deployments=(row("m", "openai", "http://a", "m", api_key="sk-planted"),)),
            "would stand in the file",
        ),
        (dataclasses.replace(FLEET, deployments=(row("m", "engine", "engine://local", "m"),)), "is no server"),
        (
            dataclasses.replace(FLEET, deployments=(row("m", "openai", "http://a", "m", options={"name": "x"}),)),
            "no word for name",
        ),
    ],
)
def test_what_litellm_has_no_word_for(config: LiteLLMConfig, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        litellm_text(config)
    assert "planted" not in str(caught.value)


def test_an_order_that_is_not_the_files_is_said() -> None:
    swapped = litellm_text(FLEET).replace("order: 1", "order: 3")
    config = read_litellm(swapped, "config.yaml", KEYS)
    assert config.strategy == "ordered"
    (warning,) = (row for row in config.warnings if "llama-8b" in row)
    assert "order of 'llama-8b' was not taken over: here the file's order counts" in warning

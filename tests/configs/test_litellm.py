"""A LiteLLM config.yaml as data, and as a Router."""

from __future__ import annotations

import json
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_infer import ConfigError, MissingExtra, Router
from hydra_infer.configs.litellm import LiteLLMConfig, read_litellm
from hydra_infer.routing.litellm import backends_of

pytestmark = pytest.mark.usefixtures("no_leaks")

FLEET = """\
model_list:
  - model_name: llama-70b
    litellm_params:
      model: openai/default
      api_base: http://gpu-box:5000/v1
      api_key: os.environ/GPU_KEY
      weight: 2
      timeout: 120
    model_info:
      max_input_tokens: 32768
      mode: chat
  - model_name: llama-70b
    litellm_params: {model: ollama_chat/llama3.1:70b, api_base: "http://cpu-box:11434", num_ctx: 8192}
  - model_name: llama-8b
    litellm_params: {model: ollama/llama3.1:8b, api_base: "http://cpu-box:11434"}
  - model_name: team
    litellm_params: {model: litellm_proxy/team, api_base: "http://proxy:4000", api_key: sk-1}
router_settings:
  num_retries: 1
  timeout: 300
  cooldown_time: 60
  routing_strategy: latency-based-routing
  fallbacks: [{llama-70b: [llama-8b]}]
  model_group_alias: {gpt-4: llama-70b, gpt-3.5: {model: llama-8b, hidden: true}}
"""


def read(text: str, **environment: str) -> LiteLLMConfig:
    return read_litellm(textwrap.dedent(text), "config.yaml", environment)


def entry(params: str, more: str = "") -> str:
    return f"model_list:\n  - model_name: m\n    litellm_params: {{{params}}}\n{more}"


def test_a_fleet_is_taken_over_whole() -> None:
    config = read(FLEET, GPU_KEY="secret")
    assert config.warnings == ()
    first, second, third, fourth = config.deployments
    assert (first.group, first.kind, first.url, first.local_name) == ("llama-70b", "openai", "http://gpu-box:5000/v1", "default")
    assert (first.api_key, first.context, first.line) == ("secret", 32768, 4)
    assert first.options == {"weight": 2, "timeout": 120}
    assert (second.kind, second.local_name, second.context) == ("ollama", "llama3.1:70b", 8192)
    assert (third.local_name, third.context) == ("llama3.1:8b", None)
    assert (fourth.kind, fourth.api_key) == ("litellm", "sk-1")
    assert config.settings == {"retries": 1, "timeout": 300, "cooldown": 60}
    assert config.strategy == "fastest"
    assert config.fallbacks == {"llama-70b": ("llama-8b",)}
    assert config.aliases == {"gpt-4": "llama-70b", "gpt-3.5": "llama-8b"}
    assert "secret" not in repr(config)
    assert "sk-1" not in repr(config)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (entry("model: openai/x, api_base: a, rpm: 5"), "3: rpm of 'm' was not taken over"),
        (
            entry("model: ollama/x", "    model_info: {max_input_tokens: 9}\n"),
            "4: max_input_tokens of 'm' was not taken over: say num_ctx",
        ),
        (entry("model: ollama/x", "general_settings: {master_key: k}\n"), "4: general_settings is the proxy's own"),
        (entry("model: ollama/x", "litellm_settings:\n  drop_params: true\n"), "5: drop_params was not taken over"),
        (
            entry("model: ollama/x", "router_settings:\n  routing_strategy: usage-based-routing\n"),
            "5: 'usage-based-routing' has no",
        ),
        (
            entry("model: ollama/x", "router_settings:\n  fallbacks: [{m: [gone]}]\n"),
            "5: the fallback 'm' to 'gone' was left out",
        ),
        (entry("model: ollama/x", "router_settings:\n  model_group_alias: {a: gone}\n"), "5: the alias 'a' was left out"),
        (entry("model: openai/x"), "3: 'm' has no api_key: OPENAI_API_KEY is read only where the file says so"),
        (
            entry("model: ollama/x") + "  - {model_name: c, litellm_params: {model: anthropic/claude}}\n",
            "4: 'c' was left out: 'anthropic",
        ),
        (entry("model: ollama/x") + "  - {model_name: '*', litellm_params: {model: 'ollama/*'}}\n", "4: '*' was left out"),
    ],
)
def test_what_has_no_counterpart_is_a_warning_that_names_its_line(text: str, warning: str) -> None:
    config = read(text)
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith(f"config.yaml:{warning}")
    assert len(config.deployments) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_list: [\n", "config.yaml:2 is not usable YAML"),
        ("a: 1\na: 2\n", "config.yaml:2 is not usable YAML"),
        ("- 1\n", "is no LiteLLM config"),
        ("", "is no LiteLLM config"),
        ("router_settings: {}\n", "model_list is not a list"),
        ("model_list:\n  - model_name: m\n", "config.yaml:1: model_list has an entry without litellm_params"),
        ("model_list:\n  - litellm_params: {model: ollama/x}\n", "config.yaml:2: model_name is not text"),
        (entry("api_base: a"), "config.yaml:3: model is not text"),
        (entry("model: hosted_vllm/x"), "config.yaml:3: model 'm' .* has no api_base"),
        (entry("model: openai/x, api_base: a, api_key: os.environ/NO_SUCH"), "config.yaml:3: api_key is os.environ/NO_SUCH, and"),
        (entry("model: anthropic/x"), "config.yaml:1: model_list has no model that can be taken over"),
        (entry("model: ollama/x", "router_settings: [1]\n"), "config.yaml:4: router_settings is not a table"),
        (entry("model: ollama/x", "router_settings: {fallbacks: {m: n}}\n"), "config.yaml:4: fallbacks is not a list"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_its_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(text)


def test_the_knowledge_bases_own_file() -> None:
    """What it says is taken over; what has another word is told by line, with that word."""
    text = (Path(__file__).parents[1] / "data" / "knowledge_base" / "litellm.yaml").read_text()
    config = read(text, TABBY_API_KEY="k")
    assert [(one.group, one.kind, one.local_name) for one in config.deployments] == [
        ("llama-70b", "openai", "default"),
        ("llama-8b", "ollama", "llama3.1:8b"),
    ]
    assert (config.strategy, dict(config.settings)) == ("shuffle", {"retries": 2, "timeout": 300})
    assert [warning.removeprefix("config.yaml:") for warning in config.warnings] == [
        "8: max_tokens of 'llama-70b' is an answer's length: max_input_tokens says the context",
        "14: drop_params was not taken over: parameters go to each server as they are",
        "15: set_verbose was not taken over: LiteLLM itself has LITELLM_LOG in its place by now",
        "19: general_settings is the proxy's own and was not taken over",
    ]


def test_the_files_own_environment_counts() -> None:
    text = entry("model: openai/x, api_base: a, api_key: os.environ/KEY", "environment_variables: {KEY: from-file}\n")
    assert read(text).deployments[0].api_key == "from-file"


def test_without_ruamel_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(MissingExtra, match="pip install 'hydra-infer\\[config\\]'"):
        read(FLEET)


# ---- as a Router ---------------------------------------------------------------------------------------------


def router(tmp_path: Path, text: str, **settings: Any) -> Router:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return Router.from_litellm(file, **settings)


def test_a_router_has_a_backend_for_each_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", "secret")
    made = router(tmp_path, FLEET, timeout=10, strategy="ordered")
    gpu, cpu, proxy = made._board.backends
    assert (gpu.name, gpu.weight, gpu.api_key, gpu.timeouts.timeout) == ("gpu-box:5000", 2, "secret", 120)
    assert (cpu.kind, cpu.max_parallel, list(cpu.models or ())) == ("ollama", 1, ["llama-70b", "llama-8b"])
    assert proxy.kind == "litellm"
    assert (made._board.policy.timeout, made._board.policy.retries) == (10, 1)
    assert made.explain("gpt-4").order == ["gpu-box:5000", "cpu-box:11434", "cpu-box:11434"]
    made.close()


def test_two_models_behind_one_name_on_one_server_are_two_rows(tmp_path: Path) -> None:
    twice = entry("model: ollama/a") + "  - {model_name: m, litellm_params: {model: ollama/b}}\n"
    made = router(tmp_path, twice)
    assert [row.local("m").name for row in made._board.backends] == ["a", "b"]  # type: ignore[union-attr]
    made.close()


def test_a_foreign_key_in_the_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-foreign")
    with pytest.warns(UserWarning, match=r"config.yaml:3: 'm' has no api_key"):
        made = router(tmp_path, entry("model: openai/x"))
    assert made._board.backends[0].api_key is None
    made.close()


def test_a_server_that_cannot_be_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml:3: .*weight=-1"):
        router(tmp_path, entry("model: ollama/x, weight: -1"))
    with pytest.raises(ConfigError, match=r"config.yaml:3: .*cloud"):
        router(tmp_path, entry("model: 'ollama/big:cloud'"))
    with pytest.raises(ConfigError, match="cannot be read"):
        Router.from_litellm(tmp_path / "none.yaml")


def test_a_whole_file_without_warnings_warns_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", "secret")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        router(tmp_path, FLEET).close()


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["m", "ollama/x", "os.environ/NO", "", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["m", "model", "api_base"]), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("model_list",),
    ("model_list", 0),
    ("router_settings",),
    ("general_settings",),
    ("litellm_settings",),
    ("environment_variables",),
    *(("model_list", 0, key) for key in ("model_name", "litellm_params", "model_info")),
    *(
        ("model_list", 0, "litellm_params", key)
        for key in ("model", "api_base", "api_key", "weight", "tags", "num_ctx", "timeout")
    ),
    *(("model_list", 0, "model_info", key) for key in ("max_input_tokens", "input_cost_per_token")),
    *(("router_settings", key) for key in ("timeout", "num_retries", "fallbacks", "model_group_alias", "routing_strategy")),
]


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=anything)
def test_nonsense_anywhere_is_a_config_error_or_taken_over(place: tuple[Any, ...], value: Any) -> None:
    whole: Any = {
        "model_list": [{"model_name": "m", "litellm_params": {"model": "ollama/x"}, "model_info": {}}],
        "router_settings": {},
    }
    table = whole
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    try:
        config = read(json.dumps(whole))  # JSON is YAML
        backends_of(config, "config.yaml")
    except ConfigError as error:
        told = str(error)
    else:
        told = "config.yaml"
    assert "config.yaml" in told

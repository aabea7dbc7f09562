"""Backend rows: what they accept, what they refuse, and that they keep secrets."""

from __future__ import annotations

from typing import Any

import pytest

from hydra_infer.errors import ConfigError
from hydra_infer.routing.backend import Backend


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("gpu:5000", "http://gpu:5000"),
        ("http://gpu:5000", "http://gpu:5000"),
        ("http://gpu:5000/", "http://gpu:5000"),
        ("http://gpu:5000/v1", "http://gpu:5000"),
        ("https://host/prefix/v1/", "https://host/prefix"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
    ],
)
def test_addresses_with_and_without_scheme_and_v1(url: str, origin: str) -> None:
    assert Backend.openai(url).url == origin


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "gpu:port", "http://gpu:99999", "http://gpu/?a=1", 5000, None])
def test_what_is_no_address_is_refused_with_an_example(url: Any) -> None:
    with pytest.raises(ConfigError, match="for example http://127.0.0.1"):
        Backend.openai(url)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Backend.openai("http://user:hunter2@gpu:5000")
    assert "hunter2" not in str(caught.value)


def test_keys_are_never_shown() -> None:
    row = Backend.tabby("gpu", {"m": "x"}, api_key="sk-secret", admin_key="sk-admin")
    assert "sk-" not in repr(row)
    assert row.headers() == {"authorization": "Bearer sk-secret"}
    with pytest.raises(ConfigError) as caught:
        Backend.openai("gpu", api_key="sk-secret\nx: y")
    assert "sk-secret" not in str(caught.value)


def test_models_as_list_mapping_and_details() -> None:
    assert Backend.openai("gpu", models=["a"]).local("a").name == "a"  # type: ignore[union-attr]
    assert Backend.openai("gpu", models="a").local("a") is not None
    row = Backend.ollama("gpu", models={"q": {"name": "qwen2.5:14b", "context": 16384}, "l": "llama3.1:8b"})
    local = row.local("q")
    assert local is not None
    assert (local.name, local.context) == ("qwen2.5:14b", 16384)
    assert row.local("x") is None
    assert Backend.openai("gpu").models is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wieght": 2}, "did you mean 'weight'"),
        ({"weight": -1}, "weight=-1"),
        ({"max_parallel": 0}, "max_parallel=0"),
        ({"max_parallel": True}, "max_parallel=True"),
        ({"context": 1.5}, "context=1.5"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeouts": {"idle": 3}}, "did you mean 'idle_timeout'|known"),
        ({"source": 1}, "no option 'source'"),
        ({"models": {"a": ""}}, "not a pair of names"),
        ({"models": {"a": {"name": "x", "ctx": 3}}}, "no option 'ctx'"),
        ({"models": {"a": {"name": "x", "context": 0}}}, "context=0"),
    ],
)
def test_slips_of_the_pen_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Backend.openai("gpu", **options)


def test_timeouts_in_both_spellings() -> None:
    row = Backend.openai("gpu", timeout=9, timeouts={"idle_timeout": 4})
    assert (row.timeouts.timeout, row.timeouts.idle_timeout, row.timeouts.connect_timeout) == (9, 4, None)


@pytest.mark.parametrize("name", ["qwen3:480b-cloud", "gpt-oss:cloud"])
def test_ollamas_cloud_is_refused_unless_allowed(name: str) -> None:
    assert Backend.ollama("a", [name], allow_cloud=True).local(name) is not None
    with pytest.raises(ConfigError, match="cloud"):
        Backend.ollama("gpu", models={"q": name})


def test_ollama_takes_one_at_a_time_unless_told_otherwise() -> None:
    assert Backend.ollama("gpu").max_parallel == 1
    assert Backend.ollama("gpu", max_parallel=4).max_parallel == 4
    assert Backend.openai("gpu").max_parallel is None

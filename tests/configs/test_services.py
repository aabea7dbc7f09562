"""What systems start servers with: units, a drop-in, a NixOS module, docker compose."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from hydra_infer import ConfigError
from hydra_infer.configs.compose import LiteLLMService, compose
from hydra_infer.configs.nix import nixos_module
from hydra_infer.configs.services import OllamaService, TabbyService
from hydra_infer.configs.systemd import ollama_dropin, tabby_unit

Unit = dict[str, list[tuple[str, str]]]


def tabby(**options: Any) -> TabbyService:
    return TabbyService(**{"folder": "/opt/tabbyAPI", "python": "/opt/tabbyAPI/venv/bin/python", "user": "typhon", **options})


def sections(text: str) -> Unit:
    """A unit's settings by section, as systemd.syntax(7) reads lines."""
    found: Unit = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            rows = found.setdefault(heading[1], [])
        elif line and not line.startswith(("#", ";")):
            key, mark, value = line.partition("=")
            assert mark
            assert key.isidentifier()
            assert not value.endswith("\\")
            rows.append((key, value))
    return found


def words(value: str) -> list[str]:
    """The words of a command or an environment, quotes and doubled signs taken away."""
    found = re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', value)
    plain = (re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in found)
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


def test_the_unit_of_a_tabbyapi() -> None:
    unit = sections(
        tabby_unit(
            tabby(
                mounts=("/mnt/models",),
                cards=("0", "1"),
                prestart=("/opt/hydra/bin/hydra-infer", "prestart", "--tabby-config", "/opt/tabbyAPI/config.yml"),
            )
        )
    )
    assert unit["Unit"] == [
        ("Description", "TabbyAPI"),
        ("Wants", "network-online.target"),
        ("After", "network-online.target"),
        ("RequiresMountsFor", "/mnt/models"),
        ("StartLimitIntervalSec", str(4 * (120 + 600 + 30 + 30))),
        ("StartLimitBurst", "3"),
    ]
    assert unit["Service"] == [
        ("Type", "exec"),
        ("User", "typhon"),
        ("WorkingDirectory", "/opt/tabbyAPI"),
        ("Environment", "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ("Environment", "CUDA_VISIBLE_DEVICES=0,1"),
        ("ExecStartPre", "/opt/hydra/bin/hydra-infer prestart --tabby-config /opt/tabbyAPI/config.yml"),
        ("ExecStart", "/opt/tabbyAPI/venv/bin/python main.py"),
        ("Restart", "always"),
        ("RestartSec", "30"),
        ("TimeoutStartSec", "120"),
        ("TimeoutStopSec", "30"),
        ("LimitMEMLOCK", "infinity"),
        ("LimitNOFILE", "1048576"),
    ]
    assert unit["Install"] == [("WantedBy", "multi-user.target")]


def starts_until_it_gives_up(interval: float, burst: int, failure: float, limit: int = 50) -> int:
    """How often systemd starts a service that fails each time, `failure` seconds from start to start (basic/ratelimit.c)."""
    begin, count, now = 0.0, 0, 0.0
    for starts in range(limit):
        if starts == 0 or now - begin > interval:
            begin, count = now, 1
        elif count < burst:
            count += 1
        else:
            return starts
        now += failure
    return limit


@pytest.mark.parametrize("load", [1, 45, 600])
@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_a_model_that_never_fits_is_not_loaded_for_ever(load: int, attempts: int) -> None:
    service = tabby(load_seconds=load, attempts=attempts)
    for share in (0.01, 0.5, 1.0):
        failure = share * (service.prestart_seconds + load + service.stop_seconds) + service.restart_seconds
        assert starts_until_it_gives_up(service.start_limit_seconds, attempts, failure) == attempts
    # The knowledge base's numbers: five in 300 s, 30 s between, and a load that fails after 45.
    assert starts_until_it_gives_up(300, 5, 30 + 45) == 50


def test_words_reach_the_program_as_they_were() -> None:
    odd = ("/opt/hydra infer/bin/x", "50%", "$HOME", 'say "hi"', "back\\slash", "semi;colon", "it's")
    unit = dict(
        sections(tabby_unit(tabby(prestart=odd, folder="/opt/tabby 100%", environment={"A": "x y", "B": "%n"})))["Service"]
    )
    assert words(unit["ExecStartPre"]) == list(odd)
    assert unit["WorkingDirectory"] == "/opt/tabby 100%%"
    assert words(unit["Environment"]) == ["B=%n"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"folder": "tabbyAPI"}, "is not an absolute path"),
        ({"prestart": ("hydra-infer", "prestart")}, "is not an absolute path"),
        ({"name": "../x"}, "is no name for a unit"),
        ({"attempts": 0}, "must be 1 or more"),
        ({"environment": {"HF_TOKEN": "x"}}, "everybody on the machine can read"),
    ],
)
def test_what_is_no_service(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        tabby(**options)


@pytest.mark.parametrize(
    "options",
    [{"description": "two\nlines"}, {"user": "x\nExecStart=/bin/evil"}, {"environment": {"A B": "1"}}, {"folder": "/opt/x\\"}],
)
def test_no_value_becomes_a_setting_of_its_own(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tabby_unit(tabby(**options))


def test_ollamas_dropin() -> None:
    unit = sections(ollama_dropin(OllamaService(host="0.0.0.0", context=16384, models="/mnt/m x", cards=(), keep_alive="-1")))
    assert unit["Unit"] == [("RequiresMountsFor", '"/mnt/m x"')]
    assert dict(words(value)[0].split("=") for _, value in unit["Service"]) == {
        "OLLAMA_HOST": "0.0.0.0:11434",
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_CONTEXT_LENGTH": "16384",
        "OLLAMA_NO_CLOUD": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "-1",
        "OLLAMA_MODELS": "/mnt/m x",
    }
    with pytest.raises(ConfigError, match="is no duration"):
        OllamaService(keep_alive="10 minutes")
    with pytest.raises(ConfigError, match="parallel=0 must be 1 or more"):
        OllamaService(parallel=0)


def nix(text: str) -> dict[str, Any]:
    """The subset of Nix that is written: sets, lists, strings, numbers, true and false."""
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|[{}\[\];=]|[^\s{}\[\];=]+', text.removeprefix("{ ... }:"))

    def value() -> Any:
        token = tokens.pop(0)
        if token == "{":
            found = {}
            while tokens[0] != "}":
                name = tokens.pop(0)
                while tokens[0] != "=":
                    name += tokens.pop(0)
                tokens.pop(0)
                found[name] = value()
                assert tokens.pop(0) == ";"
            tokens.pop(0)
            return found
        if token == "[":
            rows = []
            while tokens[0] != "]":
                rows.append(value())
            tokens.pop(0)
            return rows
        if token.startswith('"'):
            assert not re.search(r"(?<!\\)\$\{", token)
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        return {"true": True, "false": False}[token] if token.isalpha() else int(token)

    found = value()
    assert not tokens
    return dict(found)


def test_a_nixos_module_tells_systemd_the_same() -> None:
    service = tabby(prestart=("/opt/x/bin/hydra-infer", "${HOME}", 'a "b"'), environment={"A": "x y"})
    module = nix(nixos_module(tabby=[service], ollama=OllamaService(models="/mnt/m", port=11435)))
    told = module['systemd.services."tabbyapi"']
    unit = sections(tabby_unit(service))
    for name, key in (("Unit", "unitConfig"), ("Service", "serviceConfig")):
        rows = [(key, str(one)) for key, value in told[key].items() for one in (value if isinstance(value, list) else [value])]
        assert rows == unit[name]
    assert told["wantedBy"] == ["multi-user.target"]
    assert module["services.ollama"] == {
        "enable": True,
        "host": "127.0.0.1",
        "port": 11435,
        "models": "/mnt/m",
        "environmentVariables": {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_KEEP_ALIVE": "5m", "OLLAMA_NO_CLOUD": "1"},
    }


def test_compose() -> None:
    text = compose(
        litellm=LiteLLMService(keys=("TABBY_KEY",), config="./lite$llm.yaml"),
        ollama=[
            OllamaService(cards=("0",)),
            OllamaService(name="all", port=11435, models="/mnt/m"),
            OllamaService(name="cpu", port=11436, cards=()),
        ],
    )
    file = YAML(typ="safe", pure=True).load(text)
    proxy = file["services"]["litellm"]
    assert proxy["image"] == "ghcr.io/berriai/litellm:v1.110.1"
    assert proxy["ports"] == ["127.0.0.1:4000:4000"]
    assert proxy["volumes"] == ["./lite$$llm.yaml:/app/config.yaml:ro"]
    assert proxy["environment"] == {
        "LITELLM_MASTER_KEY": "${LITELLM_MASTER_KEY:?set it in .env}",
        "TABBY_KEY": "${TABBY_KEY:?set it in .env}",
    }
    rows = {name: file["services"][name] for name in ("ollama", "all", "cpu")}
    devices = {
        name: row.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices") for name, row in rows.items()
    }
    assert devices == {
        "ollama": [{"driver": "nvidia", "capabilities": ["gpu"], "device_ids": ["0"]}],
        "all": [{"driver": "nvidia", "capabilities": ["gpu"], "count": "all"}],
        "cpu": None,
    }
    assert [row["volumes"] for row in rows.values()] == [
        ["ollama:/root/.ollama"],
        ["/mnt/m:/root/.ollama/models"],
        ["cpu:/root/.ollama"],
    ]
    assert file["volumes"] == {"ollama": {}, "cpu": {}}
    assert all(row["environment"]["OLLAMA_HOST"] == "0.0.0.0:11434" for row in rows.values())


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/berriai/litellm",
        "ghcr.io/berriai/litellm:latest",
        "ghcr.io/berriai/litellm:main-latest",
        "ghcr.io/berriai/litellm:main-stable",
        "ghcr.io/berriai/litellm:v1",
        "registry:5000/litellm",
        "a b:1.0.0",
        "",
    ],
)
def test_an_image_that_moves_is_refused(image: str) -> None:
    with pytest.raises(ConfigError, match="does not say which image"):
        compose(litellm=LiteLLMService(image=image))


@pytest.mark.parametrize("tag", ["v1.82.7", "v1.82.8", "main-v1.107.0-stable", "1.107.2"])
def test_a_release_with_malicious_code_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="malicious code"):
        compose(litellm=LiteLLMService(image=f"ghcr.io/berriai/litellm:{tag}"))


@pytest.mark.parametrize(
    "image",
    ["registry:5000/x/litellm:v1.80.11-stable.1", f"ghcr.io/berriai/litellm@sha256:{'a' * 64}", "litellm/litellm:v1.110.1"],
)
def test_a_pinned_image_is_taken(image: str) -> None:
    assert YAML(typ="safe", pure=True).load(compose(litellm=LiteLLMService(image=image)))["services"]["litellm"]["image"] == image

"""A fleet file that is wrong says where, line by line, and shows no value."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from fleet.good import GOOD
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from hydra_infer import ConfigError, Fleet, UnknownModel
from hydra_infer.fleet.schema import FleetFile, editor_schema

PLANTED = "sk-planted-0123456789"


def fleet(tmp_path: Path, text: str, **options: Any) -> Fleet:
    path = tmp_path / "hydra.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return Fleet.from_file(path, **options)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        fleet(tmp_path, text)
    said = str(caught.value)
    assert PLANTED not in "".join(traceback.format_exception(caught.value))
    return said.replace(f"{tmp_path}/", "")


def test_a_good_file_is_read_with_short_forms_and_long_ones(tmp_path: Path) -> None:
    settings = fleet(tmp_path, GOOD).settings()
    big, little = settings["backends"]
    assert (big.kind, big.url, big.name, big.gpus[0].name) == ("tabby", "http://box:5000", "big", "RTX 4090")
    assert (big.models["large"].name, big.models["large"].context) == ("Large-EXL3", 32768)
    assert {said: local.name for said, local in little.models.items()} == {
        "small": "llama3.1:8b",
        "nomic-embed-text": "nomic-embed-text",
    }
    assert (little.max_parallel, little.gpus) == (1, None)
    assert settings["aliases"] == {"gpt-4": "large"}
    assert settings["fallbacks"] == {"large": ["small"]}
    assert (settings["strategy"], settings["deadline"]) == ("fastest", 45)
    assert "timeout" not in settings  # the Router's own


def test_tags_are_a_servers_or_one_models(tmp_path: Path) -> None:
    tagged = GOOD.replace("cache: q8", "cache: q8, tags: [hard, long]").replace(
        "    url: box:11434", "    url: box:11434\n    tags: easy"
    )
    with fleet(tmp_path, tagged.replace("[small]", "[small, nomic-embed-text]")).router(strategy="ordered") as router:
        assert router.explain("large", tags=["long"]).order == ["big"]
        assert router.explain("small", tags=["easy"]).order == ["little"]
        with pytest.raises(UnknownModel, match="tags"):
            router.explain("small", tags=["hard"])


CHANGES = {
    "a field nobody knows": ("    host: box", "    hots: box", "hydra.yaml:7: servers.big.hots", "did you mean 'host'?"),
    "a field of a model": ("cache: q8", "cach: q8", "hydra.yaml:9: servers.big.models.large.cach", "did you mean 'cache'?"),
    "a field of the router": ("deadline: 45", "dedline: 45", "hydra.yaml:14: router.dedline", "did you mean 'deadline'?"),
    "a table nobody knows": ("router:", "routers:", "hydra.yaml:14: routers", "did you mean 'router'?"),
    "a kind": ("kind: tabby", "kind: taby", "hydra.yaml:5: servers.big.kind", "'tabby', 'ollama', 'litellm' or 'openai'"),
    "a strategy": ("fastest", "quickest", "hydra.yaml:14: router.strategy", "'least-busy'"),
    "a context": ("32k", "many", "hydra.yaml:9: servers.big.models.large.context", "for example 8192 or 32k"),
    "a time": ("deadline: 45", "deadline: -1", "hydra.yaml:14: router.deadline", "greater than 0"),
    "a number in words": ("deadline: 45", "deadline: '45'", "hydra.yaml:14: router.deadline", "valid number"),
    "no url": ("    url: http://box:5000\n", "", "hydra.yaml:4: servers.big.url", "is missing"),
    "a host nobody knows": ("host: box", "host: bxo", "hydra.yaml:7: servers.big.host", "did you mean 'box'?"),
    "a fallback nobody serves": (
        "[small]",
        "[smal]",
        "hydra.yaml:9: servers.big.models.large.fallbacks",
        "did you mean 'small'?",
    ),
    "a fallback twice": (
        '"llama3.1:8b", ',
        '"llama3.1:8b", large: {fallbacks: [nomic-embed-text]}, ',
        "hydra.yaml:13: servers.little.models.large.fallbacks",
        "'large' has at another server",
    ),
    "an alias that is a model": ("gpt-4", "small", "hydra.yaml:9: servers.big.models.large.aliases", "own name"),
    "an alias of two": (
        '"llama3.1:8b", ',
        '"llama3.1:8b", x: {aliases: gpt-4}, ',
        "hydra.yaml:13: servers.little.models.x.aliases",
        "an alias of 'large'",
    ),
    "a cache": ("q8", "q9", "hydra.yaml:9: servers.big.models.large.cache", "no cache of exl3"),
    "bpw alone": ("cache: q8", "bpw: 4.0", "hydra.yaml:9: servers.big.models.large ", "config and bpw"),
    "a card that is not there": ("host: box", "host: box\n    use_cards: [1]", "hydra.yaml:8: servers.big.use_cards", "1 cards"),
    "a card nobody makes": ("RTX 4090", "RTX 4099", "hydra.yaml:2: hosts.box.cards.0", "RTX 4090"),
    "a card larger than itself": ("RTX 4090", "{name: RTX 4090, free: 30}", "hydra.yaml:2: hosts.box.cards.0", "free is in GiB"),
    "a service that is no TabbyAPI": (
        "url: box:11434",
        "service: {folder: /a, python: /b, user: c}\n    url: box:11434",
        "hydra.yaml:12: servers.little.service",
        "for kind tabby",
    ),
    "cards of no host": ("    host: box", "    use_cards: [0]", "hydra.yaml:7: servers.big.use_cards", "needs host"),
    "no address": ("http://box:5000", "ftp://box", "hydra.yaml:4: servers.big ", "not a server's address"),
    "a model in the cloud": ("llama3.1:8b", "x:cloud", "hydra.yaml:10: servers.little ", "Ollama's cloud"),
    "a key in plain sight": ("    host: box", f"    api_key: {PLANTED}", "hydra.yaml:7: servers.big.api_key", "{env: NAME}"),
    "two keys": (
        "    host: box",
        f"    api_key: {{env: A, literal: {PLANTED}}}",
        "hydra.yaml:7: servers.big.api_key",
        "exactly one",
    ),
    "a password in the address": ("http://box", f"http://me:{PLANTED}@box", "hydra.yaml:4: servers.big ", "carries a password"),
    "not a table": ("  box: {cards: [RTX 4090], ram: 60}", "  box: 5", "hydra.yaml:2: hosts.box", "not a table"),
    "not YAML": ("    kind: tabby", f"    kind: tabby: {PLANTED}", "hydra.yaml:5 ", "not usable YAML"),
    "a field twice": ("    host: box", f"    api_key: {PLANTED}\n    api_key: {PLANTED}", "hydra.yaml:8 ", "duplicate"),
    "nothing at all": (GOOD, "", "hydra.yaml:1: the file", "not a table"),
    "no server": (GOOD, "servers: {}", "hydra.yaml:1: servers", "at least 1"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_wrong_is_named_with_file_line_and_field(tmp_path: Path, case: str) -> None:
    old, new, where, what = CHANGES[case]
    assert old in GOOD
    said = refused(tmp_path, GOOD.replace(old, new, 1))
    assert said.startswith(where), said
    assert what in said, said


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, GOOD.replace("host: box", "hots: box").replace("fastest", "quickest"))
    assert [line.split(" ")[1] for line in said.splitlines()] == ["servers.big.hots", "router.strategy"]


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hydra-infer init"):
        Fleet.from_file(tmp_path / "nowhere.yaml")


def test_urls_put_other_addresses_in_the_place_of_the_files(tmp_path: Path) -> None:
    moved = fleet(tmp_path, GOOD, urls={"big": "http://127.0.0.1:5"})
    assert [row.url for row in moved.settings()["backends"]] == ["http://127.0.0.1:5", "http://box:11434"]
    with pytest.raises(ConfigError, match="did you mean 'big'"):
        fleet(tmp_path, GOOD, urls={"bigg": "http://127.0.0.1:5"})


def test_the_documentations_own_tables_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
    tables = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(tables) == 2
    assert fleet(tmp_path, "\n".join(tables)).servers == ("tabby", "ollama")


# What only the whole file tells, or another file: an editor has no word against it.
UNSEEN_BY_EDITORS = """a context|a host nobody knows|a fallback nobody serves|a fallback twice|an alias that is a model
    an alias of two|a cache|bpw alone|a card that is not there|a card nobody makes|a card larger than itself
    a service that is no TabbyAPI|cards of no host|no address|a model in the cloud|a password in the address"""


def test_editors_find_by_the_schema_what_one_field_tells() -> None:
    """By a validator that is not ours: the schema is one, takes the examples and the good file, and refuses what is wrong."""
    schema = editor_schema()
    Draft202012Validator.check_schema(schema)
    check, read = Draft202012Validator(schema), YAML(typ="safe", pure=True).load
    for file in (Path(__file__).parents[2] / "examples").glob("*/hydra.yaml"):
        assert not list(check.iter_errors(read(file.read_text(encoding="utf-8")))), file
    assert not list(check.iter_errors(read(GOOD)))
    unseen = {name.strip() for name in UNSEEN_BY_EDITORS.replace("\n", "|").split("|")}
    for case in CHANGES.keys() - {"not YAML", "a field twice"}:
        old, new, _, _ = CHANGES[case]
        assert bool(list(check.iter_errors(read(GOOD.replace(old, new, 1))))) is (case not in unseen), case


def test_the_schema_for_editors_knows_every_field_and_the_short_forms() -> None:
    schema = editor_schema()
    assert schema["properties"].keys() == FleetFile.model_fields.keys()
    server, model = schema["$defs"]["Server"], schema["$defs"]["Model"]
    assert server["additionalProperties"] is False
    assert {"type": "string"} in model["properties"]["context"]["anyOf"]
    assert {"items": {"type": "string"}, "type": "array"} in server["properties"]["models"]["anyOf"]
    assert server["properties"]["kind"]["enum"] == ["tabby", "ollama", "litellm", "openai"]
    assert all(table["additionalProperties"] is False for table in schema["$defs"].values())

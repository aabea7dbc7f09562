"""The planner against ExLlamaV3's own numbers: golden tables that `make golden` writes, read without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hydra_infer.errors import ConfigError, UnknownModel
from hydra_infer.models.architectures import ARCHITECTURES, KNOWN_TO_EXLLAMAV3
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.models.vision import processor_files
from hydra_infer.planner.cache import cache_bytes, rate_of
from hydra_infer.planner.modules import modules_of
from hydra_infer.planner.slices import cannot, units_of
from hydra_infer.planner.state import state_bytes
from hydra_infer.planner.tensor import divide
from hydra_infer.units import GIB

TESTS = Path(__file__).resolve().parent.parent
GOLDEN = TESTS / "golden"
NAMES = sorted(path.stem for path in (GOLDEN / "exl3").glob("*.json"))
REFUSED: dict[str, str] = json.loads((GOLDEN / "refused.json").read_text(encoding="utf-8"))

# ExLlamaV3 loads these, the planner does not plan them yet.
NOT_COVERED: set[str] = set()

# Planned, but compared with no table: variants in name of one that is; the first Gemma is ExLlamaV2's only.
NOT_COMPARED = {
    "Gemma3ForCausalLM",
    "GemmaForCausalLM",
}

CONTEXTS, SLOTS = (8192, 32768, 131072), (1, 4, 16)


def golden(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((GOLDEN / "exl3" / f"{name}.json").read_text(encoding="utf-8"))
    return table


def spread(runs: list[list[Any]]) -> list[Any]:
    """The values of [[count, value], ...], one by one."""
    return [tuple(value) if len(value) > 1 else value[0] for count, *value in runs for _ in range(count)]


def kind(key: str) -> str:
    """A unit's key without the number of its block, or what older files put before the head."""
    return re.sub(r".*\.\d+\.|.*language_model\.", "", key)


def read(name: str, bpw: float = 4.0) -> ModelSpec:
    path = TESTS / "data" / "configs" / f"{name}.json"
    return ModelSpec(name, path, "exl3", geometry_of(json.loads(path.read_text(encoding="utf-8")), path), bpw=bpw)


@pytest.mark.parametrize("name", NAMES)
def test_weights(name: str) -> None:
    if name in NOT_COVERED:
        with pytest.raises(UnknownModel):
            read(name)
        return
    for rate, table in golden(name)["rates"].items():
        planned = [("host" if module.in_ram else "gpu", module.nbytes) for module in modules_of(read(name, float(rate)))]
        assert planned == spread(table["modules"]), rate


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_COVERED))
def test_cache(name: str) -> None:
    layers = read(name).geometry.layers
    for mode, runs in golden(name)["cache_per_page"].items():
        rate, engine = rate_of(mode, "exl3"), spread(runs)
        for tokens in CONTEXTS:
            planned = [cache_bytes(layer.attention, rate, tokens) for layer in layers]
            assert planned == [size * (tokens // 256) for size in engine], (mode, tokens)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_COVERED))
def test_state(name: str) -> None:
    layers = read(name).geometry.layers
    for depth, runs in golden(name)["state_per_slot"].items():
        engine = spread(runs)
        for slots in SLOTS:
            planned = [state_bytes(layer.attention, slots, int(depth)) for layer in layers]
            assert planned == [size * slots for size in engine], (depth, slots)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_engine_refuses_is_not_planned(name: str) -> None:
    with pytest.raises((UnknownModel, ConfigError)):
        read(name)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_COVERED))
def test_tensor_parallel(name: str) -> None:
    """Every share of every module, the bytes stored and the working memory per card, for three sets of cards."""
    table, spec = golden(name), read(name)
    refused = cannot(spec.geometry)
    assert (refused is None) == table["tensor_parallel"]
    for mode, by_cards in (table["tensor"] or {}).items():
        units = units_of(modules_of(spec), spec.geometry, rate_of(mode, "exl3"), tokens=32768, slots=1)
        for cards, engine in by_cards.items():
            memory = [int(card) * GIB for card in cards.split(",")]
            planned = divide(units, memory, tokens=2048, outputs=32)
            shares: dict[str, list[Any]] = {}
            for unit, parts in zip(units, planned.shares, strict=True):
                if unit.word:
                    shares.setdefault(kind(unit.key), []).append((unit.width, list(parts)))
            assert shares == {kind(key): spread(runs) for key, runs in engine["units"].items()}, (mode, cards)
            assert list(planned.stored) == engine["storage"], (mode, cards)
            assert list(planned.working) == engine["overhead"], (mode, cards)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_beside_config_json(name: str) -> None:
    """What the engine refuses a model without is what the planner looks for."""
    table = golden(name)
    wanted = processor_files(table["architecture"])
    assert table["sidecar"] in wanted if wanted else table["sidecar"] is None


def test_what_is_planned_has_been_compared() -> None:
    assert set(ARCHITECTURES) - {golden(name)["architecture"] for name in NAMES} <= NOT_COMPARED


@pytest.mark.parametrize("architecture", sorted(KNOWN_TO_EXLLAMAV3 - set(ARCHITECTURES)))
def test_what_the_engine_knows_and_the_planner_does_not_is_refused_by_name(architecture: str) -> None:
    with pytest.raises(UnknownModel, match=architecture):
        geometry_of({"architectures": [architecture]}, Path("config.json"))


def test_the_tables_are_small_and_cover_every_configuration() -> None:
    configs = {path.stem for path in (TESTS / "data" / "configs").glob("*.json")}
    assert configs == set(NAMES) | set(REFUSED)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*.json")) < 2**20

"""Readiness: the knowledge base's table, row by row, on folders and environments made for it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic
from ops.migrate.test_translation import V2

from hydra_infer import ConfigError, Gpu, migrate
from hydra_infer.ops.migrate.readiness import Row

SMALL = synthetic.LLAMA_1B | {"num_hidden_layers": 2}
OLD = "Tiny-1B-EXL2-4.0bpw"
CARDS = ["RTX 5090", "RTX 4090"]


@pytest.fixture(autouse=True)
def _disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**50))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return synthetic.exl2(tmp_path / "models" / OLD, SMALL, 4.0)


def rows(what: Path, **options: Any) -> dict[str, Row]:
    found = migrate.readiness(what, **{"gpus": CARDS, **options})
    assert len({row.what for row in found.rows}) == len(found.rows)
    return {row.what: row for row in found.rows}


def interpreter(folder: Path, said: str, status: int = 0) -> str:
    """A program that answers as a Python asked for versions would."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nprint({said!r})\nraise SystemExit({status})\n")
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Gives a checkout whose last commit is of that date, by a git that knows nothing else."""

    def of(date: str) -> Path:
        folder = tmp_path / "tabby"
        folder.mkdir()
        program = folder / "git"
        program.write_text(f"#!{sys.executable}\nimport sys\nif sys.argv[3:] == ['log', '-1', '--format=%cs']: print({date!r})\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return of


def test_all_is_there(old: Path, tmp_path: Path, git: Callable[[str], Path]) -> None:
    synthetic.exl3(old.parent / "Tiny-1B-EXL3-4.0bpw", SMALL, 4.0)
    python = interpreter(tmp_path, "exllamav3 1.6.5\ntorch 2.9.0+cu128")
    found = migrate.readiness(old, gpus=CARDS, python=python, tabby=git("2026-08-13"))
    assert {row.what: row.state for row in found.rows} == {
        "exllamav3": "ready",
        "TabbyAPI": "ready",
        "cards": "ready",
        "architecture": "ready",
        "weights": "ready",
        "memory": "ready",
        "tensor parallel": "optional",
    }
    assert found.ready
    assert str(found).startswith(f"{OLD}: ready\n")
    assert json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ("exllamav3 1.6.5\ntorch 2.9.0", "ready", "1.6.5, torch 2.9.0"),
        ("exllamav3 1.4.1+cu128.torch2.9.0\ntorch 2.9.0", "ready", "1.4.1"),
        ("exllamav3 1.4.0\ntorch 2.9.0", "to do", "1.4.0"),
        ("exllamav3 0.0.15\ntorch 2.9.0", "to do", "0.0.15"),
        ("exllamav3\ntorch 2.9.0", "to do", "not installed"),
        ("exllamav3 1.6.5\ntorch", "to do", "torch not installed"),
    ],
)
def test_the_backend(old: Path, tmp_path: Path, said: str, state: str, words: str) -> None:
    row = rows(old, python=interpreter(tmp_path, said))["exllamav3"]
    assert row.state == state
    assert words in row.found


def test_what_cannot_be_looked_at_is_said(old: Path, tmp_path: Path) -> None:
    found = rows(old, python="/no/such/python", gpus=[])
    assert found["exllamav3"].state == found["TabbyAPI"].state == found["cards"].state == "unseen"
    assert "there is no /no/such/python here" in found["exllamav3"].found
    assert rows(old, tabby=tmp_path)["TabbyAPI"].state == "unseen"
    assert rows(old, gpus=[Gpu("made by hand", memory=24)])["cards"].state == "unseen"
    assert not migrate.readiness(old, gpus=[]).ready


@pytest.mark.parametrize(("date", "state"), [("2026-07-13", "to do"), ("2026-07-14", "ready")])
def test_tabbyapi_by_the_date_of_its_commit(old: Path, git: Callable[[str], Path], date: str, state: str) -> None:
    assert rows(old, tabby=git(date))["TabbyAPI"].state == state


def test_cards_before_ampere(old: Path) -> None:
    row = rows(old, gpus=["RTX 4090", "RTX 2080 Ti"])["cards"]
    assert row.state == "to do"
    assert "RTX 2080 Ti" in row.found
    assert "4090" not in row.found


def test_an_architecture_that_exllamav3_does_not_know(tmp_path: Path) -> None:
    folder = synthetic.plain(tmp_path / "x", SMALL | {"architectures": ["GPTBigCodeForCausalLM"]})
    assert rows(folder)["architecture"].state in ("to do", "unseen")
    assert "GPTBigCodeForCausalLM" in rows(folder)["architecture"].found


def test_weights_are_found_beside_or_named_or_to_be_fetched(old: Path, tmp_path: Path) -> None:
    none = rows(old)["weights"]
    assert none.state == "to do"
    assert "fetch an EXL3 of Tiny-1B, or its 16-bit original" in none.todo

    synthetic.exl3(old.parent / "Tiny-1B-EXL3-broken", synthetic.LLAMA_1B, 4.0)  # another shape: not this model
    synthetic.exl3(old.parent / "Other-1B-EXL3-4.0bpw", SMALL, 4.0)
    assert rows(old)["weights"].state == "to do"

    elsewhere = synthetic.plain(tmp_path / "originals" / "tiny", SMALL)
    told = rows(old, original=elsewhere)
    assert f"hydra-infer migrate convert {elsewhere}" in told["weights"].todo
    assert told["disk"].found.startswith("a conversion takes")

    synthetic.plain(old.parent / "Tiny-1B", SMALL)
    assert str(old.parent / "Tiny-1B") in rows(old)["weights"].found


def test_the_disk(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.plain(old.parent / "Tiny-1B", SMALL)
    assert rows(old)["disk"].state == "ready"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    row = rows(old)["disk"]
    assert row.state == "to do"
    assert "1.0 GiB are free" in row.found


def test_memory_is_the_plan_of_what_will_be_loaded(old: Path) -> None:
    assert "at 8 bits per weight: fits" in rows(old)["memory"].found
    assert rows(old, gpus=["RTX 3050"], context="16m")["memory"].state == "to do"
    synthetic.exl3(old.parent / "Tiny-1B-EXL3-4.0bpw", SMALL, 4.0)
    assert rows(old)["memory"].found.startswith("fits")
    assert rows(old)["tensor parallel"].found.startswith("possible")
    assert rows(old, gpus=["RTX 4090"])["tensor parallel"].state == "optional"


def test_of_several_exl3_the_largest_that_fits(tmp_path: Path) -> None:
    old = synthetic.exl2(tmp_path / "Big-70B-EXL2-4.0bpw", synthetic.LLAMA_70B, 4.0)
    for rate in (8.0, 4.0, 2.0):
        synthetic.exl3(tmp_path / f"Big-70B-EXL3-{rate}bpw", synthetic.LLAMA_70B, rate)
    assert "EXL3-4.0bpw" in rows(old)["weights"].found
    found = rows(old, gpus=["RTX 3060"])
    assert "EXL3-2.0bpw" in found["weights"].found
    assert found["memory"].state == "to do"


def test_by_a_config_its_context_its_cache_and_its_own_changes(old: Path) -> None:
    config = old.parents[1] / "config.yml"
    config.write_text(
        f"logging:\n  level: INFO\nmodel:\n  model_name: {OLD}\n  max_seq_len: 4096\n  cache_mode: Q4\n  tensor_parallel: true\n"
    )
    row = rows(config)["config.yml"]
    assert row.state == "to do"
    assert row.found == "1 keys to change, 1 to decide"
    wide = config.with_name("wide.yml")
    wide.write_text(f"model:\n  model_name: {OLD}\n  max_seq_len: 4194304\n  cache_mode: FP8\n")
    assert rows(wide, gpus=["RTX 3050"])["memory"].state == "to do"
    with pytest.raises(ConfigError, match="names no model"):
        bare = config.with_name("bare.yml")
        bare.write_text("model:\n  model_dir: models\n")
        rows(bare)


def test_the_page_shows_what_is_found(tmp_path: Path, git: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(310.2 * 2**30)))
    miqu = synthetic.LLAMA_70B | {"vocab_size": 32000}
    old = synthetic.exl2(tmp_path / "models" / "Midnight-Miqu-70B-EXL2-2.5bpw", miqu, 2.5)
    synthetic.plain(tmp_path / "models" / "Midnight-Miqu-70B", miqu)
    checkout, config = git("2026-03-30"), tmp_path / "config.yml"
    config.write_text(V2.replace("/mnt/models", str(old.parent)))
    python = interpreter(tmp_path, "exllamav3 1.6.5\ntorch 2.9.0+cu128")
    found = str(migrate.readiness(config, gpus=CARDS, python=python, tabby=checkout))
    page = Path(__file__).parents[3] / "docs" / "migrate.md"
    assert found.replace(str(old.parent), "/mnt/models") in page.read_text(encoding="utf-8")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    found = rows(tmp_path / "nothing")
    assert found["architecture"].state == "unseen"
    assert found["weights"].state == "to do"

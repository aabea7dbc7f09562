"""The blocks of the documentation that are not plain Python: commands exist, and what needs a card runs on stand-ins.

Blocks called `python` are run by conftest.py; those called `py` of agents.md by tests/frameworks and of n8n.md by tests/n8n.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from servers.tabby import API_KEY, TabbyServer

import hydra_infer
from hydra_infer.cli import _parser
from hydra_infer.configs.tabby import lint
from hydra_infer.engines.echo import echo
from hydra_infer.engines.load import load
from hydra_infer.ops.migrate import trial

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, *kinds: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(kinds)})\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every line of every shell block, as its page and its words: without VARIABLE=… before them, and 1 for a $(…)."""
    for page in PAGES:
        for block in blocks(page, "sh", "bash"):
            for line in re.sub(r"\$\(.*?\)", "1", block.replace("\\\n", " ")).splitlines():
                words = shlex.split(line, comments=True)
                while words and re.match(r"[A-Z_0-9]+=", words[0]):
                    words = words[1:]
                if words:
                    yield page.name, words[: words.index(">")] if ">" in words else words


def test_every_command_line_is_one_that_the_program_takes() -> None:
    shown = [(page, words[1:]) for page, words in commands() if words[0] == "hydra-infer" and words[1:] != ["--version"]]
    assert len(shown) > 30
    for page, words in shown:
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}: hydra-infer {shlex.join(words)}")


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {words[1] for _, words in commands() if words[0] == "make"}
    told = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert shown | told <= targets
    assert {"demo", "test", "notebooks", "docs"} <= shown | told


@pytest.mark.parametrize(
    ("page", "text"), [(page.name, text) for page in PAGES for text in blocks(page, "yaml")], ids=lambda value: value[:20]
)
def test_a_yaml_block_is_yaml(page: str, text: str) -> None:
    assert isinstance(YAML(typ="safe").load(text), dict), page


def instead(folder: str, **options: Any) -> Any:
    """hydra.load for a folder that is not here: the options must be its own, and an echo engine comes of it."""
    inspect.signature(load).bind(folder, **options)
    return echo(slots=options.get("slots") or 1)


def on_trial(text: str, **options: Any) -> TabbyServer:
    """migrate.trial without a TabbyAPI: the options must be its own, and the text one that it starts with."""
    inspect.signature(trial).bind(text, **options)
    assert not [finding for finding in lint(text) if finding.stops]
    return TabbyServer(["m"], "m")


@pytest.mark.parametrize("page", ["engines.md", "bench.md"])
def test_what_needs_a_card_or_time_runs_on_stand_ins(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydra_infer, "load", instead)
    monkeypatch.setattr(hydra_infer.migrate, "trial", on_trial)
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text("model:\n  model_name: m\n", encoding="utf-8")
    printed = io.StringIO()
    names: dict[str, Any] = {"__name__": "__main__", "folder": "models/any", "key": API_KEY}
    found = blocks(ROOT / "docs" / page, "py")
    assert found
    for code in found:
        # Echo engines that take no time, measured a few times instead of until the figures are sharp.
        quick = re.sub(r"delay=0\.\d+, ttft=0\.\d+", "delay=0.001", code)
        quick = quick.replace("max_tokens=8,", "max_tokens=2, repetitions=5,").replace(
            "parallel=[1, 2, 4],", "parallel=[1], repetitions=5,"
        )
        compiled = compile(quick, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(printed):
            waiting = eval(compiled, names)
            if inspect.iscoroutine(waiting):
                asyncio.run(waiting)
    assert printed.getvalue().strip()

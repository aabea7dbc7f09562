"""Progress goes to a function, to a bar where somebody looks, or nowhere."""

from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any, Self

import pytest

from hydra_infer.engines.progress import quiet, reporting
from hydra_infer.errors import ConfigError


class FakeBar:
    """Stands for tqdm.auto.tqdm."""

    made: list[FakeBar]

    def __init__(self, **options: Any) -> None:
        self.n, self.total, self.said, self.closed = 0.0, options["total"], "", False
        FakeBar.made.append(self)

    def set_description(self, text: str, refresh: bool) -> None:
        self.said = text

    def update(self, more: float) -> None:
        self.n += more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[FakeBar]:
    FakeBar.made = []
    tqdm, auto = ModuleType("tqdm"), ModuleType("tqdm.auto")
    auto.tqdm = FakeBar  # type: ignore[attr-defined]
    tqdm.auto = auto  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", tqdm)
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    return FakeBar.made


def test_a_function_is_called() -> None:
    told: list[tuple[float, str]] = []
    with reporting(lambda part, what: told.append((part, what))) as report:
        report(0.5, "half")
    assert told == [(0.5, "half")]


def test_a_terminal_gets_a_bar(bars: list[FakeBar], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with reporting(None) as report:
        report(0.25, "loading")
        report(0.75, "still")
    assert [(bar.n, bar.total, bar.said, bar.closed) for bar in bars] == [(0.75, 1.0, "still", True)]


def test_false_and_a_pipe_get_none(bars: list[FakeBar], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with reporting(False) as report:
        assert report is quiet
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with reporting(None) as report:
        report(1.0, "done")
    monkeypatch.setattr(sys, "stderr", None)
    with reporting(None) as report:
        report(1.0, "done")
    assert bars == []


def test_without_tqdm_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with reporting(True) as report:
        assert report is quiet


def test_anything_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="progress='yes'"), reporting("yes"):  # type: ignore[arg-type]
        pass

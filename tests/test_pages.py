"""The documentation shows what its examples print."""

from __future__ import annotations

from pathlib import Path

import pages
import pytest


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_examples_print(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == pages.rendered(text), "run python tests/pages.py with src and tests on PYTHONPATH, and read what changed"

"""The documentation shows what its examples print."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import links
import pages
import pytest

import hydra_infer
from hydra_infer import errors


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_examples_print(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == pages.rendered(text), "run python tests/pages.py with src and tests on PYTHONPATH, and read what changed"


def test_every_error_has_its_cause_and_its_cure() -> None:
    sections = re.split(r"^### ", (pages.DOCS / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert {section.split()[0] for section in sections} == set(errors.__all__) - {"HydraError"}
    for section in sections:
        assert re.search(r"\*\*Cause\.\*\* .*\*\*Cure\.\*\* ", section, re.DOTALL), section.split()[0]


def test_the_reference_has_every_public_name() -> None:
    text = (pages.DOCS / "reference.md").read_text(encoding="utf-8")
    listed = {name: module for module, name in re.findall(r"^::: hydra_infer\.(.+)\.(\w+)$", text, re.MULTILINE)}
    for name, module in hydra_infer._DOOR.items():
        # A module's own names are documented, not the module.
        assert listed.get(name) == module or inspect.ismodule(getattr(hydra_infer, name)), name


def test_every_page_is_in_the_sites_table_of_contents() -> None:
    named = re.findall(r": ([\w-]+\.md)$", (pages.DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in pages.DOCS.glob("*.md")), "mkdocs.yml names the pages"


def test_a_link_that_leads_nowhere_and_a_script_from_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="one">a</h1><a href="b.html#two">b</a><a href="https://elsewhere.invalid/">c</a>')
    (tmp_path / "b.html").write_text('<p id="two"><a href="a.html#one">a</a><a href="#two">here</a></p>')
    assert links.faults(tmp_path) == []
    (tmp_path / "b.html").write_text(
        '<a href="c.html">c</a><a href="a.html#two">a</a><script src="https://elsewhere.invalid/x.js">'
    )
    assert links.faults(tmp_path) == [
        "a.html links to b.html#two, and there is no such anchor",
        "b.html fetches https://elsewhere.invalid/x.js",
        "b.html links to c.html, which is not there",
        "b.html links to a.html#two, and there is no such anchor",
    ]

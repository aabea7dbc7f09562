"""The Python blocks of the README and the documentation are run as tests, each file in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

sys.path.insert(0, str(Path(__file__).parent / "tests"))


def _enter(namespace: dict[str, Any]) -> None:
    """A working folder with what the examples use: the repository's own, and models of true headers without weights."""
    import pages

    namespace["_home"], namespace["_folder"], namespace["_environment"] = os.getcwd(), TemporaryDirectory(), dict(os.environ)
    os.chdir(namespace["_folder"].name)
    pages.models(Path("models"))


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_home"])
    os.environ.clear()
    os.environ.update(namespace["_environment"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"], setup=_enter, teardown=_leave
).pytest()

"""Pages that show what their examples print, and the models the examples plan; run as a program it rewrites them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import synthetic

DOCS = Path(__file__).parents[1] / "docs"
CONFIGS = Path(__file__).parent / "data" / "configs"
EXAMPLES = DOCS.parent / "examples"

# A block of Python, and the block of text after it that shows what it prints, where there is one.
_EXAMPLE = re.compile(r"```python\n(?P<code>(?:(?!```).)*)```(?P<shown>\n\n```text\n.*?```)?", re.DOTALL)
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```\n\n```text\n" in page.read_text(encoding="utf-8")]


def models(folder: Path) -> None:
    """The examples' models: folders of true headers without weights, and configurations of models not downloaded.

    Beside `folder` lies what the project has as examples/.
    """
    shutil.copytree(EXAMPLES, folder.parent / "examples")
    synthetic.exl3(folder / "Llama-3.1-70B-EXL3-4.0bpw", synthetic.LLAMA_70B, 4.0)
    synthetic.exl3(folder / "Llama-3.2-1B-EXL3-4.0bpw", synthetic.LLAMA_1B, 4.0)
    synthetic.exl2(folder / "Llama-3.2-1B-EXL2-4.0bpw", synthetic.LLAMA_1B, 4.0)
    synthetic.exl2(folder / "Midnight-Miqu-70B-EXL2-2.5bpw", synthetic.LLAMA_70B | {"vocab_size": 32000}, 2.5)
    for name in ("Llama-3.1-70B", "Llama-3.1-8B", "Qwen2.5-14B", "Qwen2.5-72B-Instruct", "Qwen3-235B-A22B"):
        (folder / name).mkdir()
        shutil.copy(CONFIGS / f"{name}.json", folder / name / "config.json")


def rendered(text: str) -> str:
    """The page with every shown block as its example prints it now. The examples share their names, one after the other."""
    names: dict[str, Any] = {}

    def run(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(match["code"], names)
        if not match["shown"]:
            return match[0]
        lines = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
        return f"```python\n{match['code']}```\n\n```text\n{lines}\n```"

    home, environment = Path.cwd(), dict(os.environ)
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            models(Path("models"))
            return _EXAMPLE.sub(run, text)
        finally:
            os.chdir(home)
            os.environ.clear()
            os.environ.update(environment)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")

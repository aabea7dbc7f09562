"""The examples of docs/agents.md that need a framework, as they are shown there; each for the frameworks of this environment."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

from hydra_infer import Router

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## (\S+)\n\n```py\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
MODULES = {
    "openai-agents": "agents",
    "pydantic-ai": "pydantic_ai",
    "LangChain": "langchain_openai",
    "LlamaIndex": "llama_index",
    "smolagents": "smolagents",
}
SAID = {"LlamaIndex": "[('weather', {'city': 'Basel'})]", "smolagents": """[('weather', '{"city": "Basel"}')]"""}
HERE = [name for name, module in MODULES.items() if importlib.util.find_spec(module)]


def test_every_example_belongs_to_a_framework() -> None:
    assert EXAMPLES.keys() == MODULES.keys()
    assert len(HERE) >= 3


@pytest.mark.parametrize("name", HERE)
def test_the_example_gets_its_answer_through_a_tool(router: Router, tmp_path: Path, name: str) -> None:
    file = tmp_path / "example.py"
    file.write_text(EXAMPLES[name])  # smolagents reads the source of its tools
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(EXAMPLES[name], str(file), "exec"), {"router": router})
    assert printed.getvalue().strip() == SAID.get(name, "sunny in Basel")

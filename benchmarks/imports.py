"""What importing costs a fresh process: CPU milliseconds, compiled beforehand, the least of some runs. Not a test: figures only.

python benchmarks/imports.py [--write] [--python OTHER …]        n8n pays this on every execution of a Code node
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import page

RUNS = 7
OURS = {
    "import hydra_infer": ("import hydra_infer", 50),
    "... and hydra_infer.to_n8n": ("import hydra_infer; hydra_infer.to_n8n", None),
    "... and hydra_infer.plan": ("import hydra_infer; hydra_infer.plan", None),
    "... and hydra_infer.Router": ("import hydra_infer; hydra_infer.Router", None),
    "... and hydra_infer.Fleet": ("import hydra_infer; hydra_infer.Fleet", None),
}
PEERS = {
    "httpx and pydantic": "import httpx, pydantic",
    "aiohttp": "import aiohttp",
    "openai": "import openai",
    "langchain_openai": "import langchain_openai",
    "pydantic_ai": "import pydantic_ai.models.openai, pydantic_ai.models.fallback",
    "any_llm": "import any_llm",
    "litellm": "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'; import litellm; litellm.Router",
}


def milliseconds(code: str, pythons: list[str]) -> float | None:
    """By the first interpreter that can; None where none has the package."""
    timed = f"import time; began = time.process_time()\n{code}\nprint(time.process_time() - began)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    for python in pythons:
        spent = []
        for _ in range(RUNS):
            command = [python, "-W", "ignore", "-c", timed]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                break
            spent.append(float(json.loads(done.stdout.splitlines()[-1])))
        else:
            return min(spent) * 1e3
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--python", nargs="*", default=[])
    given = parser.parse_args()
    rows, told = [], []
    for what, (code, bound) in OURS.items():
        spent = milliseconds(code, [sys.executable])
        assert spent is not None, f"{what} failed"
        rows.append([f"`{what}`", f"{spent:.0f}"])
        if bound is not None:
            told.append((f"`{what}`, CPU ms", spent, "most", float(bound)))
    for what, code in PEERS.items():
        spent = milliseconds(code, [sys.executable, *given.python])
        if spent is not None:
            rows.append([what, f"{spent:.0f}"])
    text = f"{page.table(['', 'CPU ms'], rows)}\n\nThe least of {RUNS} runs ({page.machine()}).\n\n{page.claims(told)}"
    print(text)
    if given.write:
        page.renew("imports", text)


if __name__ == "__main__":
    main()

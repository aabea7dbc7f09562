"""schemathesis against `serve` on loopback, with its key on: `make test-schema`. Any failure is a wrong description or a fault.

The server runs in this process; SCHEMATHESIS names the program, which lives in an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import httpx  # noqa: E402
from servers.fault import FaultServer, Script, hello, plain  # noqa: E402 - found beside this file's folder
from servers.listening import listening  # noqa: E402

from hydra_infer import Backend, Router  # noqa: E402
from hydra_infer.serve import App  # noqa: E402

KEY = "sk-schema"
# Its answer has no end; tests/test_live.py reads it.
ENDLESS = "/live/events"


def answer(body: bytes) -> Script:
    """A server that refuses what is no request, as real ones do, and answers the rest."""
    asked = json.loads(body) if body else {"input": []}
    messages = asked.get("messages")
    chat = isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
    fit = chat or isinstance(asked.get("prompt", asked.get("input")), str | list)
    return hello("a")(body) if fit else plain({"detail": [{"loc": ["body"], "msg": "field required"}]}, 422)


def main() -> int:
    program = os.environ.get("SCHEMATHESIS", "schemathesis")
    with (
        FaultServer(answer) as server,
        Router([Backend.openai(server.url, models=["m"])]) as router,
        listening(App(router, api_key=KEY)) as (url, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        description = httpx.get(f"{url}/openapi.json", trust_env=False).json()
        for schema in description["components"]["schemas"].values():
            if "model" in schema.get("properties", {}):
                schema["properties"]["model"]["enum"] = ["m"]  # that names are asked for which nobody serves would test little
        path = Path(folder, "openapi.json")
        path.write_text(json.dumps(description))
        # What is described may still be refused, by the server that is asked.
        refusals = 'expected-statuses = ["2xx", "400", "401", "404", "422"]'
        Path(folder, "schemathesis.toml").write_text(f"[checks.positive_data_acceptance]\n{refusals}\n")
        command = [program, "run", str(path), "--url", url, "-H", f"Authorization: Bearer {KEY}", "--exclude-path", ENDLESS]
        command += ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--seed", "1", "--request-timeout", "30"]
        command += ["--max-examples", os.environ.get("EXAMPLES", "100"), *sys.argv[1:]]
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


sys.exit(main())

"""hydra_infer in a Code node of n8n: under its rules, with the allowlist that the documentation names, in a fresh process.

The rules are kept by an emulator, and where HYDRA_N8N_RUNNER_DIR is set (`make test-n8n`) by n8n's own runner as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from n8n import sandbox
from servers.ollama import OllamaServer
from servers.tabby import ADMIN_KEY, API_KEY, TabbyServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "n8n"
CONFIG = ROOT / "examples" / "homelab" / "models" / "Llama-3.1-8B.json"
PLAN = f'import hydra_infer as hydra\nplan = hydra.plan("{CONFIG}", bpw=4.0, format="exl3", gpus=["RTX 5090"])'
PAGE = (ROOT / "docs" / "n8n.md").read_text(encoding="utf-8")
WORKFLOWS = ["route-a-chat", "plan-before-loading", "nightly-fleet-report"]
WAYS = ["emulator", "n8n's own"] if os.environ.get("HYDRA_N8N_RUNNER_DIR") else ["emulator"]
HEAVY = {"torch", "httpx", "httpcore", "httpx2", "pydantic", "pynvml", "tenacity", "openai", "asyncio", "ruamel", "tqdm"}


def node(workflow: str, name: str) -> str:
    """The Python of one Code node."""
    nodes = json.loads((EXAMPLES / f"{workflow}.json").read_text(encoding="utf-8"))["nodes"]
    return next(one["parameters"]["pythonCode"] for one in nodes if one["name"] == name)


class Run(Protocol):
    """sandbox.run, or the same by n8n's own runner."""

    def __call__(self, code: str, items: Any = (), *, allow: Any = sandbox.ALLOW) -> sandbox.Ran: ...


@pytest.fixture(scope="session", params=WAYS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    if request.param == "emulator":
        yield sandbox.run
    else:
        from n8n.runner import Runners  # its packages are in the environment of `make test-n8n` alone

        runners = Runners()
        yield runners.run
        runners.close()


@pytest.fixture
def tabby() -> Iterator[TabbyServer]:
    with TabbyServer(["Llama-3.1-70B", "Llama-3.1-70B-6bpw"]) as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, tabby: TabbyServer) -> Iterator[Path]:
    """The image's /etc/hydra, with the stand-ins' addresses and keys for those of the file."""
    text = (EXAMPLES / "hydra.yaml").read_text(encoding="utf-8")
    for name, key in (("tabby_api_key", API_KEY), ("tabby_admin_key", ADMIN_KEY)):
        (tmp_path / name).write_text(key)
        (tmp_path / name).chmod(0o600)
        text = text.replace(f"/run/secrets/{name}", name)
    shutil.copytree(ROOT / "examples" / "homelab" / "models", tmp_path / "models")
    with OllamaServer(["llama3.1:8b"]) as ollama:
        text = text.replace("http://gpu-box:5000", tabby.url).replace("http://cpu-box:11434", ollama.url)
        (tmp_path / "hydra.yaml").write_text(text)
        yield tmp_path


def played(run: Run, workflow: str, name: str, fleet: Path, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """The `json` of each item that a workflow's node returns."""
    code = node(workflow, name)
    assert "/etc/hydra/hydra.yaml" in code
    ran = run(code.replace("/etc/hydra/hydra.yaml", str(fleet / "hydra.yaml")), [{"json": item} for item in items])
    return [item["json"] for item in ran.items]


@pytest.mark.parametrize("code", ["import hydra_infer\nhydra_infer.to_n8n", PLAN], ids=["import", "plan"])
def test_an_import_and_a_plan_load_nothing_heavy(run: Run, code: str) -> None:
    # n8n forgets every module that the list does not name before a node runs, so what is there then came with us.
    ran = run(f"{code}\nimport sys\nreturn [{{'json': {{'modules': list(sys.modules)}}}}]", allow=["hydra_infer", "sys"])
    loaded = {name.partition(".")[0] for name in ran.items[0]["json"]["modules"]}
    assert "hydra_infer" in loaded
    assert not HEAVY & loaded


def test_a_plan_needs_no_other_name_and_arrives_unchanged(run: Run) -> None:
    ran = run(f"{PLAN}\nreturn hydra.to_n8n(plan)", allow=["hydra_infer"])
    import hydra_infer as hydra

    plan = hydra.plan(CONFIG, bpw=4.0, format="exl3", gpus=["RTX 5090"])
    assert [item["json"] for item in ran.items] == [plan.to_dict()]


def test_a_node_asks_with_await(run: Run, tabby: TabbyServer) -> None:
    backends = (
        f'[hydra.Backend.tabby("{tabby.url}", ["m"], api_key="{API_KEY}"), hydra.Backend.engine(hydra.load("echo"), ["m"])]'
    )
    code = f"""
import asyncio
import hydra_infer as hydra

async def ask(router):
    return await asyncio.gather(router.chat("m", "one"), router.chat("m", "two"))

return hydra.to_n8n(asyncio.run(ask(hydra.Router({backends}).aio)))
"""
    ran = run(code, allow=[*sandbox.ALLOW, "asyncio"])
    assert [(one["json"]["text"], one["json"]["backend"]) for one in ran.items] == [
        ("one", "engine:echo"),
        ("two", "engine:echo"),
    ]


def test_route_a_chat(run: Run, fleet: Path) -> None:
    # TabbyAPI has nothing loaded, so each call moves on.
    first, second = played(
        run, "route-a-chat", "Ask the router", fleet, {"body": {"text": "one two"}}, {"body": {"text": "three"}}
    )
    assert [(reply["text"], reply["backend"]) for reply in (first, second)] == [("one two", "ollama"), ("three", "ollama")]
    assert [attempt["backend"] for attempt in first["attempts"]][-1] == "ollama"


def test_plan_before_loading(run: Run, fleet: Path, tabby: TabbyServer) -> None:
    (planned,) = played(run, "plan-before-loading", "Plan", fleet, {"body": {"model": "chat"}})
    assert (planned["fits"], planned["server"], planned["needed_bytes"] > 2**35) == (True, "tabby", True)
    (changed,) = played(run, "plan-before-loading", "Load", fleet, planned)
    assert (changed["verb"], changed["changed"]) == ("load", True)
    assert len(tabby.loads) == 1
    (refused,) = played(run, "plan-before-loading", "Plan", fleet, {"body": {"model": "large"}})
    assert not refused["fits"]
    assert "too little" in refused["why"]


def test_nightly_fleet_report(run: Run, fleet: Path) -> None:
    (report,) = played(run, "nightly-fleet-report", "Ask every server", fleet, {})
    assert report["trouble"]  # the model "large" does not fit
    assert [row["name"] for row in report["status"]["backends"]] == ["tabby", "ollama"]
    assert {row["model"]: row["fits"] for row in report["plan"]["models"] if row["server"] == "tabby"} == {
        "chat": True,
        "large": False,
    }
    assert "does not fit" in report["text"] or "too little" in report["text"]


@pytest.mark.parametrize("code", re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL))
def test_the_pages_nodes_run_as_they_are_shown(run: Run, fleet: Path, code: str) -> None:
    items = [{"json": {"text": "one two", "model": "chat"}}, {"json": {"text": "three", "model": "chat"}}]
    ran = run(code.replace("/etc/hydra", str(fleet)), items)
    assert ran.items


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_wired(name: str) -> None:
    flow = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    names = {one["name"] for one in flow["nodes"]}
    wired = {link["node"] for ends in flow["connections"].values() for end in ends["main"] for link in end}
    assert flow["connections"].keys() | wired == names
    assert len({one["id"] for one in flow["nodes"]}) == len(names)
    # n8n's command line imports no file without an id, and serves no webhook at its plain path without one of the webhook's own.
    assert flow["id"]
    assert all(one["webhookId"] for one in flow["nodes"] if one["type"].endswith(".webhook"))
    assert {one["parameters"]["language"] for one in flow["nodes"] if one["type"].endswith(".code")} == {"pythonNative"}


def test_the_image_allows_what_the_documentation_and_these_tests_allow() -> None:
    runners = json.loads((EXAMPLES / "n8n-task-runners.json").read_text(encoding="utf-8"))["task-runners"]
    python = next(one for one in runners if one["runner-type"] == "python")["env-overrides"]
    assert python == {"N8N_RUNNERS_STDLIB_ALLOW": "", "N8N_RUNNERS_EXTERNAL_ALLOW": ",".join(sandbox.ALLOW)}
    assert ",".join(sandbox.ALLOW) in PAGE


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\nreturn []", "standard library module 'os'"),
        ("import httpx\nreturn []", "external package 'httpx'"),
        ('return [{"json": {}, "kind": 1}]', "Unknown top-level item key: kind"),
        ('return {"json": {}}', "array of objects"),
        ("import hydra_infer\nhydra_infer.Gpu('RTX 9999')\nreturn []", "did you mean|memory="),
        ("return [_items[0].__class__]", "'__class__' is disallowed"),
        ("return ['{0.__class__}'.format(_items)]", "String pattern accessing '__class__'"),
        ("import importlib\nreturn [importlib.import_module('os')]", "'importlib' is disallowed"),
        ("say = '{}'.format\nreturn []", "Extracting 'format'"),
        ("return [_items._A__b]", "name-mangled"),
        ("from . import x\nreturn []", "Relative imports"),
        ("class A: pass\nreturn []", "__build_class__ not found"),
        ("return [getattr(1, 'real')]", "name 'getattr' is not defined"),
        ("return open('x')", "name 'open' is not defined"),
    ],
)
def test_the_rules_hold_here(run: Run, code: str, said: str) -> None:
    with pytest.raises(sandbox.Failed, match=said):
        run(code, [{"json": {}}])


def test_the_environment_is_empty(run: Run) -> None:
    # The library still reads it, as any module may; the node's own code cannot import os.
    code = "import hydra_infer.cli as cli\nreturn [{'json': {'variables': len(cli.os.environ)}}]"
    assert run(code).items == [{"json": {"variables": 0}}]


def test_what_is_printed_reaches_the_browser(run: Run) -> None:
    assert run("print('seen', 1)\nreturn []").printed == [["'seen'", "1"]]

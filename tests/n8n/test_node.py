"""hydra_infer in a Code node of n8n: under its rules, with the allowlist that the documentation names, in a fresh process."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from n8n import sandbox
from servers.ollama import OllamaServer
from servers.tabby import ADMIN_KEY, API_KEY, TabbyServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "n8n"
CONFIG = ROOT / "examples" / "homelab" / "models" / "Llama-3.1-8B.json"
PAGE = (ROOT / "docs" / "n8n.md").read_text(encoding="utf-8")
WORKFLOWS = ["route-a-chat", "plan-before-loading", "nightly-fleet-report"]
HEAVY = {"torch", "httpx", "httpcore", "httpx2", "pydantic", "pynvml", "tenacity", "openai", "asyncio", "ruamel", "tqdm"}


def node(workflow: str, name: str) -> str:
    """The Python of one Code node."""
    nodes = json.loads((EXAMPLES / f"{workflow}.json").read_text(encoding="utf-8"))["nodes"]
    return next(one["parameters"]["pythonCode"] for one in nodes if one["name"] == name)


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


def played(workflow: str, name: str, fleet: Path, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """The `json` of each item that a workflow's node returns."""
    code = node(workflow, name)
    assert "/etc/hydra/hydra.yaml" in code
    ran = sandbox.run(code.replace("/etc/hydra/hydra.yaml", str(fleet / "hydra.yaml")), [{"json": item} for item in items])
    return [item["json"] for item in ran.items]


def test_the_import_asks_for_one_name_of_the_allowlist_and_loads_nothing_heavy() -> None:
    ran = sandbox.run("import hydra_infer\nhydra_infer.to_n8n\nreturn []", allow=["hydra_infer"])
    assert "hydra_infer" in ran.modules
    assert not HEAVY & {name.partition(".")[0] for name in ran.modules}


def test_a_plan_needs_no_other_name_and_arrives_unchanged() -> None:
    code = f'import hydra_infer as hydra\nplan = hydra.plan("{CONFIG}", bpw=4.0, format="exl3", gpus=["RTX 5090"])\n'
    ran = sandbox.run(code + "return hydra.to_n8n(plan)", allow=["hydra_infer"])
    import hydra_infer as hydra

    plan = hydra.plan(CONFIG, bpw=4.0, format="exl3", gpus=["RTX 5090"])
    assert [item["json"] for item in ran.items] == [plan.to_dict()]
    assert not HEAVY & {name.partition(".")[0] for name in ran.modules}


def test_a_node_asks_with_await(tabby: TabbyServer) -> None:
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
    ran = sandbox.run(code, allow=[*sandbox.ALLOW, "asyncio"])
    assert [(one["json"]["text"], one["json"]["backend"]) for one in ran.items] == [
        ("one", "engine:echo"),
        ("two", "engine:echo"),
    ]


def test_route_a_chat(fleet: Path) -> None:
    # TabbyAPI has nothing loaded, so each call moves on.
    first, second = played("route-a-chat", "Ask the router", fleet, {"body": {"text": "one two"}}, {"body": {"text": "three"}})
    assert [(reply["text"], reply["backend"]) for reply in (first, second)] == [("one two", "ollama"), ("three", "ollama")]
    assert [attempt["backend"] for attempt in first["attempts"]][-1] == "ollama"


def test_plan_before_loading(fleet: Path, tabby: TabbyServer) -> None:
    (planned,) = played("plan-before-loading", "Plan", fleet, {"body": {"model": "chat"}})
    assert (planned["fits"], planned["server"], planned["needed_bytes"] > 2**35) == (True, "tabby", True)
    (changed,) = played("plan-before-loading", "Load", fleet, planned)
    assert (changed["verb"], changed["changed"]) == ("load", True)
    assert len(tabby.loads) == 1
    (refused,) = played("plan-before-loading", "Plan", fleet, {"body": {"model": "large"}})
    assert not refused["fits"]
    assert "too little" in refused["why"]


def test_nightly_fleet_report(fleet: Path) -> None:
    (report,) = played("nightly-fleet-report", "Ask every server", fleet, {})
    assert report["trouble"]  # the model "large" does not fit
    assert [row["name"] for row in report["status"]["backends"]] == ["tabby", "ollama"]
    assert {row["model"]: row["fits"] for row in report["plan"]["models"] if row["server"] == "tabby"} == {
        "chat": True,
        "large": False,
    }
    assert "does not fit" in report["text"] or "too little" in report["text"]


@pytest.mark.parametrize("code", re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL))
def test_the_pages_nodes_run_as_they_are_shown(fleet: Path, code: str) -> None:
    items = [{"json": {"text": "one two", "model": "chat"}}, {"json": {"text": "three", "model": "chat"}}]
    ran = sandbox.run(code.replace("/etc/hydra", str(fleet)), items)
    assert ran.items


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_wired(name: str) -> None:
    flow = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    names = {one["name"] for one in flow["nodes"]}
    wired = {link["node"] for ends in flow["connections"].values() for end in ends["main"] for link in end}
    assert flow["connections"].keys() | wired == names
    assert len({one["id"] for one in flow["nodes"]}) == len(names)
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
        ("return [_items[0].__class__]", "attribute __class__"),
        ("class A: pass\nreturn []", "__build_class__ not found"),
        ("return [getattr(1, 'real')]", "name 'getattr' is not defined"),
        ("return open('x')", "name 'open' is not defined"),
    ],
)
def test_the_rules_hold_here(code: str, said: str) -> None:
    with pytest.raises(sandbox.Failed, match=said):
        sandbox.run(code, [{"json": {}}])


def test_the_environment_is_empty() -> None:
    # The library still reads it, as any module may; the node's own code cannot import os.
    code = "import hydra_infer.cli as cli\nreturn [{'json': {'variables': len(cli.os.environ)}}]"
    assert sandbox.run(code).items == [{"json": {"variables": 0}}]

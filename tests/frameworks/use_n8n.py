"""n8n's Python Code node: a Router in a node's own code, under the rules that n8n's task runner lays on it.

Those rules (n8n-io/n8n, packages/@n8n/task-runner-python, 2026): an empty environment, forbidden builtins, every module forgotten
before the code runs, and imports of the node's code and through importlib only of what N8N_RUNNERS_EXTERNAL_ALLOW names.
"""

from __future__ import annotations

import json
import subprocess
import sys

from hydra_infer import Router

NODE = """
import hydra_infer as hydra

with hydra.Router([hydra.Backend.ollama(item["json"]["url"], {"llama": "llama3.1:8b"}) for item in _items[:1]]) as router:
    replies = [router.chat("llama", item["json"]["text"]) for item in _items]
return [{"json": {"text": reply.text, "backend": reply.backend}} for reply in replies]
"""
RUNNER = r"""
import builtins, importlib, json, os, sys, textwrap
node, items = json.loads(sys.stdin.read())
os.environ.clear()
real_import, real_module = builtins.__import__, importlib.import_module
def allowed(name):
    if name.split(".")[0] not in ("hydra_infer", "pydantic", "certifi", "anyio"):
        raise ImportError(f"{name} is disallowed")
def from_node(name, *args, **kwargs):
    allowed(name)
    return real_import(name, *args, **kwargs)
def by_name(name, package=None):
    allowed(name if not name.startswith(".") else package)
    return real_module(name, package)
importlib.import_module = by_name
write = sys.stdout.write
kept = {"builtins", "__main__", "sys", "traceback", "linecache", "importlib", "importlib.machinery"}
dumps, clean = json.dumps, textwrap.indent
for name in [name for name in sys.modules if name not in kept and not name.startswith("importlib.")]:
    del sys.modules[name]
denied = "eval exec compile open input breakpoint getattr object type vars setattr delattr hasattr dir memoryview".split()
names = {key: value for key, value in vars(builtins).items() if key not in [*denied, "__build_class__", "globals", "locals"]}
code = "def node():\n" + clean(node, "    ") + "\nresult = node()"
space = {"__builtins__": {**names, "__import__": from_node}, "_items": items}
exec(compile(code, "<all_items_task_execution>", "exec"), space)
write(dumps(space["result"]))
"""


def test_a_node_asks_a_router_of_its_own(router: Router) -> None:
    url = router.status()["ollama"].url
    items = [{"json": {"text": text, "url": url}} for text in ("one two", "three")]
    command = [sys.executable, "-B", "-c", RUNNER]
    ran = subprocess.run(command, input=json.dumps([NODE, items]), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [item["json"]["text"] for item in json.loads(ran.stdout)] == ["one two", "three"]

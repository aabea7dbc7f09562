"""The rules that n8n lays on the Python of a Code node, kept by a fresh process of our own; it keeps nobody out who means harm.

As read in n8n-io/n8n, packages/@n8n/task-runner-python of n8n 2.27.4 (constants, task_analyzer, task_executor): names and
attributes that are refused before anything runs, builtins that are not there, an allowlist of imports that also holds for
importlib (and so for lazily loading libraries), a process that has forgotten its modules and has no environment, and items
that must be plain JSON under known keys. `make test-n8n` asks n8n's own runner the same (runner.py).
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import json
import os
import re
import string
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["ALLOW", "Failed", "Ran", "checked", "run"]

# N8N_RUNNERS_EXTERNAL_ALLOW as docs/n8n.md and examples/n8n have it; the standard library's list stays empty.
ALLOW = ("hydra_infer", "pydantic", "pydantic_core", "certifi", "anyio")
DENIED_BUILTINS = (
    "eval exec compile open input breakpoint getattr object type vars setattr delattr hasattr dir memoryview __build_class__ "
    "globals locals license help credits copyright"
).split()
DENIED_NAMES = {"__loader__", "__builtins__", "__globals__", "__spec__", "__name__"}
DENIED_ATTRIBUTES = DENIED_NAMES | set(
    "__subclasses__ __traceback__ tb_frame tb_next f_back f_globals f_locals f_code f_builtins __getattribute__ __qualname__ "
    "__module__ gi_frame gi_code gi_yieldfrom cr_frame cr_code ag_frame ag_code obj __thisclass__ __self_class__ __objclass__ "
    "__reduce__ __reduce_ex__ __prepare__ __instancecheck__ __subclasscheck__ __match_args__ __base__ __class__ __bases__ "
    "__code__ __closure__ __cached__ __dict__ __import__ __mro__ __init_subclass__ __getattr__ __setattr__ __delattr__ __self__ "
    "__func__ __wrapped__ __annotations__".split()
)
FORMATS = {"format", "format_map", "vformat", "get_field"}  # may be called on the spot, and not carried away
ITEM_KEYS = {"json", "binary", "pairedItem", "error", "index"}
KEPT_MODULES = {"builtins", "__main__", "sys", "traceback", "linecache", "importlib", "importlib.machinery"}


class Failed(Exception):
    """What n8n shows in the place of items: the error's text and nothing else of it."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What the node returned, and what it printed."""

    items: list[dict[str, Any]]
    printed: list[list[str]]


def run(code: str, items: Iterable[dict[str, Any]] = (), *, allow: Iterable[str] = ALLOW, timeout: float = 60) -> Ran:
    """Run the node's code on `items` ("run once for all items") with only `allow` to import. Raises Failed."""
    task = {"code": code, "items": list(items), "allow": sorted(allow)}
    command = [sys.executable, "-B", __file__]
    ended = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, timeout=timeout, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    if "failed" in told:
        raise Failed(told["failed"])
    return Ran(list(checked(told["items"])), told["printed"])


def checked(items: Any) -> Iterator[dict[str, Any]]:
    """The items that n8n takes of what a runner gives: it looks at them after the runner is done. Raises Failed."""
    if not isinstance(items, list):
        raise Failed("Code doesn't return items properly: please return an array of objects")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("json"), dict):
            raise Failed(f"a 'json' property isn't an object: {item!r:.80}")
        if unknown := item.keys() - ITEM_KEYS:
            raise Failed(f"Unknown top-level item key: {min(unknown)}")
        yield item


# ---- inside the process --------------------------------------------------------------------------------------


def _analyse(code: str, allow: list[str]) -> None:
    """Look for what is refused unseen."""
    tree = ast.parse(code)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if wrong := [said for node in ast.walk(tree) for said in _refused(node, allow, called)]:
        raise Failed("Security violations detected: " + "; ".join(wrong))


def _refused(node: ast.AST, allow: list[str], called: set[int]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "Relative imports are disallowed."
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (said for name in names if name and (said := _not_allowed(name, allow)))
    if isinstance(node, ast.Name) and node.id in DENIED_NAMES:
        yield f"Access to name '{node.id}' is disallowed"
    if isinstance(node, ast.Attribute):
        if node.attr in DENIED_ATTRIBUTES:
            yield f"Access to attribute '{node.attr}' is disallowed"
        if node.attr in FORMATS and id(node) not in called:
            yield f"Extracting '{node.attr}' as a bound method is disallowed"
        if re.match(r"_(?!_).*__", node.attr):
            yield "Access to name-mangled attributes (pattern: _ClassName__attr) is disallowed"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value in DENIED_ATTRIBUTES:
            yield f"'{node.value}' is disallowed"
        yield from (f"String pattern accessing '{name}' is disallowed" for name in _named(node.value))


def _named(template: str) -> list[str]:
    """The denied names that a format string would reach for."""
    try:
        fields = [field or "" for _, field, _, _ in string.Formatter().parse(template)]
    except (ValueError, IndexError):
        return []
    return [name for field in fields for name in re.findall(r"[.\[]['\"]?(\w+)", field) if name in DENIED_ATTRIBUTES]


def _not_allowed(name: str, allow: list[str]) -> str:
    top = name.partition(".")[0]
    kind = "standard library module" if top in sys.stdlib_module_names else "external package"
    return "" if top in allow else f"Import of {kind} '{name}' is disallowed."


def _guarded(real: Callable[..., Any], allow: list[str]) -> Callable[..., Any]:
    def guarded(name: str, *args: Any, **options: Any) -> Any:
        package = options.get("package") or (args[0] if args and isinstance(args[0], str) else "")
        if said := _not_allowed(package if name.startswith(".") else name, allow):
            raise Failed(f"Security violation detected: {said}")
        return real(name, *args, **options)

    return guarded


def _obey(task: dict[str, Any]) -> dict[str, Any]:
    allow, printed = task["allow"], []
    _analyse(task["code"], allow)
    space = {name: value for name, value in vars(builtins).items() if name not in DENIED_BUILTINS}
    space["__import__"] = _guarded(builtins.__import__, allow)
    space["print"] = lambda *said: printed.append([f"'{one}'" if isinstance(one, str) else str(one) for one in said])
    importlib.import_module = _guarded(importlib.import_module, allow)  # for everyone, libraries included
    importlib.__import__ = _guarded(importlib.__import__, allow)  # type: ignore[attr-defined]
    os.environ.clear()
    sys.stderr = io.StringIO()
    kept = KEPT_MODULES | set(allow)
    for name in [name for name in sys.modules if name not in kept and not name.startswith(tuple(f"{one}." for one in kept))]:
        del sys.modules[name]
    names: dict[str, Any] = {"__builtins__": space, "_items": task["items"]}
    wrapped = f"def _node():\n{textwrap.indent(task['code'], '    ')}\nreturned = _node()"
    exec(compile(wrapped, "<all_items_task_execution>", "exec"), names)
    return {"items": names["returned"], "printed": printed}


def _main() -> None:
    # Whatever the node's library prints belongs in n8n's log, not in the answer; dumps is held, for json is forgotten too.
    answer, sys.stdout, dumps = sys.stdout, io.StringIO(), json.dumps
    try:
        told = _obey(json.loads(sys.stdin.read()))
    except Exception as error:  # noqa: BLE001 - whatever the node raises, n8n shows
        told = {"failed": str(error)}
    answer.write(dumps(told, default=str))


if __name__ == "__main__":
    _main()

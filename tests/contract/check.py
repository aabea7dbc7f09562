"""Compare ExLlamaV3's own Python with the golden tables and with the planner's reading of the same folders.

Run by `make test-contract` in an environment of its own; --write (`make golden`) renews the tables. Exit status 1 where the
engine and the tables differ, or the planner counts a folder's modules otherwise than the engine does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
GOLDEN = TESTS / "golden"
CONFIGS = TESTS / "data" / "configs"
EQUAL, DIFFERENT = "equal", "DIFFERENT"
sys.path[:0] = [str(HERE), str(TESTS), str(TESTS.parent / "src")]

import facts  # noqa: E402
import facts2  # noqa: E402

from hydra_infer.errors import ConfigError, UnknownModel  # noqa: E402
from hydra_infer.models.folder import read_model  # noqa: E402
from hydra_infer.planner.modules import modules_of  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="configurations under tests/data/configs; all where none is named")
    parser.add_argument("--write", action="store_true", help="renew tests/golden instead of comparing with it")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in CONFIGS.glob("*.json"))
    refused = _read(GOLDEN / "refused.json") or {}
    failed = 0
    for name in names:
        planned: list[str] = []
        found = _ask(name, planned)
        if arguments.write:
            _write(name, found, refused)
            verdict = "written"
        else:
            known = {"refused": refused[name]} if name in refused else _read(GOLDEN / "exl3" / f"{name}.json")
            verdict = "as in the table" if found == known else "NOT AS IN THE TABLE"
        failed += verdict == "NOT AS IN THE TABLE" or any(one.startswith(DIFFERENT) for one in planned)
        print(f"{name}: engine {verdict}; planner {', '.join(planned) or 'not asked, the engine refuses it'}", flush=True)
    if arguments.write:
        _dump(GOLDEN / "refused.json", dict(sorted(refused.items())))
    if not arguments.names:
        failed += _exllamav2(arguments.write)
    return 1 if failed else 0


def _exllamav2(write: bool) -> bool:
    """Compare or renew ExLlamaV2's table; True where it differs."""
    found = facts2.ask()
    if write:
        _dump(GOLDEN / "exl2.json", found)
    same = found == _read(GOLDEN / "exl2.json")
    print(f"exllamav2: engine {'as in the table' if same else 'NOT AS IN THE TABLE'}")
    return not same


def _ask(name: str, planned: list[str]) -> dict[str, Any]:
    """The engine's facts; `planned` gets the planner's verdict on the folder at every rate."""
    config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        try:
            return facts.ask(folder, config, lambda modules: planned.append(_planner(folder, modules)))
        except facts.Refused as error:
            return {"refused": str(error)}


def _planner(folder: Path, engine: list[list[Any]]) -> str:
    try:
        modules = modules_of(read_model(folder))
    except UnknownModel:
        return "not covered"
    except ConfigError as error:
        return f"{DIFFERENT} ({error.message.replace(str(folder), folder.name)})"
    return EQUAL if [["host" if one.in_ram else "gpu", int(one.nbytes)] for one in modules] == engine else DIFFERENT


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write(name: str, found: dict[str, Any], refused: dict[str, str]) -> None:
    path = GOLDEN / "exl3" / f"{name}.json"
    if "refused" in found:
        refused[name] = found["refused"]
        path.unlink(missing_ok=True)
        return
    refused.pop(name, None)
    _dump(path, found)


def _dump(path: Path, value: Any) -> None:
    """One line per entry of the first two levels, so that a change is readable in a diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(each, separators=(',', ':'))}" for name, each in item.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(item)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""TabbyAPI's own configuration models against hydra_infer's table of its keys. Run by `make test-tabby HYDRA_TABBY_DIR=…`.

Needs a checkout of TabbyAPI, of which common/config_models.py is read; newer ones may have keys that the table lacks.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "src")]

import synthetic  # noqa: E402

from hydra_infer import Gpu, plan  # noqa: E402
from hydra_infer.configs.document import parse  # noqa: E402
from hydra_infer.configs.tabby import lint  # noqa: E402
from hydra_infer.configs.tabby_keys import SECTIONS, STARTUP, Key  # noqa: E402

LATER = "2026-08-13"  # the table's commit: keys from after it need not be there
TYPES = {"bool": "bool", "int": "int", "float": "float", "text": "str", "floats": "List[float]", "texts": "List["}


def differences(models: Any) -> list[str]:
    found = []
    theirs = {name: field for name, field in models.TabbyConfigModel.model_fields.items() if name != "config"}
    found += [f"section {name}" for name in theirs.keys() ^ SECTIONS.keys()]
    for section in theirs.keys() & SECTIONS.keys():
        fields = theirs[section].default_factory().__class__.model_fields
        ours = {name: key for name, key in SECTIONS[section].items() if key.since <= LATER}
        found += [f"{section}.{name}: only one of us has it" for name in fields.keys() ^ ours.keys()]
        found += [
            f"{section}.{name}: {difference}"
            for name in fields.keys() & ours.keys()
            for difference in _field(ours[name], fields[name])
        ]
    return found


def _field(ours: Key, theirs: Any) -> list[str]:
    default = theirs.get_default(call_default_factory=True)
    said = list(ours.default) if isinstance(ours.default, tuple) else ours.default
    found = [] if said == default else [f"its default is {default!r}, not {said!r}"]
    annotation = str(theirs.annotation).replace("typing.", "").replace("<class '", "").replace("'>", "")
    expected = TYPES.get(ours.takes, "")
    if expected not in annotation and "Literal" not in annotation:
        found.append(f"it takes {annotation}, not {ours.takes}")
    limits = {type(rule).__name__: rule for rule in theirs.metadata}
    least = limits["Ge"].ge if "Ge" in limits else limits["Gt"].gt + 1 if "Gt" in limits else None
    step = limits["MultipleOf"].multiple_of if "MultipleOf" in limits else None
    if step != ours.step or (least or 0) > (ours.least or 0) or (ours.least is not None and least is None):
        found.append(f"it has limits {limits}")
    return found


def of_a_load(folder: Path) -> list[str]:
    """What TabbyAPI's loader asks for by name, against what a model folder's own tabby_config.yml may say by our table."""
    text = "".join((folder / place).read_text() for place in ("backends/exllamav3/model.py", "common/model.py"))
    read = set(re.findall(r"""(?:kwargs|draft_args)\.get\(\s*"(\w+)\"""", text))
    found = []
    for section in ("model", "draft_model"):
        keys = {name: key for name, key in SECTIONS[section].items() if key.since <= LATER}
        ours = {name for name, key in keys.items() if name not in STARTUP and key.inert is None}
        found += [f"{section}.{name}: no load reads it" for name in ours - read]
        found += [f"{section}.{name}: a load reads it" for name in keys.keys() & read - ours]
    return found


# One of each kind of value that somebody may write.
VALUES: tuple[Any, ...] = (
    *(True, False, 0, 1, -1, -5, 1000, 2048, 2.5, 1e9, [], [1], [1.5, "2"], ["a"], ["OAI"], ["kobold"], {"a": 1}),
    *(
        "x",
        "",
        "1",
        "2.5",
        "true",
        "no",
        "auto",
        "Q4",
        "q4",
        "FP16",
        "8,8",
        "8, 4",
        "9,9",
        "model",
        "mtp",
        "cpu",
        "always",
        "nccl",
    ),
)
# What a loader refuses later, and its configuration takes.
LATER_REFUSED = ("model.backend", "model.tensor_parallel_backend")


def values(models: Any) -> list[str]:
    """Each key with each of these values: what TabbyAPI's models do not take is marked as what keeps it from starting."""
    found = []
    for section, keys in SECTIONS.items():
        for name, value in product((name for name, key in keys.items() if key.since <= LATER), VALUES):
            try:
                models.TabbyConfigModel.model_validate({section: {name: value}})
                taken = True
            except (ValueError, TypeError, AttributeError):  # its validators trip over some, and it does not start either
                taken = False
            text = json.dumps({section: {name: value}})  # JSON is YAML
            stopped = any(one.stops and one.key == f"{section}.{name}" for one in lint(text, version=LATER))
            late = f"{section}.{name}" in LATER_REFUSED or (name, value) == ("api_servers", "")
            if taken is stopped and not (taken and late):
                found.append(f"{section}.{name}: {value!r} is {'taken' if taken else 'refused'} there, and not by the linter")
    return found


def plans(models: Any) -> list[str]:
    """What TabbyAPI's models say to configurations that plans write."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        big = synthetic.exl3(Path(folder) / "big", synthetic.LLAMA_70B, 4.0)
        small = synthetic.exl3(Path(folder) / "small", synthetic.LLAMA_1B, 4.0)
        shapes: list[dict[str, Any]] = [{}, {"split": "tensor"}, {"reserve": [1.0, 0.5]}, {"gpu_split": [28.0, 20.0]}]
        for options in (*shapes, {"cache": "q4", "draft": small}):
            text = plan(big, gpus=[Gpu("RTX 5090"), Gpu("RTX 4090")], context=8192, engine="tabby", **options).tabby_config()
            models.TabbyConfigModel.model_validate(parse(text, "config.yml"))
            found += [f"{options}: {finding}" for finding in lint(text)]
    for file in sorted((TESTS.parent / "examples" / "homelab" / "rendered").rglob("*.yml")):
        models.TabbyConfigModel.model_validate(parse(file.read_text(encoding="utf-8"), str(file)))
    return found


def main() -> int:
    folder = Path(*sys.argv[1:])
    path = folder / "common" / "config_models.py"
    if not path.is_file():
        print(f"{path} is not there: HYDRA_TABBY_DIR names a checkout of TabbyAPI", file=sys.stderr)
        return 2
    spec = importlib.util.spec_from_file_location("config_models", path)
    assert spec is not None
    assert spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    wrong = differences(models) + of_a_load(folder) + values(models) + plans(models)
    sample = folder / "config_sample.yml"
    wrong += [f"{sample.name}: {finding}" for finding in lint(sample.read_text(encoding="utf-8"))]
    print("\n".join(wrong) or "the table of keys is TabbyAPI's own, and it takes what plans write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

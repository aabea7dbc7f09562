"""Write the table "planner against ExLlama's own Python" into docs/accuracy.md, from the golden tables and the planner.

Needs no engine: `python tests/contract/accuracy.py`. With --check nothing is written, and exit status 1 says that the
document is not what this would write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "src"))

from hydra_infer.errors import UnknownModel  # noqa: E402
from hydra_infer.models.config import geometry_of  # noqa: E402
from hydra_infer.models.spec import ModelSpec  # noqa: E402
from hydra_infer.planner.cache import cache_bytes, rate_of  # noqa: E402
from hydra_infer.planner.modules import modules_of  # noqa: E402
from hydra_infer.planner.slices import units_of  # noqa: E402
from hydra_infer.planner.state import state_bytes  # noqa: E402
from hydra_infer.planner.tensor import divide  # noqa: E402
from hydra_infer.units import GIB  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
DOCUMENT = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- written by tests/contract/accuracy.py: begin -->", "<!-- end -->"
TOKENS, CARDS = 32768, "32,24"

INTRODUCTION = """\
Every figure below is what ExLlamaV3 1.6.5 itself says of a model made at that rate by its own converter (compiled extension
replaced, files with true headers and no data), and in brackets by how many bytes the planner differs. Equal are, for each model:
the bytes of every module at 2.5, 4 and 6 bits per weight, the cache of every layer at 8K, 32K and 128K in six modes, the
recurrent state for 1, 4 and 16 slots and 0, 1 and 3 drafted tokens, and where the engine runs the model tensor parallel the
shares of every module, the stored bytes and the working memory per card on 32+24, 24+24+12 and 80+16 GiB
(`tests/planner/test_golden.py`). The table shows 4 bits, 32K of fp16 cache, one slot, and the stored bytes of the 32+24 split.
"""

EXLLAMAV2 = """\
ExLlamaV2 0.3.2, on folders of true headers: the bytes of every module, and the card of every module under a manual split
(`set_device_map`), are equal for four models, one of them with experts, at two contexts and seven splits
(`tests/planner/test_device_map.py`). For the three without experts so are, tensor parallel on six sets of cards, every share, and
the bytes of weights and of the fixed buffer on each card (`tests/planner/test_exl2_parallel.py`).
"""

# Configurations nobody published, for architectures none of the others has.
SMALL = "made-up-"

HEADINGS = ("model", "weights, GiB", "in RAM, GiB", "cache, GiB", "state per slot, MiB", "tensor 32+24, GiB")


def main() -> int:
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else f"# How accurate the planner is\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = f"{before}{BEGIN}\n{_section()}{END}{after}"
    if "--check" in sys.argv[1:]:
        return 0 if written == text else 1
    DOCUMENT.write_text(written, encoding="utf-8")
    return 0


def _section() -> str:
    every = sorted((path.stem for path in (GOLDEN / "exl3").glob("*.json")), key=str.lower)
    names = [name for name in every if not name.startswith(SMALL)]
    small = {name.removeprefix(SMALL): _row(name) for name in every if name.startswith(SMALL)}
    lines = ["## The planner against ExLlama's own Python", "", INTRODUCTION]
    lines += [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(_row(name))} |" for name in names]
    exact = [name for name, cells in small.items() if all(cell.endswith("(0)") or cell == "not run" for cell in cells[1:])]
    lines += ["", f"Small models with made-up sizes stand for other architectures; equal in the same way are {len(exact)} of"]
    lines += [f"{len(small)}: {', '.join(exact)}."]
    lines += ["", EXLLAMAV2]
    refused = json.loads((GOLDEN / "refused.json").read_text(encoding="utf-8"))
    lines += ["", "These configurations the engine itself refuses, and the planner does too:", ""]
    lines += [f"- {name}: {reason}" for name, reason in refused.items()]
    return "\n".join(lines) + "\n"


def _row(name: str) -> list[str]:
    table = json.loads((GOLDEN / "exl3" / f"{name}.json").read_text(encoding="utf-8"))
    engine = _engine(table)
    try:
        planned = _planned(name, table)
    except UnknownModel:
        return [name, *(_cell(value, None, unit) for value, unit in engine)]
    return [name, *(_cell(value, own, unit) for (value, unit), own in zip(engine, planned, strict=True))]


def _engine(table: dict[str, Any]) -> list[tuple[list[int] | None, int]]:
    """(bytes, unit) of each column; None where there is nothing to say."""
    modules = table["rates"]["4"]["modules"]
    sums = [sum(count * size for count, where, size in modules if where == place) for place in ("gpu", "host")]
    cache = TOKENS // 256 * sum(count * size for count, size in table["cache_per_page"]["fp16"])
    state = sum(count * size for count, size in table["state_per_slot"]["0"])
    tensor = table["tensor"]["fp16"][CARDS]["storage"] if table["tensor_parallel"] else None
    return [([sums[0]], GIB), ([sums[1]], GIB), ([cache], GIB), ([state], 2**20), (tensor, GIB)]


def _planned(name: str, table: dict[str, Any]) -> list[list[int]]:
    path = ROOT / "tests" / "data" / "configs" / f"{name}.json"
    geometry = geometry_of(json.loads(path.read_text(encoding="utf-8")), path)
    modules, rate = modules_of(ModelSpec(name, path, "exl3", geometry, bpw=4.0)), rate_of("fp16", "exl3")
    stored: list[int] = []
    if table["tensor_parallel"]:
        memory = [int(card) * GIB for card in CARDS.split(",")]
        units = units_of(modules, geometry, rate, tokens=TOKENS, slots=1)
        stored = [int(size) for size in divide(units, memory, tokens=2048, outputs=32).stored]
    return [
        [sum(module.nbytes for module in modules if not module.in_ram)],
        [sum(module.nbytes for module in modules if module.in_ram)],
        [sum(cache_bytes(layer.attention, rate, TOKENS) for layer in geometry.layers)],
        [sum(state_bytes(layer.attention, 1) for layer in geometry.layers)],
        stored,
    ]


def _cell(engine: list[int] | None, planned: list[int] | None, unit: int) -> str:
    if engine is None:
        return "not run"
    figures = " + ".join(f"{value / unit:.3f}" for value in engine)
    if planned is None:
        return f"{figures} (not planned)"
    return f"{figures} ({sum(abs(ours - theirs) for ours, theirs in zip(planned, engine, strict=True))})"


if __name__ == "__main__":
    sys.exit(main())

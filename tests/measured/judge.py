"""Every published row beside what the planner says of it: the tables of docs/accuracy_measured.md are made of these."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from measured.rows import (
    DATA,
    Row,
    geometry,
    likely,
    llamacpp_plan,
    loaded,
    rows,
    stages,
)

from hydra_infer import Gpu, Plan
from hydra_infer.models.config import geometry_of
from hydra_infer.models.spec import ModelSpec
from hydra_infer.planner.draft import expert_cost, row_cost, speedup
from hydra_infer.planner.request import Request
from hydra_infer.planner.speed import PACES, Stage, seconds
from hydra_infer.units import MIB

FORMS = {"exllamav2": "exl2", "llama.cpp": "gguf"}

# The models of the old ExLlamaV3 rows, and the memory of that RTX 4090 that was free before anything ran (issue 50).
EXL3_CONFIGS = {"gemma-3-27b": "gemma-3-27b-it.json", "Nemotron-Super-49B": "Llama-3_3-Nemotron-Super-49B-v1.json"}
TEXT_ONLY = {"gemma-3-27b": "Gemma3ForCausalLM"}
IDLE_4090 = 23592 * MIB


@dataclass(frozen=True)
class Judged:
    """One row: what was measured, what is predicted (None where nothing is), and what the row is used for."""

    row: Row
    measured: float | None
    predicted: float | None

    @property
    def role(self) -> str:
        return self.row["role"]

    @property
    def error(self) -> float:
        """Relative: 0.05 is 5 % too much."""
        assert self.measured
        assert self.predicted is not None
        return self.predicted / self.measured - 1


def mean(judged: Iterable[Judged]) -> float:
    errors = [abs(each.error) for each in judged]
    return sum(errors) / len(errors)


def worst(judged: Iterable[Judged]) -> float:
    return max(abs(each.error) for each in judged)


def used(judged: Iterable[Judged], role: str = "judge") -> list[Judged]:
    return [each for each in judged if each.role == role]


def decode() -> list[Judged]:
    """Tokens per second."""
    return [Judged(row, float(row["tokens_per_second"]), _decode(row)) for row in rows("decode")]


def _decode(row: Row) -> float | None:
    if row["role"] == "out":
        return None
    return 1 / seconds(stages(row, row["model"]), PACES[FORMS[row["engine"]]], row["split"], 1.0)


def speculation() -> list[Judged]:
    """Times the speed without a draft, at the row's own acceptance."""
    return [Judged(row, float(row["speedup"]), _speculation(row)) for row in rows("speculation")]


def _speculation(row: Row) -> float | None:
    if row["role"] == "out":
        return None
    model, pace = "Qwen3.8-27B", PACES["gguf"]
    main, held, tokens = stages(row, model), loaded(model, row["file"]), int(row["draft_tokens"])
    drafts = Stage(main[0].bandwidth, main[0].capability, held.head + held.mtp, layers=1)
    cost = row_cost(main, drafts, (pace, pace), row["split"], 0.0)
    cost += expert_cost(geometry(model), main, pace, row["split"], tokens)
    return speedup(tokens, float(row["acceptance"]), cost)


def vram() -> list[Judged]:
    """MiB in use on all cards, with the likely overhead."""
    return [Judged(row, float(row["mib"] or 0) or None, _vram(row)) for row in rows("vram")]


def _vram(row: Row) -> float | None:
    if row["role"] == "out":
        return None
    if row["engine"] == "llama.cpp":
        return likely(llamacpp_plan(row))
    return likely(exl3_plan(row)) + old_copy(row, int(row["context"]))


def exl3_plan(row: Row, context: int | None = None) -> Plan:
    """A row of the old ExLlamaV3 as 1.6.5 would load it: the text model alone, that version had no vision towers."""
    path = DATA / "configs" / EXL3_CONFIGS[row["model"]]
    config = json.loads(path.read_text())
    if "text_config" in config:
        config = config["text_config"] | {"architectures": [TEXT_ONLY[row["model"]]]}
    spec = ModelSpec(row["model"], path, "exl3", geometry_of(config, path), bpw=float(row["file"]))
    card = Gpu(row["gpus"], free=IDLE_4090 / 2**30)
    return Plan.of(Request.of(spec, gpus=[card], context=context or int(row["context"]), cache=row["cache"], reserve=0))


def difference(larger: Judged, smaller: Judged) -> tuple[float, float]:
    """What was measured between two rows and what is predicted."""
    values = [larger.measured, smaller.measured, larger.predicted, smaller.predicted]
    high, low, higher, lower = (value for value in values if value is not None)
    return high - low, higher - lower


def slope(model: str) -> Judged:
    """MiB per 1,024 tokens between a model's first and last row; what changes with the version stays the same in both."""
    found = [each for each in vram() if each.role == "slope" and each.row["model"] == model]
    measured, predicted = difference(found[-1], found[0])
    tokens = (int(found[-1].row["context"]) - int(found[0].row["context"])) / 1024
    return Judged(found[0].row, measured / tokens, predicted / tokens)


def edge(model: str) -> float:
    """The context, in units of 1,024 tokens, at which the likely figure reaches what was free on that card."""
    row = next(row for row in rows("vram") if row["model"] == model)
    first, second = (likely(exl3_plan(row, context)) + old_copy(row, context) for context in (8192, 16384))
    return 8 + (IDLE_4090 / MIB - first) / ((second - first) / 8)


def old_copy(row: Row, context: int) -> float:
    """MiB of the fp16 copy of one layer's whole cache that versions before 1.0 kept where the cache was quantised."""
    if row["cache"] == "fp16":
        return 0.0
    widest = max(layer.attention.kv_width for layer in exl3_plan(row).request.spec.geometry.layers if layer.attention)
    return 2 * 2 * widest * context / MIB

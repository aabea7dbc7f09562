"""How long planning takes: headers of a 30-shard 70B and of Qwen3-235B, a plan, and its solver. Not a test: figures only.

python benchmarks/planner.py        (needs tests/ beside it for the made-up models: true headers over holes)
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import synthetic

import hydra_infer as hydra

CARDS = ["RTX 5090", "RTX 4090"]


def sharded(folder: Path, config: dict[str, Any], bits: float, shards: int) -> Path:
    """An EXL3 model in so many files, with their index."""
    whole = synthetic.exl3(folder / "whole", config, bits)
    with (whole / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries = [(name, entry["dtype"], entry["shape"]) for name, entry in header.items()]
    each, weight_map = -(-len(entries) // shards), {}
    (whole / "model.safetensors").unlink()
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = entries[number * each : (number + 1) * each]
        synthetic.sparse_safetensors(whole / name, part)
        weight_map |= {tensor: name for tensor, _, _ in part}
    (whole / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    print(f"{len(entries)} tensors in {shards} files")
    return whole


def best_of(runs: int, work: Callable[[], object]) -> float:
    """Milliseconds of the fastest of some runs."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def show(what: str, milliseconds: float, target: float) -> None:
    print(f"{what:48} {milliseconds:8.1f} ms   target {target:.0f}   {'ok' if milliseconds <= target else 'MISSED'}")


def main() -> None:
    with TemporaryDirectory() as temporary:
        llama = sharded(Path(temporary) / "l", synthetic.LLAMA_70B, 4.0, 30)
        p = hydra.plan(llama, gpus=CARDS, context="64k")
        show("headers and plan of a 70B in 30 files", best_of(3, lambda: hydra.plan(llama, gpus=CARDS)), 300)
        show("plan of a 70B, headers read", best_of(10, lambda: p.replan(context="32k")), 10)
        show("max context", best_of(3, lambda: p.max_context), 300)
        show("suggestions", best_of(3, lambda: p.suggestions), 300)
        turned = p.replan(gpus=CARDS[::-1], context="16k")
        show("search for a better split", best_of(3, turned.better_split), 300)
        show("all three", best_of(3, lambda: (p.max_context, p.suggestions, turned.better_split())), 300)
        shutil.rmtree(llama)
        qwen = sharded(Path(temporary) / "q", synthetic.QWEN3_235B, 3.0, 12)
        show("headers and plan of Qwen3-235B", best_of(3, lambda: hydra.plan(qwen, gpus=CARDS)), 2000)


if __name__ == "__main__":
    main()

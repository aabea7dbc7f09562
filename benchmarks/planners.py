"""How long a plan takes beside other planners' commands, and what each says of one model: Llama 3.1 70B, EXL3 at 4 bits, 32k.

python benchmarks/planners.py [--write] [--bin FOLDER]     (FOLDER: where the others' commands are)
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import page
import synthetic

RUNS = 5


@dataclass(frozen=True)
class Planner:
    """A command, with the model's folder for FOLDER, the pattern of its answer, and what we saw that the answer rests on."""

    name: str
    command: str
    answer: str
    rests_on: str


PLANNERS = [
    Planner(
        "hydra_infer",
        "hydra-infer plan FOLDER --gpus RTX_5090,RTX_4090 --context 32k",
        r"fits: (.*?) decodes",
        "the file's tensors, as the engine places them on two unequal cards, with cache and transients",
    ),
    Planner(
        "modelinfo-cli",
        "modelinfo FOLDER/model.safetensors --context 32768 --gpu RTX4090",
        r"VRAM \(est\): +(~[\d.]+ GB)",
        "the file's tensors and one kind of card; no split by layers of unequal cards",
    ),
    Planner(
        "llmfit",
        "llmfit --json --memory 56G --ram 64G plan meta-llama/Llama-3.1-70B-Instruct --context 32768",
        r'"vram_gb": ([\d.]+)',
        "a catalogue's entry at Q4_K_M: EXL3 is not known to it",
    ),
    Planner(
        "vramcalc",
        "vramcalc FOLDER --dtype bf16 --seq 32768",
        r"total +([\d.]+ GB)",
        "config.json at 16 bits: how the weights are quantised is not looked at",
    ),
    Planner("servcalc", "servcalc FOLDER --gpu RTX_4090", r"servcalc: (.*?);", "config.json; EXL3 is refused, which is honest"),
    Planner(
        "ridgepoint",
        "ridgepoint fit llama-3-70b --gpu a100-80gb --ctx 32768 --dtype q4_k_m",
        r"(weights.*?GiB)",
        "a name in its list, one kind of data-centre card",
    ),
]


def cpu_of(command: list[str]) -> tuple[float, str]:
    """CPU milliseconds of a whole command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1e3, re.sub(r"\s+", " ", done.stdout + done.stderr)


def row(planner: Planner, folder: Path, where: list[Path]) -> list[str] | None:
    """Its line of the table; None where its command is not installed."""
    program, *rest = (
        word.replace("FOLDER", str(folder)).replace("_", " ") if "RTX_" in word else word.replace("FOLDER", str(folder))
        for word in planner.command.split()
    )
    found = next((path / program for path in where if (path / program).exists()), None)
    if found is None:
        return None
    runs = [cpu_of([str(found), *rest]) for _ in range(RUNS)]
    said = re.search(planner.answer, runs[0][1])
    assert said is not None, f"{planner.name} said something else: {runs[0][1][:300]}"
    return [planner.name, f"{min(spent for spent, _ in runs):.0f}", said[said.lastindex or 0], planner.rests_on]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--bin", type=Path)
    given = parser.parse_args()
    where = [Path(sys.executable).parent, *([given.bin] if given.bin else [])]
    with TemporaryDirectory() as temporary:
        config = {**synthetic.LLAMA_70B, "model_type": "llama"}
        folder = synthetic.exl3(Path(temporary) / "Llama-3.1-70B-EXL3", config, 4.0)
        assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
        rows = [line for planner in PLANNERS if (line := row(planner, folder, where)) is not None]
    head = "| planner | CPU ms of the whole command | says | which rests on |\n|---|--:|---|---|"
    text = "\n".join([head, *(f"| {' | '.join(line)} |" for line in rows)])
    text += f"\n\nThe least of {RUNS} runs ({page.machine()}). The model's headers are true, its weights are holes in a file."
    print(text)
    if given.write:
        page.renew("planners", text)


if __name__ == "__main__":
    main()

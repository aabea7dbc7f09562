"""What importing costs a fresh process: CPU milliseconds, compiled beforehand, the least of some runs. Not a test: figures only.

python benchmarks/imports.py [RUNS]        n8n pays this on every execution of a Code node
"""

from __future__ import annotations

import json
import subprocess
import sys

STEPS = {
    "import hydra_infer": "",
    "... and to_n8n": "hydra_infer.to_n8n",
    "... and plan": "hydra_infer.plan",
    "... and Router": "hydra_infer.Router",
    "... and Fleet": "hydra_infer.Fleet",
}
TARGET = 300


def milliseconds(code: str, runs: int) -> float:
    timed = f"import time; began = time.process_time()\nimport hydra_infer\n{code}\nprint(time.process_time() - began)"
    command = [sys.executable, "-c", timed]
    return min(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs)) * 1e3


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for what, code in STEPS.items():
        spent = milliseconds(code, runs)
        print(f"{what:24} {spent:6.0f} ms   target {TARGET}   {'ok' if spent <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()

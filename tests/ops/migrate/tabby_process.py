"""A program that stands for `python main.py --config FILE`: the stand-in TabbyAPI in a process of its own, or one that fails.

The model's name decides: one that begins with "Broken" ends the program as a load that runs out of memory does, one that begins
with "Deaf" never listens, one that begins with "Empty" comes up with no model.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from servers.tabby import TabbyServer

say = partial(print, flush=True)


def main(config: Path) -> int:
    said: dict[str, Any] = YAML(typ="safe").load(config.read_text(encoding="utf-8"))
    model = said["model"]["model_name"]
    say(f"Your API key is: very-secret\nINFO: host {said['network'].get('host')}")
    if said["model"].get("tensor_parallel"):
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # it outlives a parent that forgets it
        say(f"INFO: worker {worker.pid}")
    if model.startswith("Broken"):
        say("ERROR: Insufficient VRAM in split for model and cache")
        return 1
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    if model.startswith("Deaf"):
        over.wait()
        return 0
    with TabbyServer([model], None if model.startswith("Empty") else model, port=said["network"].get("port", 5000)):
        over.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[sys.argv.index("--config") + 1])))

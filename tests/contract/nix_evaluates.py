"""Nix itself evaluates the modules that hydra_infer writes; what they say is compared with what they were made from.

Run by `make test-nix`; needs nix-instantiate (Debian: apt-get install nix-bin). Nothing is built, fetched or installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from awkward_service import AWKWARD

from hydra_infer.configs.nix import nixos_module
from hydra_infer.configs.services import OllamaService
from hydra_infer.configs.systemd import sections

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "homelab" / "rendered" / "nixos"
OLLAMA = OllamaService(models="/mnt/m", cards=(), context=8192)


def evaluated(module: Path) -> Any:
    """What a module is, as data. Raises CalledProcessError with what Nix says against it."""
    words = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", f"import {module} {{ }}"]
    return json.loads(subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout)


def main() -> int:
    if shutil.which("nix-instantiate") is None:
        print("nix-instantiate is not here (Debian: apt-get install nix-bin)", file=sys.stderr)
        return 2
    try:
        for module in sorted(EXAMPLES.glob("*.nix")):
            assert evaluated(module).keys() <= {"systemd", "services"}, module
        with tempfile.TemporaryDirectory() as folder:
            module = Path(folder) / "module.nix"
            module.write_text(nixos_module(tabby=[AWKWARD], ollama=OLLAMA), encoding="utf-8")
            found = evaluated(module)
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    told = found["systemd"]["services"]["tabby-big"]
    assert {"Unit": told["unitConfig"], "Service": told["serviceConfig"]} == sections(AWKWARD), told
    assert found["services"]["ollama"]["environmentVariables"] == {**OLLAMA.variables(), **OLLAMA.visible()}
    print("Nix evaluates the modules, and they say what was meant")
    return 0


if __name__ == "__main__":
    sys.exit(main())

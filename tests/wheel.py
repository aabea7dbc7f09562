"""Run inside an environment that holds the built wheel alone: the front door, the command line and a plan must work there."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from supply.pins import bad, installed, leftovers

CORE = {"httpx", "pydantic", "tenacity", "nvidia-ml-py"}
# What those bring with them; sniffio is an older anyio's.
BROUGHT = set("httpcore h11 anyio sniffio idna certifi pydantic-core annotated-types typing-extensions typing-inspection".split())
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}


def main() -> None:
    """Raise on the first thing that does not hold."""
    import hydra_infer

    home = Path(hydra_infer.__file__).parent
    assert home.is_relative_to(Path(sys.prefix).resolve()), f"the installed wheel is meant to be tested, not {home}"
    for name in ("py.typed", "live.html", "openapi.json"):
        assert (home / name).is_file(), f"{name} is missing"
    required = [line for line in importlib.metadata.requires("hydra-infer") or [] if "extra ==" not in line]
    assert {line.split(">")[0].split("<")[0].strip() for line in required} == CORE, required
    found = installed()
    brought = found.keys() - {"hydra-infer", "pip", "setuptools", "wheel"} - CORE
    assert brought <= BROUGHT, f"more than was looked at: {brought - BROUGHT}"
    assert not bad(found.items()), bad(found.items())
    assert not leftovers(sys.path), leftovers(sys.path)
    for name in hydra_infer.__all__:
        assert getattr(hydra_infer, name) is not None, name
    assert "torch" not in sys.modules

    command = [str(Path(sys.executable).with_name("hydra-infer"))]
    subprocess.run([*command, "gpus"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        plan = [*command, "plan", folder, "--bpw", "4", "--format", "exl3", "--gpus", "RTX 4090", "--json"]
        planned = json.loads(subprocess.run(plan, check=True, capture_output=True, text=True).stdout)
        assert planned["fits"] is True, planned
    missing = subprocess.run([*command, "demo"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2, missing
    assert "pip install" in missing.stderr, missing.stderr
    print("the wheel works with", ", ".join(sorted(CORE)), "alone, and the", len(brought), "packages that those need")


main()

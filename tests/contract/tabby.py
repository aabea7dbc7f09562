"""Start the real TabbyAPI, without an engine, and compare what it answers with the recording that our stand-in is held to.

Run by `make test-tabby` in an environment of its own. Exit status 1 where an answer differs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from servers.recorded import differences

# The folders of the recorded run: one for the engine that is missing, one of a format no longer served, two that are no models.
FOLDERS = {"FakeA-8B-exl3-4.0bpw": "exl3", "FakeB-70B-EXL2-3.5bpw": "exl2", "draft": None, ".cache": None}
PATIENCE = 120.0


def main() -> int:
    if len(sys.argv) != 2:
        print("give the folder of a TabbyAPI checkout", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, running(Path(sys.argv[1]).resolve(), Path(folder)) as url:
        found = differences(url, "without an engine")
    for name, (answer, recorded) in found.items():
        print(f"{name}\n  now       {answer}\n  recorded  {recorded}")
    print(f"{len(found)} answers differ from the recording")
    return 1 if found else 0


@contextmanager
def running(checkout: Path, folder: Path) -> Iterator[str]:
    """The application on a free port, with the recorded run's models and keys in `folder`; ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name, quantised in FOLDERS.items():
        (folder / "models" / name).mkdir(parents=True)
        if quantised:
            config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": quantised, "bits": 4.0}}
            (folder / "models" / name / "config.json").write_text(json.dumps(config))
    for shared in ("templates", "sampler_overrides", "loras"):
        (folder / shared).symlink_to(checkout / shared)
    (folder / "api_tokens.yml").write_text("api_key: apikey000\nadmin_key: adminkey000\n")
    (folder / "config.yml").write_text(f"network:\n  host: 127.0.0.1\n  port: {port}\nmodel:\n  model_dir: models\n")
    environment = {**os.environ, "TABBY_DEVELOPER_UNSAFE_LAUNCH": "true"}
    command = [sys.executable, str(checkout / "main.py")]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + PATIENCE
    while time.monotonic() < ends_at and process.poll() is None:
        try:
            httpx.get(f"{url}/health", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit(f"TabbyAPI did not come up within {PATIENCE:g} s (exit status {process.poll()})")


if __name__ == "__main__":
    sys.exit(main())

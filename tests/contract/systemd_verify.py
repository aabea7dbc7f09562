"""systemd's own verifier reads the units that hydra_infer writes.

Run by `make test-units`; needs systemd-analyze, of systemd 250 or newer. The system it looks at is a folder with stubs: no unit
of this machine is read, started or changed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from awkward_service import AWKWARD

from hydra_infer.configs.services import OllamaService, TabbyService
from hydra_infer.configs.systemd import ollama_dropin, tabby_unit

UNITS = "etc/systemd/system"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "homelab" / "rendered" / "tabby" / "tabby.service"
OLLAMA = "[Unit]\nDescription=Ollama\n[Service]\nExecStart=/usr/local/bin/ollama serve\n"
SERVICES = (TabbyService(folder="/opt/tabbyAPI", python="/opt/tabbyAPI/venv/bin/python", user="typhon"), AWKWARD)


def system(root: Path) -> None:
    """Stubs of what the units refer to."""
    for name in ("sysinit", "basic", "shutdown", "network-online", "multi-user"):
        _write(root / f"usr/lib/systemd/system/{name}.target", "[Unit]\nDescription=stub\n")
    _write(root / "usr/local/bin/ollama", "", program=True)
    _write(root / UNITS / "ollama.service", OLLAMA)
    _write(root / UNITS / "ollama.service.d/hydra.conf", ollama_dropin(OllamaService(models="/mnt/more models", context=8192)))
    _write(root / UNITS / EXAMPLE.name, EXAMPLE.read_text(encoding="utf-8"))
    for service in SERVICES:
        _write(root / UNITS / f"{service.name}.service", tabby_unit(service))
        for program in (service.python, *service.prestart[:1]):
            _write(root / program.lstrip("/"), "", program=True)


def _write(path: Path, text: str, *, program: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if program:
        path.chmod(0o755)


def complaints(root: Path, unit: str) -> str:
    """What the verifier says; nothing where it is content. Its exit status is 0 even for settings that it ignores."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr + done.stdout + (f"exit status {done.returncode}\n" if done.returncode else "")


def main() -> int:
    if shutil.which("systemd-analyze") is None:
        print("systemd-analyze is not here: it is part of systemd (Debian: apt-get install systemd)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        system(root)
        _write(root / UNITS / "broken.service", "[Service]\nExecStart=/usr/local/bin/ollama\nRestartSecs=3\n")
        if not complaints(root, "broken.service"):
            print("the verifier does not see a broken unit: its silence says nothing", file=sys.stderr)
            return 1
        wrong = "".join(
            complaints(root, unit) for unit in ("ollama.service", EXAMPLE.name, *(f"{one.name}.service" for one in SERVICES))
        )
    print(wrong or "systemd takes the units without a complaint")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

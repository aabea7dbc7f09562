"""A healthy fleet on one machine, of stand-ins and a made-up /proc: what a test then spoils is all that doctor may find."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import synthetic
from servers.ollama import OllamaServer
from servers.standin import Asked, StandIn, Step, plain
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer

from hydra_infer import Gpu
from hydra_infer.hardware.gpu import GpuProcess
from hydra_infer.ops.commands import Ran
from hydra_infer.ops.doctor.machine import Machine

MODEL = "Llama-3.2-1B-EXL3-4.0bpw"
PROXY_KEY = "sk-proxy-secret"
TABBY_PID, OLLAMA_PID, OTHER_PID = 4100, 4200, 4300


class Proxy(StandIn):
    """As much of LiteLLM as doctor asks for."""

    def __init__(self) -> None:
        self.version, self.models = "1.110.1", ["llama"]
        super().__init__()

    def answer(self, asked: Asked) -> Iterator[Step]:
        if asked.path == "/health/liveliness":
            return plain("I'm alive!")
        if asked.path == "/health/readiness":
            return plain({"status": "connected", "litellm_version": self.version})
        if asked.headers.get("authorization") != f"Bearer {PROXY_KEY}":
            return plain({"error": {"message": "no key"}}, 401)
        return plain({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})


class Lab:
    """Everything that doctor looks at; fields and files are there to be spoilt. Ends with its `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self._stack = ExitStack()
        self.tabby = self._stack.enter_context(TabbyServer({MODEL: Folder(context=4096)}))
        self.ollama = self._stack.enter_context(OllamaServer(["llama3.1:8b"], context=8192))
        self.proxy = self._stack.enter_context(Proxy())
        self.cards = [Gpu("RTX 5090", free=31, capability="12.0"), Gpu("RTX 4090", free=23, capability="8.9")]
        self.empty_cards = tuple(self.cards)
        self.units = {"tabby.service": _unit(TABBY_PID, "CUDA_DEVICE_ORDER=PCI_BUS_ID"), "ollama.service": _unit(OLLAMA_PID, "")}
        self.journals = {"tabby.service": "", "ollama.service": ""}
        self.remote = Ran(0, json.dumps({"healthy": True, "findings": []}))
        self.mode = 0o600  # of the fleet file
        self.commands: list[Sequence[str]] = []
        self.owners = {self.tabby.port: TABBY_PID, self.ollama.port: OLLAMA_PID}
        self.services = {TABBY_PID: "tabby.service", OLLAMA_PID: "ollama.service", OTHER_PID: "other.service"}
        self._files()
        self.load(MODEL, max_seq_len=4096, cache_size=6144)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    # ---- what may be spoilt ----------------------------------------------------------------------------------

    @property
    def fleet(self) -> dict[str, Any]:
        """The file's tables, as written before each look."""
        return self._fleet

    def load(self, name: str, **settings: Any) -> None:
        """Have TabbyAPI hold this model."""
        self.tabby._card = self.tabby._card_for(name, settings)

    def other_on(self, card: int, used: float) -> None:
        """Another program takes so many GiB of a card."""
        old = self.cards[card]
        holder = GpuProcess(OTHER_PID, "blender", None)
        self.cards[card] = Gpu(
            old.name, free=old.free.gib - used, capability=old.capability, processes=[holder], index=card, uuid=f"GPU-{card}"
        )

    def serving_from(self, folder: Path, pid: int = TABBY_PID) -> None:
        """A process runs in this folder."""
        link = self.root / f"proc/{pid}/cwd"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)

    def write(self, place: str, text: str) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def configure(self, key: str, value: object) -> None:
        """Another value for a key of the model in config.yml."""
        lines = [line for line in self.config.read_text().splitlines() if f" {key}:" not in line]
        self.config.write_text("\n".join([*lines, f"  {key}: {value}", ""]))

    def remount(self, option: str, other: str) -> None:
        """The models' mount with another option in place of this one."""
        self.write("proc/mounts", (self.root / "proc/mounts").read_text().replace(option, other))

    # ---- what it is ------------------------------------------------------------------------------------------

    def file(self) -> Path:
        path = self.folder / "hydra.yaml"
        path.write_text(json.dumps(self._fleet))  # JSON is YAML
        path.chmod(self.mode)
        return path

    def machine(self, **options: Any) -> Machine:
        self._processes()
        return Machine(root=self.root, run=self._run, gpus=lambda: self.cards, **options)

    def _files(self) -> None:
        models, tabby = self.folder / "models", self.folder / "tabbyAPI"
        self.model = models / MODEL
        models.mkdir()
        synthetic.exl3(self.model, synthetic.LLAMA_1B, 4.0)
        (self.model / "chat_template.jinja").write_text("{{ messages }}")
        tabby.mkdir()
        self.config = tabby / "config.yml"
        self.config.write_text(
            f"network:\n  port: {self.tabby.port}\n"
            f"model:\n  model_dir: {models}\n  model_name: {MODEL}\n  max_seq_len: 4096\n  cache_size: 6144\n"
        )
        self.tokens = tabby / "api_tokens.yml"
        self.tokens.write_text(f"api_key: {API_KEY}\nadmin_key: {ADMIN_KEY}\n")
        self.tokens.chmod(0o600)
        for package in ("exllamav3-1.6.5+cu128.torch2.9.0", "torch-2.9.0+cu128"):
            (self.root / f"opt/venv/lib/python3.12/site-packages/{package}.dist-info").mkdir(parents=True)
        self.write("sys/module/nvidia/version", "580.95.05\n")
        self.write("sys/class/net/eth0/operstate", "up\n")
        self.write("sys/class/net/eth0/speed", "10000\n")
        self.write("proc/mounts", f"nas:/models {models} nfs4 rw,vers=4.2,rsize=1048576,hard 0 0\n/dev/sda1 / ext4 rw 0 0\n")
        self.write("etc/fstab", f"nas:/models {models} nfs4 defaults 0 0\n")
        self._fleet: dict[str, Any] = {
            "hosts": {"box": {"cards": "this machine"}, "far": {"cards": ["RTX 5070 Ti"], "ssh": "me@far"}},
            "servers": {
                "tabby": {
                    "kind": "tabby",
                    "url": self.tabby.url,
                    "host": "box",
                    "api_key": {"env": "LAB_API_KEY"},
                    "admin_key": {"env": "LAB_ADMIN_KEY"},
                    "model_dir": str(models),
                    "service": {"folder": str(tabby), "python": "/opt/venv/bin/python", "user": "me"},
                    "models": {"llama": {"name": MODEL, "context": 4096}},
                },
                "ollama": {
                    "kind": "ollama",
                    "url": self.ollama.url,
                    "host": "box",
                    "models": {"small": {"name": "llama3.1:8b", "context": 8192, "takes": 7.0}},
                },
                "proxy": {"kind": "litellm", "url": self.proxy.url, "api_key": {"env": "LAB_PROXY_KEY"}, "models": ["llama"]},
            },
        }

    def _processes(self) -> None:
        """/proc as the owners of the ports have it."""
        rows = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"]
        for port, pid in self.owners.items():
            rows.append(f"   0: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {port} 1")
            self.write(f"proc/{pid}/stat", f"{pid} (some (name) S " + " ".join(map(str, range(20))))
            self.write(f"proc/{pid}/cmdline", "python\0main.py\0--secret\0sesame\0")
            self.write(f"proc/{pid}/cgroup", f"0::/system.slice/{self.services[pid]}\n")
            link = self.root / f"proc/{pid}/fd/{port}"
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                os.symlink(f"socket:[{port}]", link)
        self.write("proc/net/tcp", "\n".join(rows) + "\n")

    def _run(self, command: Sequence[str], _: float) -> Ran:
        self.commands.append(command)
        if command[0] == "systemctl":
            unit = self.units.get(command[-1], {"LoadState": "not-found"})
            return Ran(0, "\n".join(f"{name}={value}" for name, value in unit.items()))
        if command[0] == "journalctl":
            return Ran(0, self.journals[command[2]])
        return Ran(0, "2026-08-13\n") if command[0] == "git" else self.remote


def _unit(pid: int, environment: str) -> dict[str, Any]:
    return {
        "LoadState": "loaded",
        "ActiveState": "active",
        "Result": "success",
        "MainPID": pid,
        "NRestarts": 0,
        "Restart": "always",
        "RestartUSec": "30s",
        "StartLimitIntervalUSec": "52min",
        "StartLimitBurst": 3,
        "TimeoutStartUSec": "2min",
        "KillMode": "control-group",
        "Environment": environment,
    }

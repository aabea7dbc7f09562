"""doctor on a fleet of stand-ins: silent where all is well, and each planted fault found by name."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic
from ops.doctor.healthy import MODEL, OTHER_PID, PROXY_KEY, TABBY_PID, Lab
from servers.ollama import OllamaServer
from servers.tabby import ADMIN_KEY, API_KEY, Folder

from hydra_infer import Fleet, Gpu, doctor
from hydra_infer.cli import main
from hydra_infer.errors import ConfigError
from hydra_infer.ops.commands import Ran
from hydra_infer.ops.doctor.machine import ServiceHere, services_in
from hydra_infer.ops.doctor.report import Finding, Report
from hydra_infer.ops.journal import Journal, beside

pytestmark = pytest.mark.usefixtures("no_leaks")

SECRETS = (API_KEY, ADMIN_KEY, PROXY_KEY, "sesame", "feedface" * 4, "sk-planted")


def looked(lab: Lab, **options: Any) -> Report:
    report = doctor(lab.file(), machine=lab.machine(), **options)
    shown = f"{report}{report!r}{report.to_json()}{lab.commands}"
    assert not [secret for secret in SECRETS if secret in shown]
    return report


def test_nothing_on_a_healthy_fleet(lab: Lab) -> None:
    report = looked(lab)
    assert str(report) == "nothing is wrong"
    assert report.healthy


def test_it_only_reads(lab: Lab) -> None:
    before = {path: path.stat().st_mtime_ns for path in lab.folder.rglob("*") if path.is_file() and "proc" not in path.parts}
    lab.file()
    looked(lab)
    assert [asked.method for asked in (*lab.tabby.requests, *lab.ollama.requests)] == ["GET"] * (6 + 3)
    after = {path: path.stat().st_mtime_ns for path in lab.folder.rglob("*") if path.is_file() and "proc" not in path.parts}
    assert {path for path in after if after[path] != before.get(path)} == {lab.folder / "hydra.yaml"}
    assert {command[0] for command in lab.commands} == {"systemctl", "journalctl", "git", "ssh"}


# ---- planted faults: how, where it is found, and in which words ------------------------------------------------


def _renamed(lab: Lab) -> None:
    lab.fleet["servers"]["tabby"]["models"] = {"llama": {"name": "Llama-3.2-1B-EXL3-6.0bpw", "context": 4096}}
    lab.model.rename(lab.model.with_name("Llama-3.2-1B-EXL3-6.0bpw"))
    lab.config.write_text(lab.config.read_text().replace(MODEL, "Llama-3.2-1B-EXL3-6.0bpw"))
    lab.tabby.folders["Llama-3.2-1B-EXL3-6.0bpw"] = Folder()
    lab.load("Llama-3.2-1B-EXL3-6.0bpw", max_seq_len=4096, cache_size=6144)


def _exl2(lab: Lab) -> None:
    (lab.folder / "old").mkdir()
    lab.fleet["servers"]["tabby"]["model_dir"] = str(lab.folder / "old")
    synthetic.exl2(lab.folder / "old" / MODEL, synthetic.LLAMA_1B, 4.0)
    (lab.folder / "old" / MODEL / "chat_template.jinja").write_text("x")


def _full_cards(lab: Lab) -> None:
    lab.tabby._card = None
    lab.other_on(0, 30.9)
    lab.other_on(1, 22.9)


def _small(lab: Lab) -> None:
    lab.ollama.context = 2048
    _have_loaded(lab)


def _have_loaded(lab: Lab) -> None:
    import httpx

    httpx.post(f"{lab.ollama.url}/api/generate", json={"model": "llama3.1:8b"}, timeout=5, trust_env=False)


def _cpu(lab: Lab) -> None:
    lab.ollama.gpu = False
    lab.ollama.context = 8192
    _have_loaded(lab)


def _unit(lab: Lab, name: str = "tabby.service", **fields: Any) -> None:
    lab.units[name].update(fields)


def _interrupted(lab: Lab) -> None:
    with Journal(beside(lab.folder / "hydra.yaml")) as journal:
        journal.begin("switch", server="tabby", model="big")
        with pytest.raises(ZeroDivisionError), journal.step("load"):
            raise ZeroDivisionError


def _failed(lab: Lab) -> None:
    _unit(lab, ActiveState="failed", Result="exit-code")
    lab.journals["tabby.service"] = (
        f"INFO: Your API key is: {'feedface' * 4}\nERROR: Insufficient VRAM in split for model and cache {'feedface' * 4}\n"
    )


def _moved(lab: Lab) -> None:
    lab.owners[lab.tabby.port] = OTHER_PID
    lab.owners[lab.tabby.port + 1] = TABBY_PID


def _foreign_draft(lab: Lab) -> None:
    synthetic.exl3(lab.model.with_name("draft"), synthetic.LLAMA_1B | {"vocab_size": 32000}, 4.0)
    lab.fleet["servers"]["tabby"]["models"]["llama"]["draft"] = "draft"


def _old_engine(lab: Lab) -> None:
    (place,) = (lab.root / "opt/venv/lib/python3.12/site-packages").glob("exllamav3-*")
    place.rename(place.with_name("exllamav3-1.3.9+cu128.torch2.9.0.dist-info"))


def _other_torch(lab: Lab) -> None:
    (place,) = (lab.root / "opt/venv/lib/python3.12/site-packages").glob("torch-*")
    place.rename(place.with_name("torch-2.11.0+cu128.dist-info"))


def _literal(lab: Lab) -> None:
    lab.fleet["servers"]["proxy"]["api_key"] = {"literal": PROXY_KEY}
    lab.mode = 0o644


DATA = Path(__file__).parents[2] / "data"
HOMELAB = Path(__file__).parents[3] / "examples" / "homelab" / "hydra.yaml"
BIG = "Llama-3.1-70B-EXL3-4.0bpw"
FAULTS: list[tuple[Callable[[Lab], Any], str, str]] = [
    (lambda lab: lab.tabby.close(), "tabby", "nothing usable answers"),
    (lambda lab: lab.fleet["servers"]["tabby"].update(url=lab.ollama.url), "tabby", "is not tabby"),
    (lambda lab: setattr(lab.tabby, "_card", None), "tabby", "no model is loaded"),
    (lambda lab: lab.tabby.issues.append({"description": "OutOfMemoryError: 2 GiB"}), "tabby", "OutOfMemoryError: 2 GiB"),
    (lambda lab: lab.fleet["servers"]["tabby"].update(api_key={"env": "LAB_PROXY_KEY"}), "tabby", "refuses our api_key"),
    (lambda lab: lab.fleet["servers"]["tabby"].update(admin_key={"env": "LAB_API_KEY"}), "tabby", "is not the admin's"),
    (lambda lab: lab.fleet["servers"]["tabby"].update(api_key={"env": "LAB_ADMIN_KEY"}), "tabby", "has the admin's rights"),
    (lambda lab: lab.fleet["servers"]["tabby"].update(api_key={"env": "LAB_NOT_SET"}), "tabby", "LAB_NOT_SET"),
    (lambda lab: (lab.tabby.folders.update(other=Folder()), lab.load("other")), "tabby", "it has 'other' loaded"),
    (lambda lab: lab.load(MODEL, max_seq_len=2048), "tabby", "a context of 2048"),
    (lambda lab: lab.load(MODEL, max_seq_len=4096), "tabby", "takes prompts of 2049"),
    (lambda lab: (lab.tabby.folders.update({MODEL: Folder(template=False)}), lab.load(MODEL, max_seq_len=4096, cache_size=6144)),
     "tabby", "has no chat template"),
    (lambda lab: lab.tabby.folders.update({"x": lab.tabby.folders.pop(MODEL)}), "tabby", "it has no folder"),
    (lambda lab: lab.ollama.tags.clear(), "ollama", "it has no 'llama3.1:8b'"),
    (_cpu, "ollama", "runs on the CPU"),
    (_small, "ollama", "loaded with a context of 2048"),
    (lambda lab: lab.proxy.models.clear(), "proxy", "does not list 'llama'"),
    (lambda lab: setattr(lab.proxy, "version", "1.107.0"), "proxy", "malicious code"),
    (lambda lab: setattr(lab.proxy, "version", "1.84.0"), "proxy", "known holes: CVE-2026-102999"),
    (lambda lab: setattr(lab.proxy, "version", "1.83.6"), "proxy", "CVE-2026-42208"),
    (lambda lab: lab.fleet["servers"]["proxy"].pop("api_key"), "proxy", "it wants a key"),
    (lambda lab: lab.config.write_text(lab.config.read_text() + "  expect_cache_tokens: 8192\n"), "config.yml:8", "unknown"),
    (lambda lab: lab.config.write_text("network:\n  port: 7\n"), "config.yml", "network.port is 7"),
    (lambda lab: lab.configure("gpu_split", [10, 10, 10]), "config.yml", "gpu_split"),
    (lambda lab: lab.configure("cache_size", 2**21), "config.yml", f"{MODEL} does not fit its cards"),
    (lambda lab: lab.configure("model_name", "gone"), "tabby", "gone"),
    (lambda lab: lab.tokens.chmod(0o644), "api_tokens.yml", "everybody on this machine"),
    (lambda lab: (lab.model / "chat_template.jinja").unlink(), "tabby", f"{MODEL} has no chat template"),
    (lambda lab: next(lab.model.glob("*.safetensors")).rename(lab.model / "model-00001-of-00002.safetensors"), "tabby",
     "lacks model-00002-of-00002.safetensors"),
    (lambda lab: (lab.model / "config.json").write_text("{"), "tabby", "config.json"),
    (_renamed, "tabby", "says 6.0 bits per weight, and its files have 4.00"),
    (_exl2, "tabby", "is exl2"),
    (lambda lab: lab.write("proc/mounts", "/dev/sda1 / ext4 rw 0 0\n"), "tabby", "is not mounted"),
    (_full_cards, "tabby", "blender (pid 4300)"),
    (lambda lab: setattr(lab, "cards", []), "tabby", "no NVIDIA card"),
    (lambda lab: lab.cards.append(Gpu("RTX 2080 Ti", capability="7.5")), "tabby", "capability 7.5"),
    (lambda lab: lab.write("sys/module/nvidia/version", "560.35.03\n"), "tabby", "570 is needed"),
    (lambda lab: _unit(lab, Environment=""), "tabby", "CUDA_DEVICE_ORDER"),
    (lambda lab: _unit(lab, Environment="CUDA_DEVICE_ORDER=PCI_BUS_ID PYTORCH_CUDA_ALLOC_CONF=x"), "tabby", "ALLOC_CONF"),
    (_other_torch, "tabby", "exllamav3 is 1.6.5+cu128.torch2.9.0, and torch is 2.11.0+cu128"),
    (lambda lab: _unit(lab, Restart="on-failure"), "tabby", "Restart=on-failure"),
    (lambda lab: _unit(lab, StartLimitIntervalUSec="5min", StartLimitBurst=5), "tabby", "may start 5 times in 300 s"),
    (lambda lab: _unit(lab, KillMode="process"), "tabby", "KillMode=process"),
    (lambda lab: _unit(lab, ExecStartPre="{ argv[]=/h/hydra-infer prestart --wait 300 ; }"), "tabby", "prestart may wait 300"),
    (lambda lab: _unit(lab, NRestarts=4), "tabby", "was restarted 4 times"),
    (_failed, "tabby", "Insufficient VRAM in split for model and cache ***"),
    (_moved, "tabby", f"belongs to python main.py (pid {OTHER_PID}, other.service)"),
    (_moved, "tabby", "it listens on port"),
    (lambda lab: (lab.fleet["servers"]["ollama"].update(max_parallel=4)), "ollama", "OLLAMA_NUM_PARALLEL is 1"),
    (lambda lab: lab.write("sys/class/net/eth0/speed", "100\n"), "models", "a network of 100 Mbit/s"),
    (lambda lab: lab.remount("1048576", "8192"), "models", "rsize=8192"),
    (lambda lab: lab.remount("hard", "soft"), "models", "with soft"),
    (_foreign_draft, "tabby", "its vocabulary has 32000 tokens"),
    (_old_engine, "tabby", "exllamav3 is 1.3.9"),
    (_literal, "hydra.yaml", "the key of proxy stands in it"),
    (_interrupted, "hydra.yaml.journal", "the switch to big on tabby"),
    (lambda lab: lab.fleet["servers"]["tabby"]["models"]["llama"].update(context="4m"), "tabby", "does not fit its cards"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*stands in a file that everybody:UserWarning")  # reading the file says so too
@pytest.mark.parametrize(("plant", "where", "words"), FAULTS, ids=[words for _, _, words in FAULTS])
def test_a_planted_fault_is_found(lab: Lab, plant: Callable[[Lab], Any], where: str, words: str) -> None:
    plant(lab)
    report = looked(lab)
    found = [one for one in report if words in one.what and one.severity != "unseen"]
    assert [one.where.endswith(where) for one in found] == [True], str(report)
    assert found[0].why
    assert found[0].mend
    assert not report.healthy


def test_twenty_at_once_are_all_found(lab: Lab) -> None:
    words = """OutOfMemoryError: 2 GiB|is not the admin's|takes prompts of 2049|runs on the CPU|does not list 'llama'
        malicious code|unknown|everybody on this machine|0bpw has no chat template|capability 7.5|570 is needed|ALLOC_CONF
        Restart=on-failure|may start 5 times|KillMode=process|was restarted 4 times|OLLAMA_NUM_PARALLEL is 1|100 Mbit/s
        rsize=8192|with soft|the switch to big|it listens on port"""
    chosen = [word.strip() for word in words.replace("\n", "|").split("|")]
    plants = [plant for plant, _, told in FAULTS if any(word in told for word in chosen)]
    for plant in plants:
        plant(lab)
    told = "\n".join(one.what for one in looked(lab) if one.severity != "unseen")
    assert len(plants) == len(chosen) == 22
    assert [word for word in chosen if word not in told] == []


# ---- what cannot be looked at ------------------------------------------------------------------------------------


def test_what_could_not_be_looked_at_is_said(lab: Lab) -> None:
    lab.units.clear()
    (lab.root / "proc/net/tcp").unlink(missing_ok=True)
    lab.fleet["hosts"]["far"] = {"cards": ["RTX 5070 Ti"]}
    lab.fleet["servers"]["ollama"]["host"] = "far"
    machine = lab.machine()
    (lab.root / "proc/net/tcp").unlink()
    report = doctor(lab.file(), machine=machine)
    told = "\n".join(map(str, report))
    assert "tabby: not looked at: its unit: there is no tabby.service here" in told
    assert f"tabby: not looked at: who has port {lab.tabby.port}: this system has no /proc/net/tcp" in told
    assert "far: not looked at: the machine itself\n    ssh: in the fleet file" in told
    assert report.healthy, "nobody can say that something is wrong"


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        (Ran(255, "", "ssh: connect to host far port 22: No route to host"), "No route to host"),
        (Ran(127, ""), "hydra-infer is not installed there"),
        (Ran(None, "", "ssh did not answer within 60 s"), "did not answer within 60 s"),
    ],
)
def test_a_machine_that_ssh_does_not_reach(lab: Lab, ran: Ran, words: str) -> None:
    lab.remote = ran
    report = looked(lab)
    assert [(one.severity, one.where) for one in report] == [("unseen", "far")]
    assert words in report.findings[0].what


def test_another_machine_is_looked_at_by_ssh_and_its_findings_are_ours(lab: Lab) -> None:
    there = Finding("error", "ollama", "it is on fire", "smoke", "water")
    lab.remote = Ran(1, Report.of([there]).to_json())
    lab.fleet["servers"]["ollama"]["host"] = "far"
    report = looked(lab)
    assert [(one.where, one.what) for one in report] == [("far: ollama", "it is on fire")]
    (ssh,) = (command for command in lab.commands if command[0] == "ssh")
    assert ssh[:-1] == ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", "me@far"]
    asked = shlex.split(ssh[-1])
    assert asked[:4] == ["hydra-infer", "doctor", "--json", "--look"]
    (service,) = services_in(asked[4])
    assert (service.name, service.kind, service.port) == ("ollama", "ollama", lab.ollama.port)


SSH = """\
#!/bin/sh
# As ssh does: the last word goes to a shell on the other machine.
for word in "$@"; do last="$word"; done
printf '%s\\n' "$@" >"$RECORD"
exec /bin/sh -c "$last"
"""


def test_another_machine_by_ssh_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program ssh is run, and a hydra-infer behind it answers: whatever it may not know of this machine comes back merged."""
    for name, text in (("ssh", SSH), ("hydra-infer", f'#!/bin/sh\nexec "{sys.executable}" -m hydra_infer "$@"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "asked"))
    with OllamaServer(["a:1b"]) as ollama:
        path = tmp_path / "hydra.yaml"
        path.write_text(
            f"hosts: {{far: {{cards: [], ssh: me@far}}}}\n"
            f"servers: {{it's: {{kind: ollama, url: '{ollama.url}', host: far, models: {{a: {{name: 'a:1b', takes: 0.5}}}}}}}}\n"
        )
        report = doctor(path)
    assert [(one.severity, one.where) for one in report] == [("unseen", "far: it's")], str(report)
    assert "its unit" in report.findings[0].what
    assert (tmp_path / "asked").read_text().splitlines()[:6] == ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", "me@far"]


def test_the_fleets_own_keys_are_hidden_in_what_others_wrote(lab: Lab) -> None:
    _failed(lab)
    lab.journals["tabby.service"] += f"ERROR: refused {API_KEY} and {ADMIN_KEY}\nERROR: password=hunter2\n"
    told = str(looked(lab))
    assert "refused •••••• and ••••••" in told
    assert "hunter2" not in told


def test_a_report_survives_its_json() -> None:
    report = Report.of([Finding("warning", "a", "b", "c", "d"), Finding("error", "é", "b", "c", "d")])
    assert Report.from_dict(json.loads(report.to_json())) == report
    assert [one.severity for one in report] == ["error", "warning"]
    for broken in ({}, {"findings": [{"what": "x"}]}, {"findings": [{**dict.fromkeys(Finding.__slots__, "x")}]}):
        with pytest.raises(ConfigError, match="no report of a doctor"):
            Report.from_dict(broken)


# ---- files alone -------------------------------------------------------------------------------------------------


def test_a_tabby_config_alone(lab: Lab) -> None:
    assert str(doctor(tabby_config=lab.config, machine=lab.machine())) == "nothing is wrong"
    lab.config.write_text(lab.config.read_text() + "speculative_decoding:\n  enabled: true\n")
    (lab.model / "chat_template.jinja").unlink()
    report = doctor(tabby_config=lab.config, machine=lab.machine())
    assert [one.what for one in report] == ["speculative_decoding: unknown", f"{MODEL} has no chat template"]


def test_a_tabbyapi_on_this_machine_by_its_config_alone(lab: Lab) -> None:
    """Its port, its unit, its cards and its packages are looked at, as with a fleet file."""
    folder = lab.config.parent
    lab.serving_from(folder)
    packages = lab.root / str(folder)[1:] / "venv/lib/python3.12/site-packages"
    (packages / "exllamav3-1.3.9+cu128.torch2.9.0.dist-info").mkdir(parents=True)
    (packages / "torch-2.9.0+cu130.dist-info").mkdir()
    (packages.parents[2] / "bin").mkdir()
    (packages.parents[2] / "bin/python").write_text("")
    lab.write("sys/module/nvidia/version", "560.35.03\n")
    _unit(lab, Restart="on-failure", Environment="PYTORCH_ALLOC_CONF=x CUDA_VISIBLE_DEVICES=7")
    told = [one.what for one in doctor(tabby_config=lab.config, machine=lab.machine())]
    assert told == [
        "the driver is 560.35.03, and 580 is needed",
        "exllamav3 is 1.3.9+cu128.torch2.9.0",
        "exllamav3 is 1.3.9+cu128.torch2.9.0, and torch is 2.9.0+cu130",
        "tabby.service has Restart=on-failure",
        "tabby.service sets PYTORCH_ALLOC_CONF",
        "CUDA_DEVICE_ORDER is not PCI_BUS_ID in its unit",
    ]
    lab.configure("model_name", MODEL)
    lab.config.write_text(lab.config.read_text() + "memory:\n  cuda_malloc_async: false\n")
    told = [one.what for one in doctor(tabby_config=lab.config, machine=lab.machine())]
    assert "tabby.service sets PYTORCH_ALLOC_CONF" not in told, "TabbyAPI leaves it alone"


def test_another_process_on_the_port_of_a_config(lab: Lab) -> None:
    lab.owners[lab.tabby.port] = OTHER_PID
    lab.serving_from(lab.folder, OTHER_PID)
    report = doctor(tabby_config=lab.config, machine=lab.machine())
    folder = lab.config.parent
    assert [one.what for one in report] == [
        f"port {lab.tabby.port} belongs to python main.py (pid {OTHER_PID}, other.service), which does not run in {folder}"
    ]


def test_the_knowledge_bases_litellm_config(tmp_path: Path) -> None:
    """Every key of it that does not do what it seems to, by line, with what does; and nothing else."""
    config = tmp_path / "config.yaml"
    config.write_text((DATA / "knowledge_base" / "litellm.yaml").read_text())
    found = {one.where.removeprefix(str(config)): (one.what, one.mend) for one in doctor(litellm_config=config)}
    assert found == {
        ":4": (
            "llama-70b has max_tokens and no max_input_tokens in model_info",
            "max_input_tokens: 32768, and router_settings: enable_pre_call_checks: true",
        ),
        ":11": (
            "llama-8b is asked by ollama/, Ollama's old /api/generate",
            "write ollama_chat/ in its place (ollama/ is for embeddings, with model_info: mode: embedding)",
        ),
        ":15": ("set_verbose is given up", "LITELLM_LOG=INFO in the proxy's environment, and this line out"),
        "": (
            "num_retries is 2, and there is one server and no fallback for llama-70b, llama-8b",
            "router_settings: fallbacks: names who answers instead",
        ),
    }


@pytest.mark.parametrize("key", ["sk-1234", "''", ""])
def test_a_master_key_that_litellm_does_not_start_with(tmp_path: Path, key: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model_list: [{{model_name: m, litellm_params: {{model: ollama_chat/m}}}}]\ngeneral_settings: {{master_key: {key}}}\n"
    )
    config.chmod(0o600)
    assert [(one.severity, one.where) for one in doctor(litellm_config=config)] == [("error", f"{config}:2")]


def test_a_key_in_a_litellm_config_that_everybody_can_read(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list: [{model_name: m, litellm_params: {model: openai/m, api_base: 'http://a', api_key: sk-planted}}]\n"
    )
    config.chmod(0o644)
    (one,) = doctor(litellm_config=config)
    assert "a key stands in it (api_key)" in one.what
    assert "sk-planted" not in str(one)
    config.chmod(0o600)
    assert doctor(litellm_config=config).healthy


def test_a_broken_litellm_config_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model_list: 7\n")
    assert [one.severity for one in doctor(litellm_config=config)] == ["error"]


def test_our_own_files_are_well(lab: Lab, tmp_path: Path) -> None:
    """What render writes, doctor has nothing to say against."""
    fleet = Fleet.from_file(HOMELAB)
    fleet.render(tmp_path / "out")
    assert str(doctor(litellm_config=tmp_path / "out" / "litellm" / "litellm.yaml")) == "nothing is wrong"
    config = tmp_path / "out" / "tabby" / "config.yml"
    report = doctor(tabby_config=config, machine=lab.machine())
    assert [one.what for one in report] == [
        f"{BIG}: no model at /mnt/models/{BIG} (give a model folder, a .gguf file or a config.json)"
    ]


def test_a_file_that_is_not_there_is_not_silence(tmp_path: Path) -> None:
    for report in (doctor(tabby_config=tmp_path / "none"), doctor(litellm_config=tmp_path / "none")):
        assert [one.severity for one in report] == ["error"]


def test_nothing_to_look_at() -> None:
    with pytest.raises(ConfigError, match="doctor needs a fleet"):
        doctor()


def test_a_slow_disk_is_timed_only_when_asked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.ops.doctor.machine.read_speed", lambda _: 80.0)
    assert looked(lab).healthy
    report = doctor(lab.file(), machine=lab.machine(read_disk=True))
    assert [one.what for one in report] == ["it reads 80 MB/s"]


def test_the_example_fleet_is_well_as_far_as_it_can_be_seen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in (("TABBY_API_KEY", API_KEY), ("TABBY_ADMIN_KEY", ADMIN_KEY), ("LITELLM_MASTER_KEY", PROXY_KEY)):
        monkeypatch.setenv(name, key)
    lab.tabby.folders[BIG] = Folder()
    lab.load(BIG, max_seq_len=32768, cache_size=34816)
    lab.proxy.models = ["llama-70b"]
    with OllamaServer(["llama3.1:8b", "qwen2.5:14b", "nomic-embed-text"]) as small:
        urls = {"tabby": lab.tabby.url, "ollama": small.url, "ollama-cpu": small.url, "litellm": lab.proxy.url}
        report = Fleet.from_file(HOMELAB, urls=urls).doctor(machine=lab.machine())
    assert report.healthy
    assert [(one.where, one.what) for one in report] == [(host, "the machine itself") for host in ("big", "small", "quiet")]


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_infer.ops.doctor.doctor.Machine", lambda **options: lab.machine(**options))
    assert main(["doctor", str(lab.file())]) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    lab.proxy.models.clear()
    assert main(["doctor", str(lab.file()), "--json"]) == 1
    assert [one["where"] for one in json.loads(capsys.readouterr().out)["findings"]] == ["proxy"]
    assert main(["doctor", "--tabby-config", str(lab.config)]) == 0
    assert main(["doctor"]) == 2
    capsys.readouterr()
    service = ServiceHere("tabby", "tabby", lab.tabby.port + 1, "tabby.service", folder=str(lab.config.parent))
    assert main(["doctor", "--json", "--look", json.dumps([service.to_dict()])]) == 1
    found = Report.from_dict(json.loads(capsys.readouterr().out))
    assert [one.what for one in found] == [f"network.port is {lab.tabby.port}, and the fleet file asks port {lab.tabby.port + 1}"]
    assert main(["doctor", "--look", "[7]"]) == 2

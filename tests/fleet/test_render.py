"""Other programs' files from a fleet: what they say, that their own readers take them, and that nothing is lost by writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hydra_infer import ConfigError, DoesNotFit, Fleet
from hydra_infer.cli import main
from hydra_infer.configs.document import parse
from hydra_infer.configs.litellm import read_litellm
from hydra_infer.configs.tabby import lint

HOMELAB = Path(__file__).parents[2] / "examples" / "homelab" / "hydra.yaml"
CONFIGS = Path(__file__).parents[1] / "data" / "configs"
BIG = "Llama-3.1-70B-EXL3-4.0bpw"


@pytest.fixture(scope="module")
def homelab() -> dict[str, str]:
    """The example's files, by their places."""
    return {str(file.path): file.text for file in Fleet.from_file(HOMELAB).rendering("").files}


def fleet(tmp_path: Path, tabby: str, *, rest: str = "", host: str = "{cards: [RTX 4090]}") -> Fleet:
    path = tmp_path / "hydra.yaml"
    path.write_text(f"hosts: {{box: {host}}}\nservers:\n  tabby: {{kind: tabby, url: 'http://box', host: box, {tabby}}}\n{rest}")
    return Fleet.from_file(path)


def model(name: str, bpw: float = 4.0) -> str:
    return f"{{config: {CONFIGS / name}.json, bpw: {bpw}}}"


def test_every_server_and_every_machine_has_its_files(homelab: dict[str, str]) -> None:
    assert list(homelab) == [
        "tabby/config.yml",
        f"tabby/models/{BIG}/tabby_config.yml",
        "tabby/tabby.service",
        "ollama/ollama.service.d/hydra.conf",
        "ollama/compose.yaml",
        "ollama-cpu/ollama.service.d/hydra.conf",
        "ollama-cpu/compose.yaml",
        "litellm/litellm.yaml",
        "litellm/compose.yaml",
        "nixos/big.nix",
        "nixos/small.nix",
        "nixos/quiet.nix",
    ]


def test_the_examples_rendered_files_are_what_is_rendered_today() -> None:
    """`make test-litellm`, `test-units` and `test-tabby` hold these files against LiteLLM, systemd and TabbyAPI themselves."""
    folder = HOMELAB.parent / "rendered"
    rendering = Fleet.from_file(HOMELAB).rendering(folder)
    assert rendering.diff == "", "hydra-infer render examples/homelab/hydra.yaml examples/homelab/rendered --write"
    assert {file.path for file in rendering.files} == {path for path in folder.rglob("*") if path.is_file()}


def test_tabbyapi_gets_what_was_planned_and_a_network_that_others_reach(homelab: dict[str, str]) -> None:
    text = homelab["tabby/config.yml"]
    config = parse(text, "config.yml")
    planned = Fleet.from_file(HOMELAB).plan().rows[0].plan
    assert planned is not None
    assert (config["model"]["model_dir"], config["model"]["model_name"]) == ("/mnt/models", BIG)
    assert config["model"]["cache_size"] == planned.cache_tokens
    assert config["draft_model"]["draft_model_name"] == "Llama-3.2-1B-EXL3-4.0bpw"
    assert config["network"] == {"host": "0.0.0.0", "port": 5000}
    assert lint(text) == []


def test_what_is_loaded_later_gets_it_from_the_models_folder(homelab: dict[str, str]) -> None:
    text = homelab[f"tabby/models/{BIG}/tabby_config.yml"]
    whole, own = parse(homelab["tabby/config.yml"], "config.yml"), parse(text, "tabby_config.yml")
    assert own["model"] == {key: value for key, value in whole["model"].items() if key not in ("model_dir", "model_name")}
    assert own["draft_model"] == whole["draft_model"]
    assert "network" not in own
    assert lint(text, per_model=True) == []


def test_only_the_first_model_is_loaded_at_the_start(tmp_path: Path) -> None:
    made = fleet(tmp_path, f"model_dir: /m, models: {{a: {model('Llama-3.1-8B')}, b: {model('Qwen2.5-14B')}}}")
    texts = {file.path.as_posix(): file.text for file in made.rendering("").files}
    assert list(texts) == ["tabby/config.yml", "tabby/models/a/tabby_config.yml", "tabby/models/b/tabby_config.yml"]
    assert parse(texts["tabby/config.yml"], "")["model"]["model_name"] == "a"


def test_a_server_for_this_machine_alone_listens_there_alone(tmp_path: Path) -> None:
    path = tmp_path / "hydra.yaml"
    path.write_text("servers: {a: {kind: ollama, url: 'http://127.0.0.1:11500', max_parallel: 2}}")
    dropin, composed = Fleet.from_file(path).rendering("").files
    assert "Environment=OLLAMA_HOST=127.0.0.1:11500\nEnvironment=OLLAMA_NUM_PARALLEL=2\n" in dropin.text
    (ollama,) = parse(composed.text, "")["services"].values()
    assert (ollama["ports"], ollama["environment"]["OLLAMA_NUM_PARALLEL"]) == (["127.0.0.1:11500:11434"], "2")


def test_the_proxys_file_read_again_is_the_fleet(homelab: dict[str, str]) -> None:
    config = read_litellm(homelab["litellm/litellm.yaml"], "litellm.yaml", {"TABBY_API_KEY": "k", "LITELLM_MASTER_KEY": "m"})
    assert [(one.group, one.kind, one.url.removesuffix("/v1"), one.local_name) for one in config.deployments] == [
        ("llama-70b", "openai", "http://big:5000", BIG),
        ("llama-8b", "ollama", "http://small:11434", "llama3.1:8b"),
        ("qwen-14b", "ollama", "http://small:11434", "qwen2.5:14b"),
        ("embed", "ollama", "http://small:11434", "nomic-embed-text"),
        ("llama-8b", "ollama", "http://quiet:11434", "llama3.1:8b"),
        ("embed", "ollama", "http://quiet:11434", "nomic-embed-text"),
    ]
    assert dict(config.fallbacks) == {"llama-70b": ("qwen-14b", "llama-8b"), "qwen-14b": ("llama-8b",)}
    assert dict(config.aliases) == {"gpt-4": "llama-70b"}


def test_the_system_starts_tabbyapi_on_the_right_cards_and_not_for_ever(homelab: dict[str, str]) -> None:
    unit = homelab["tabby/tabby.service"]
    assert "WorkingDirectory=/opt/tabbyAPI" in unit
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in unit
    assert "RequiresMountsFor=/mnt/models" in unit
    assert "StartLimitIntervalSec=3120" in unit
    assert 'systemd.services."tabby"' in homelab["nixos/big.nix"]
    assert "CUDA_VISIBLE_DEVICES=-1" in homelab["ollama-cpu/ollama.service.d/hydra.conf"]


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    rest = """\
  vllm: {kind: openai, url: "http://box:8000"}
  ollama: {kind: ollama, url: "http://box", models: {o: {cache: q8}}}
  proxy: {kind: litellm, url: "http://box:4000"}
router: {strategy: sticky}
"""
    notes = fleet(tmp_path, "api_key: {file: k}, models: [unknown]", rest=rest).rendering("").notes
    assert [note.split(":")[0] for note in notes] == [
        "unknown on tabby has no configuration",
        "tabby has no unit",
        "ollama has one cache for all its models, OLLAMA_KV_CACHE_TYPE, which is not written here",
        "proxy finds the key of tabby in its environment, as TABBY_API_KEY",
        "vllm lists no models",
        "LiteLLM has no strategy 'sticky'",
    ]


def test_every_server_keeps_a_key_of_its_own_in_the_proxys_environment(tmp_path: Path) -> None:
    rest = """\
  a-b: {kind: openai, url: "http://box:1", models: [x], api_key: {file: one}}
  a_b: {kind: openai, url: "http://box:2", models: [y], api_key: {literal: sk-two}}
  c: {kind: openai, url: "http://box:3", models: [z], api_key: {env: A_B_API_KEY_2}}
  proxy: {kind: litellm, url: "http://box:4000"}
"""
    path = tmp_path / "hydra.yaml"
    path.write_text(f"servers:\n{rest}")
    path.chmod(0o600)
    text = Fleet.from_file(path).rendering("").files[0].text
    assert [line.split("/")[-1] for line in text.splitlines() if "api_key" in line] == [
        "A_B_API_KEY",
        "A_B_API_KEY_3",
        "A_B_API_KEY_2",
    ]


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be made"):
        Fleet.from_file(HOMELAB).render(tmp_path / "out")


def test_a_model_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="Llama-3.1-70B"):
        fleet(tmp_path, f"model_dir: /m, models: {{Llama-3.1-70B: {model('Llama-3.1-70B')}}}").render(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    one = model("Llama-3.1-8B").replace("{", "{name: ../../etc, ")
    with pytest.raises(ConfigError, match="would not lie in"):
        fleet(tmp_path, f"model_dir: /m, models: {{a: {one}}}").render(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_differs_is_shown_first_and_backed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["render", str(HOMELAB), str(out)]
    assert main(words) == 0
    assert "+model:" in capsys.readouterr().out
    config = out / "tabby" / "config.yml"
    written = config.read_text()
    assert main(words) == 0  # nothing differs: nothing to replace
    assert not list(out.rglob("*.bak*"))
    config.write_text(mine := written.replace("cache_size: 34816", "cache_size: 4096  # mine"))
    capsys.readouterr()
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "-  cache_size: 4096  # mine\n+  cache_size: 34816\n" in shown
    assert "nothing was written" in shown
    assert config.read_text() == mine
    assert main([*words, "--write"]) == 0
    assert (config.read_text(), config.with_name("config.yml.bak").read_text()) == (written, mine)
    assert [path.name for path in out.rglob("*.bak*")] == ["config.yml.bak"]


def test_a_file_that_changed_after_it_was_compared_is_left_alone(tmp_path: Path) -> None:
    made = Fleet.from_file(HOMELAB)
    made.render(tmp_path)
    config = tmp_path / "tabby" / "config.yml"
    config.write_text("old")
    rendering = made.rendering(tmp_path)
    config.write_text("new, by somebody else")
    with pytest.raises(ConfigError, match="has changed since it was read"):
        rendering.write()
    assert config.read_text() == "new, by somebody else"

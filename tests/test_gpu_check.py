"""The parts of `make gpu-check` that need no card: its steps, ledger, judgement, report, synthetic folders and processes."""

from __future__ import annotations

import json
import math
import struct
import sys
import textwrap
import time
import weakref
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu import check, judge, machine, memory, meter, packages, process, recipe, report, values, vocabulary, words
from gpu.ledger import Entry, Ledger
from gpu.meter import Lacking
from gpu.steps import LIMIT, STAGES, Step, all_steps, blocked_by, still_due
from synthetic import LLAMA_1B, exl3

import hydra_infer
from hydra_infer.units import GIB, MIB, Size

MADE = Step("model/a", "x.y", 10, made=("models/a/complete",))
USED = Step("memory/a", "x.y", 10, needs=("model/a",))
LAST = Step("speed/a", "x.y", 10, needs=("model/a",))


# ---- steps -------------------------------------------------------------------------------------------------------------


def test_every_step_ends_in_nine_minutes_and_needs_only_what_comes_before_it() -> None:
    steps = all_steps(wheels="wheels", real="some/model")
    before: set[str] = set()
    for step in steps:
        assert step.usual <= step.limit <= LIMIT < 9 * 60
        assert set(step.needs) <= before, step.name
        assert step.stage in STAGES
        before.add(step.name)
    assert len(before) == len(steps)
    assert {step.stage for step in steps} == set(STAGES)
    assert not any(step.stage == "real" for step in all_steps())


def test_every_job_is_a_function_that_takes_the_step_s_arguments() -> None:
    import inspect
    from importlib import import_module

    for step in all_steps(wheels="wheels", real="some/model"):
        name, _, function = step.job.partition(".")
        signature = inspect.signature(getattr(import_module(f"gpu.{name}"), function))
        signature.bind(Path(), **step.arguments)


def test_a_product_is_made_only_for_a_step_that_still_needs_it() -> None:
    steps = [MADE, USED, LAST]
    assert still_due(steps, set(), lambda _: False) == steps
    assert still_due(steps, {"model/a", "memory/a"}, lambda _: True) == [LAST]
    assert still_due(steps, {"model/a", "memory/a"}, lambda _: False) == [MADE, LAST]
    assert still_due(steps, {"model/a", "memory/a", "speed/a"}, lambda _: False) == []


def test_a_step_is_blocked_by_what_failed_however_far_back() -> None:
    entries = {"model/a": Entry("failed", 1.0)}
    further = Step("draft/a", "x.y", 10, needs=("memory/a",))
    unable = report.unable([MADE, USED, further], entries)
    assert unable == {"model/a", "memory/a", "draft/a"}
    assert blocked_by(USED, unable) == "model/a"
    assert blocked_by(MADE, unable) is None
    assert report.state_of(further, [MADE, USED, further], entries) == "not run: needs memory/a"


# ---- the ledger --------------------------------------------------------------------------------------------------------


def test_the_ledger_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    Ledger(tmp_path).put("memory/a", Entry("done", 3.0, {"judged": [{"term": "x", "within": False}]}))
    read = Ledger(tmp_path)
    assert read.done == {"memory/a"}
    assert read.entries["memory/a"].missed == [{"term": "x", "within": False}]
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]


def test_a_step_stopped_again_and_again_has_failed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(1, 6):
        entry = ledger.put("build/a", Entry("unfinished", 10.0))
        assert (entry.status, entry.tries, entry.seconds) == ("unfinished", number, 10.0 * number)
    assert ledger.put("build/a", Entry("unfinished", 10.0)).status == "failed"
    ledger.forget("build/a")
    assert ledger.put("build/a", Entry("done", 10.0)).tries == 1


@pytest.mark.parametrize(
    ("prefix", "gone"), [("memory", ["memory/a", "memory/b"]), ("memory/b", ["memory/b"]), ("failed", ["speed/a"]), ("mem", [])]
)
def test_steps_are_forgotten_by_name_by_stage_or_because_they_failed(tmp_path: Path, prefix: str, gone: list[str]) -> None:
    ledger = Ledger(tmp_path)
    for name in ("memory/a", "memory/b"):
        ledger.put(name, Entry("done", 1.0))
    ledger.put("speed/a", Entry("failed", 1.0))
    assert ledger.forget(prefix) == gone
    assert not set(gone) & Ledger(tmp_path).entries.keys()


# ---- judgement ---------------------------------------------------------------------------------------------------------


def test_bytes_are_judged_by_three_hundredths_or_300_mib() -> None:
    assert judge.bytes_row("x", 300 * MIB, 0)["within"]
    assert not judge.bytes_row("x", 301 * MIB, 0)["within"]
    assert judge.bytes_row("x", 103 * GIB, 100 * GIB)["within"]
    assert not judge.bytes_row("x", round(96.9 * GIB), 100 * GIB)["within"]
    assert judge.bytes_row("x", GIB, 2 * GIB)["off_bytes"] == -GIB


def test_a_bracket_is_met_by_what_lies_in_it() -> None:
    assert judge.bracket("overhead", 1, 2, 3, 3)["within"]
    assert not judge.bracket("overhead", 1, 2, 3, 4)["within"]


def test_the_engine_s_speed_is_a_share_of_the_raw_generator_s_median() -> None:
    row = judge.speeds("x", [100.0, 90.0, 500.0], [98.0, 99.0, 97.0])
    assert (row["raw_tps"], row["engine_tps"], row["ratio"], row["within"]) == (100.0, 98.0, 0.98, True)
    assert not judge.speeds("x", [100.0], [97.9])["within"]


def test_what_stays_after_the_first_unloading_may_stay_but_nothing_more() -> None:
    assert judge.returned("x", [0, GIB, GIB + 10 * MIB])["within"]
    assert judge.returned("x", [0, GIB, GIB])["kept_bytes"] == GIB
    assert not judge.returned("x", [0, GIB, 2 * GIB, GIB])["within"]


def test_the_cost_of_a_draft_is_the_planner_s_formula_the_other_way_round() -> None:
    from hydra_infer.planner.draft import speedup

    gain = speedup(4, 0.7, 0.2)
    assert judge.cost_of_a_draft(50.0, 50.0 * gain, 4, 0.7) == pytest.approx(0.2)


def test_the_speed_constants_come_back_from_speeds_made_of_them() -> None:
    fixed, share, rate = 40e-6, 0.7, 3.35e12
    rows = [
        {"layers": n, "bytes": size, "bandwidth": rate, "seconds": n * fixed + size / (share * rate)}
        for n, size in ((16, 0.7e9), (32, 4.5e9), (80, 22e9))
    ]
    found = judge.pace(rows)
    assert found["layer_s"] == pytest.approx(fixed)
    assert found["efficiency"] == pytest.approx(share)
    assert found["worst_off"] < 1e-9


def test_memory_is_compared_term_by_term_and_what_is_left_is_overhead() -> None:
    from hydra_infer.planner.usage import DeviceUse, Range

    overhead = Range(Size(100), Size(200), Size(300))
    card = hydra_infer.Gpu("RTX 4090")
    use = DeviceUse(card, weights=Size(1000), cache=Size(500), transient=Size(50), overhead_range=overhead)
    torch_bytes = {"peak_allocated_bytes": 1600, "allocated_bytes": 1540}
    parts = {"weights": 1000, "cache": 500, "state": 0}
    rows = {row["term"]: row["actual_bytes"] for row in memory.compared(use, overhead, parts, torch_bytes, 1800)}
    working = "working memory of the longest prompt"
    assert rows == {"weights": 1000, "cache": 500, working: 60, "everything": 1800, "overhead": 240}
    rows = {row["term"]: row for row in memory.compared(use, overhead, None, torch_bytes, 1800)}
    assert rows["weights, cache and working memory"]["off_bytes"] == -50
    assert rows["everything"]["predicted_bytes"] == 1750
    assert rows["overhead"]["actual_bytes"] == 200


# ---- the report --------------------------------------------------------------------------------------------------------


def test_the_report_names_what_failed_what_missed_its_goal_and_what_did_not_run() -> None:
    missed = {"judged": [judge.bytes_row("weights", GIB, 2 * GIB)], "facts": {"load_s": 1.5, "free_bytes": GIB, "rounds": [1]}}
    entries = {"model/a": Entry("done", 4.0), "memory/a": Entry("done", 5.0, missed)}
    text = report.markdown([MADE, USED, LAST], entries)
    assert "1 outside a goal (memory/a); 1 not run" in text
    assert "| memory/a | done, 1 outside the goal | 5 |" in text
    assert "| weights | 1.0 GiB | 2.0 GiB | -1.0 GiB (-50.0%) | MISSED |" in text
    assert "- load s: 1.5\n- free: 1.0 GiB" in text
    assert "rounds" not in text
    failed = report.markdown([MADE, USED], {"model/a": Entry("failed", 1.0, error="no room\nat all")})
    assert "1 failed (model/a: at all); 1 not run" in failed
    assert "```\nno room\nat all\n```" in failed


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ({}, 3),
        ({"memory/a": Entry("done", 1.0)}, 3),
        ({"memory/a": Entry("done", 1.0), "speed/a": Entry("done", 1.0)}, 0),
        ({"memory/a": Entry("unfinished", 1.0), "speed/a": Entry("done", 1.0)}, 3),
        ({"memory/a": Entry("failed", 1.0)}, 1),
        ({"memory/a": Entry("done", 1.0, {"judged": [{"within": False}]}), "speed/a": Entry("done", 1.0)}, 1),
    ],
)
def test_the_exit_status(entries: dict[str, Entry], status: int) -> None:
    assert report.outcome([MADE, USED, LAST], entries) == status


def test_three_models_give_the_speed_constants() -> None:
    rows = [{"format": "exl3", "layers": n, "bytes": n * n, "bandwidth": 1, "seconds": n + n * n} for n in (1, 2, 3)]
    entries = {f"speed/{row['layers']}": Entry("done", 1.0, {"facts": {"pace": row}}) for row in rows}
    assert report.plain([], entries)["pace"].keys() == {"exl3"}
    entries.popitem()
    assert report.plain([], entries)["pace"] == {}


# ---- synthetic folders -------------------------------------------------------------------------------------------------

TINY = LLAMA_1B | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": 384}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 2}


def _header(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _halves(header: dict[str, Any], data: bytes, name: str) -> tuple[float, ...]:
    begin, end = header[name]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 2}e", data[begin:end])


def test_values_are_finite_codes_are_random_and_scales_keep_the_size_of_a_layer(tmp_path: Path) -> None:
    path = exl3(tmp_path / "m", TINY, 4.0) / "model.safetensors"
    before = path.stat().st_size
    written = values.fill(path, says=97)
    header, data = _header(path)
    assert path.stat().st_size == before
    assert written == len(data)
    base = "model.layers.0.mlp.down_proj"
    assert set(_halves(header, data, f"{base}.suh")) == {1.0}
    assert set(_halves(header, data, f"{base}.svh")) == {1 / 16}
    assert set(_halves(header, data, "model.norm.weight")) == {1.0}
    begin, end = header[f"{base}.mul1"]["data_offsets"]
    assert struct.unpack("<I", data[begin:end]) == (values.MUL1,)
    begin, end = header[f"{base}.trellis"]["data_offsets"]
    assert len(set(data[begin:end])) == 256
    embedding = _halves(header, data, "model.embed_tokens.weight")
    assert all(map(math.isfinite, embedding))
    assert 0.98 < math.sqrt(sum(one * one for one in embedding) / len(embedding)) < 1.02


def test_the_head_says_one_token() -> None:
    header = {"lm_head.bias": {"shape": [300], "dtype": "F16"}}
    bias = struct.unpack("<300e", values.pattern_of("lm_head.bias", header, says=vocabulary.token_of("b")))
    assert [token for token, one in enumerate(bias) if one] == [ord("b")]


def test_the_groups_of_an_exl2_matrix_cover_its_rows() -> None:
    entries = {name: {"dtype": dtype, "shape": shape} for name, dtype, shape in recipe.exl2_entries(TINY)}
    for base, bits in (("model.layers.0.mlp.down_proj", 4), ("lm_head", 6)):
        pattern = values.pattern_of(f"{base}.q_groups", entries)
        assert isinstance(pattern, bytes)
        found = struct.unpack(f"<{len(pattern) // 2}H", pattern)
        rows, packed = entries[f"{base}.q_invperm"]["shape"][0], entries[f"{base}.q_weight"]["shape"][0]
        assert set(found[::2]) == {bits}
        starts = [*found[1::2], packed]
        assert [(end - start) * 32 // bits for start, end in pairwise(starts)] == [128] * (rows // 128)


def test_a_made_folder_is_read_by_the_planner_and_is_complete_last(tmp_path: Path) -> None:
    folder = recipe._fresh(tmp_path, "tiny")
    recipe.finish(folder, dict(TINY), list(recipe.exl2_entries(TINY)), says=None)
    names = {path.name for path in folder.iterdir()}
    assert names == {"complete", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    plan = hydra_infer.plan(folder, gpus=["RTX 4090"], context=1024)
    assert plan.request.spec.format == "exl2"
    config = json.loads((folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (382, 383)


def test_a_text_has_as_many_tokens_as_ascii_characters(tmp_path: Path) -> None:
    vocabulary.write(tmp_path, 300)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    vocab = told["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(300))
    assert (vocab["a"], vocab["Ġ"], vocab["</s>"]) == (97, 32, 299)
    assert words.letters(50, seed=1) == words.letters(50, seed=1) != words.letters(50, seed=2)
    assert {chr(one) for one in words.letters(500, seed=1)} <= vocab.keys()


# ---- processes and the program -----------------------------------------------------------------------------------------


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps whose process runs this text instead: `outcome` is where the result goes, `job` what was asked."""

    def script(text: str) -> Path:
        head = "import json, os, pathlib, signal, subprocess, sys, time\nstate, outcome = map(pathlib.Path, sys.argv[1:3])\n"
        (tmp_path / "child.py").write_text(head + "job = json.loads(sys.argv[3])['job']\n" + textwrap.dedent(text))
        return tmp_path / "state"

    monkeypatch.setattr(process, "HERE", tmp_path)
    return script


def test_a_step_s_result_its_silence_and_its_own_error_are_told_apart(scripted: Any) -> None:
    state = scripted(
        "if job == 'good': outcome.write_text('{\"facts\": {\"a\": 1}}')\nelif job == 'bad': print('so it ends'); sys.exit(7)"
    )
    assert process.perform(Step("memory/a", "good", 1), state, 30, {}).found == {"facts": {"a": 1}}
    silent = process.perform(Step("memory/b", "bad", 1), state, 30, {})
    assert silent.status == "failed"
    assert silent.error == "the process ended with 7 and no result\nso it ends\n"
    state = scripted("outcome.write_text(json.dumps({'error': 'no card'}))")
    assert process.perform(Step("memory/c", "x", 1), state, 30, {}).error == "no card"


def _runs(pid: str) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # what has ended and was not asked for has none
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_step_out_of_time_ends_with_all_that_it_started(scripted: Any) -> None:
    state = scripted(
        """
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        (state / 'pid').write_text(str(child.pid))
        time.sleep(60)
        """
    )
    entry = process.perform(Step("memory/a", "x", 1, limit=60), state, 0.5, {})
    assert (entry.status, entry.tries) == ("unfinished", 1)
    pid = (state / "pid").read_text()
    ends_at = time.monotonic() + 10  # a signal that was sent is not yet a process that is gone
    while _runs(pid) and time.monotonic() < ends_at:
        time.sleep(0.02)
    assert not _runs(pid)
    assert process.perform(Step("memory/a", "x", 1, limit=0), state, 0, {}).status == "failed"
    assert process.perform(Step("build/a", "x", 1, limit=0, resumes=True), state, 0, {}).status == "unfinished"


def test_steps_find_what_was_built_and_nothing_of_ours_hides_a_package(tmp_path: Path) -> None:
    found = process.environment(tmp_path, {"PYTHONPATH": "mine", "CUDA_VISIBLE_DEVICES": "2"})
    paths = found["PYTHONPATH"].split(":")
    assert paths[-1] == "mine"
    assert str(tmp_path / "ext" / "exllamav3_ext") in paths
    assert not any(path.endswith("tests") for path in paths)
    assert found["CUDA_VISIBLE_DEVICES"] == "2"
    assert process.environment(tmp_path, {})["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_program_goes_on_after_a_failure_stops_in_time_and_reports(
    scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = scripted("outcome.write_text(json.dumps({'error': 'broken'} if job == 'bad' else {'facts': {}}))")
    out = tmp_path / "out"
    steps = [
        Step("machine", "good", 1), Step("memory/a", "bad", 1), Step("memory/b", "good", 1, needs=("memory/a",)),
        Step("memory/c", "good", 1), Step("speed/long", "good", 500),
    ]  # fmt: skip
    monkeypatch.setattr(check, "all_steps", lambda **_: steps)
    monkeypatch.setenv("OUT", str(out))
    assert check.main(["--state", str(state), "--minutes", "1"]) == 1
    said = capsys.readouterr().out
    assert "no time left for speed/long" in said
    told = json.loads((out / "report.json").read_text())
    assert {name: row["state"] for name, row in told["steps"].items()} == {
        "machine": "done",
        "memory/a": "failed",
        "memory/b": "not run: needs memory/a",
        "memory/c": "done",
        "speed/long": "not run",
    }
    assert (state / "report.md").read_text() == (out / "report.md").read_text()
    scripted("outcome.write_text('{}')")
    assert check.main(["--state", str(state), "--minutes", "1", "--again", "failed"]) == 3
    assert Ledger(state).done == {"machine", "memory/a", "memory/b", "memory/c"}
    assert "memory/c" not in capsys.readouterr().out  # what is done is not done again
    with pytest.raises(SystemExit, match="2"):
        check.main(["--state", str(state), "--again", "memroy"])
    assert "no step and no stage is called memroy" in capsys.readouterr().err
    assert check.main(["--state", str(state), "--list"]) == 3
    assert "memory/b" in capsys.readouterr().out


def test_a_machine_that_lacks_something_is_one_line_and_nothing_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program itself, as it is: this machine has no CUDA device, or its Python no torch."""
    monkeypatch.delenv("OUT", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert check.main(["--state", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("machine ")
    assert "no CUDA device" in line or "torch is not installed" in line
    assert {path.name for path in tmp_path.iterdir()} == {"ledger.json", "log", "report.md", "report.json"}
    assert list(Ledger(tmp_path).entries) == ["machine"]


class Card:
    """torch and NVML as far as they are asked here, over one card of 8 GiB of which a context takes 300 MiB."""

    memory = 8 * GIB

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[int, int] = {}
        error = type("OutOfMemoryError", (RuntimeError,), {})
        cuda = SimpleNamespace(
            OutOfMemoryError=error, is_available=lambda: True, synchronize=lambda: None, empty_cache=lambda: None,
            mem_get_info=lambda: (self.free, self.memory), get_device_capability=lambda: (9, 0),
        )  # fmt: skip
        torch = SimpleNamespace(__version__="2.11.0", version=SimpleNamespace(cuda="13.0"), cuda=cuda, uint8="uint8")
        torch.zeros = lambda _count, device: self.take(300 * MIB)
        torch.empty = lambda count, dtype, device: self.take(count)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", SimpleNamespace(CUDA_HOME=None))
        monkeypatch.setattr(meter.hydra_infer, "gpus", lambda: [hydra_infer.Gpu("H100", memory=8, free=self.free / GIB)])

    @property
    def free(self) -> int:
        return self.memory - sum(self.held.values())

    def take(self, count: int) -> Any:
        """A tensor's memory is given back with the tensor."""
        if count > self.free - 5 * MIB:
            raise sys.modules["torch"].cuda.OutOfMemoryError
        tensor = type("Tensor", (), {})()
        self.held[id(tensor)] = count
        weakref.finalize(tensor, self.held.pop, id(tensor))
        return tensor


def test_the_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch)
    monkeypatch.setattr(machine, "DISK", Size(0))
    facts = machine.look(tmp_path)["facts"]
    assert (facts["torch"], facts["capability"], facts["card"]) == ("2.11.0", "9.0", "H100 SXM")
    assert facts["memory_bytes"] == 8 * GIB
    assert json.loads(json.dumps(facts)) == facts


def test_a_card_is_filled_to_the_last_pieces_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    with meter.filled(left=0):
        assert card.free < 8 * MIB
    assert card.free == card.memory
    with pytest.raises(KeyError), meter.filled(left=64 * MIB):
        assert 64 * MIB <= card.free < 66 * MIB
        raise KeyError
    assert card.free == card.memory


def test_the_card_is_the_one_that_cuda_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [hydra_infer.Gpu("RTX 5090"), hydra_infer.Gpu("RTX 4090")]
    monkeypatch.setattr(meter.hydra_infer, "gpus", lambda: cards)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert meter.card() is cards[1]
    for number in ("2", "GPU-1234"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", number)
        with pytest.raises(Lacking, match="one of the 2 cards"):
            meter.card()


def test_remarks_say_what_later_steps_will_miss() -> None:
    facts = {
        "nvcc": "13.0",
        "compiler": "/usr/bin/g++",
        "ninja": None,
        "python_headers": True,
        "disk_free_bytes": 10 * GIB,
        "processes": ["vllm"],
    }
    ninja, disk, others = machine.remarks(facts)
    assert "no ninja" in ninja
    assert "10.0 GiB of disk are free" in disk
    assert others.startswith("vllm on the card")
    facts |= {"ninja": "ninja", "disk_free_bytes": 64 * GIB, "processes": []}
    assert machine.remarks(facts) == []


def test_a_built_extension_travels_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    library = tmp_path / "state/ext/exllamav3_ext/exllamav3_ext.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(random.Random(1).randbytes(50_000))
    monkeypatch.setattr(packages, "PIECE", 20_000)
    (tmp_path / "out").mkdir()
    pieces = packages.keep(tmp_path / "state", tmp_path / "out")
    assert [piece.name for piece in pieces] == [f"exllamav3_ext.so.xz.{number:02}" for number in range(3)]
    (back,) = packages.unpack(tmp_path / "out", tmp_path / "other")
    assert back == tmp_path / "other/ext/exllamav3_ext/exllamav3_ext.so"
    assert back.read_bytes() == library.read_bytes()


def test_what_pip_cannot_install_is_said_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(Lacking, match="No matching distribution found for exllamav3"):
        packages.install(tmp_path, wheels=str(tmp_path))

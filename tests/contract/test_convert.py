"""What convert() runs, read by exllamav3's own argument parser and prepared by its own code, begun as well as resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import engine3  # noqa: F401 - puts stand-ins where the compiled extension is looked for
import pytest
import synthetic

from hydra_infer.ops.migrate import prepare
from hydra_infer.ops.migrate.conversion import resumes
from hydra_infer.ops.migrate.converter import MODULE, RATES, read_line

SMALL = synthetic.LLAMA_1B | {"num_hidden_layers": 2}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return synthetic.plain(tmp_path / "Tiny-1B", SMALL)


def converter() -> Any:
    from exllamav3.conversion import convert_model

    return convert_model


def parsed(command: tuple[str, ...]) -> Any:
    """The arguments as the converter has them; an unknown one ends the program."""
    assert command[1:3] == ("-m", MODULE) == ("-m", converter().__name__)
    return converter().parser.parse_args(command[3:])


def test_a_new_conversion_is_what_was_asked_for(original: Path, tmp_path: Path) -> None:
    found = prepare(original, tmp_path / "out", rate=3.5, devices=(1, 0))
    arguments, job, good, error = converter().prepare(parsed(found.command))
    assert good, error
    assert job["next_module_idx"] == 0
    asked = {name: arguments[name] for name in ("in_dir", "out_dir", "work_dir", "bits", "devices", "codebook", "head_bits")}
    assert asked == {
        "in_dir": str(original),
        "out_dir": str(tmp_path / "out"),
        "work_dir": str(tmp_path / "out.work"),
        "bits": 3.5,
        "devices": "1,0",
        "codebook": "mul1",  # which the half rates need
        "head_bits": 6,
    }
    assert (arguments["cal_rows"], arguments["cal_cols"]) == (250, 2048)  # what the disk is reckoned by


def test_a_resumed_one_is_the_same(original: Path, tmp_path: Path) -> None:
    options = {"rate": 4.0, "devices": (2, 3)}
    first, *_ = converter().prepare(parsed(prepare(original, tmp_path / "out", **options).command))
    again = prepare(original, tmp_path / "out", **options)
    assert again.resumes
    assert "-r" in again.command
    second, _, good, error = converter().prepare(parsed(again.command))
    assert good, error
    changed = {name for name in first | second if first.get(name) != second.get(name)} - {"clear_files"}
    assert changed == set()


def test_the_model_that_is_converted_on_a_card_is_one_for_the_converter(tmp_path: Path) -> None:
    """What `make gpu-check` converts: built by the engine, every matrix with a rate, as many bits as were asked for."""
    from exllamav3.conversion.allocation import create_q_strategy
    from gpu.convert import original as small

    folder = small(tmp_path)
    found = prepare(folder, tmp_path / "out", rate=4.0)
    arguments, *_ = converter().prepare(parsed(found.command))
    config, model, mtp, vision, *_ = converter().get_base_model(arguments)
    assert (mtp, vision) == (None, None)
    rates, total = create_q_strategy(model, None, config, 4.0, 6, 4, 0, half_steps=True)
    assert len(rates) == 4 * 7 + 1
    assert total == pytest.approx(4.0, abs=0.1)


def test_its_job_file_is_read_as_it_writes_it(original: Path, tmp_path: Path) -> None:
    work, out = tmp_path / "out.work", tmp_path / "out"
    converter().prepare(parsed(prepare(original, out, rate=2.5).command))
    assert json.loads((work / "args.json").read_text())["bits"] == 2.5
    assert resumes(work, original, out, 2.5)


def test_the_rates_are_its_own() -> None:
    from exllamav3.conversion.allocation import rate_floor, rate_next

    rates = [1.0]
    while rates[-1] < 8:
        rates.append(float(rate_next(rates[-1], True)))
    assert tuple(reversed(rates)) == RATES
    assert [rate_floor(rate, True) for rate in RATES] == list(RATES)


def test_a_new_one_that_lacks_something_is_refused_as_we_expect() -> None:
    *_, good, error = converter().prepare(converter().parser.parse_args(["-i", "a", "-o", "b", "-b", "4"]))
    assert not good
    assert read_line(f" !! Error: {error}").error == error


def test_what_it_prints_of_a_layer_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    class Names:
        def max_key_len(self) -> int:
            return 20

    class Config:
        stc = Names()

    class Layer:
        key, num_slices, first_block_idx = "model.layers.7", 1, 0
        modules = tuple(range(20))

    module = converter()
    module.feedback_module([1], Layer(), Config(), 4.0, 0.1, 0.1, 30.0, 2.0)
    for _ in range(3):
        module.feedback_eta(9, Layer(), 400.0)
    lines = [read_line(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].done == 8
    assert lines[-1].left is not None
    assert "minute" in lines[-1].left or "hour" in lines[-1].left

"""Convert: the right words, the rate that fits, what is refused and with which advice, progress, and going on after an end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic
from ops.migrate.fake_converter import fake_python

from hydra_infer import ConfigError, DoesNotFit, HydraError, UnknownModel, plan
from hydra_infer.ops.migrate import convert, prepare
from hydra_infer.ops.migrate.conversion import base_name
from hydra_infer.ops.migrate.converter import RATES, Line, read_line

# Its copies are written out, holes and all.
SMALL = synthetic.LLAMA_1B | {"num_hidden_layers": 3, "intermediate_size": 1024, "vocab_size": 1024}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return synthetic.plain(tmp_path / "Tiny-1B", SMALL)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return synthetic.exl3(tmp_path / "made", SMALL, 4.0)


def test_the_rate_is_the_largest_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**50))
    big = synthetic.plain(tmp_path / "Llama-3.1-70B", synthetic.LLAMA_70B)
    cards = ["RTX 5090", "RTX 4090"]
    found = prepare(big, tmp_path / "out", gpus=cards, context="16k")
    rates = {
        rate: plan(big / "config.json", bpw=rate, format="exl3", gpus=cards, context="16k", engine="tabby").fits for rate in RATES
    }
    best = max(rate for rate, fits in rates.items() if fits)
    assert 1 < best < 8
    assert found.rate == best
    assert found.plan is not None
    assert found.plan.fits
    # 250 rows of 2048 tokens with 8192 elements of 4 bytes, three times, beside the model.
    assert found.needed[f"{tmp_path / 'out'}.work"] - found.needed[str(tmp_path / "out")] == 3 * 250 * 2048 * 8192 * 4


def test_the_words(original: Path, tmp_path: Path) -> None:
    found = prepare(original, tmp_path / "out", rate=3.5, devices=(0, 2), python="/opt/venv/bin/python")
    assert found.command == (
        "/opt/venv/bin/python",
        "-m",
        "exllamav3.conversion.convert_model",
        "-w",
        str(tmp_path / "out.work"),
        "-d",
        "0,2",
        "-i",
        str(original),
        "-o",
        str(tmp_path / "out"),
        "-b",
        "3.5",
    )
    assert not (tmp_path / "out.work").exists()  # nothing was changed


def test_it_runs_tells_how_far_it_is_and_is_not_run_again(original: Path, made: Path, tmp_path: Path) -> None:
    python, calls, _ = fake_python(tmp_path, made, layers=3)
    told: list[tuple[float, str]] = []
    options = {"rate": 4.0, "python": python}
    done = convert(original, tmp_path / "out", progress=lambda part, words: told.append((part, words)), **options)
    assert done.done
    assert (tmp_path / "out" / "config.json").is_file()
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert "2 of 3 layers, 1 hour, 3 minutes to go" in [words for _, words in told]
    assert "All done" in (tmp_path / "out.work" / "convert.log").read_text()
    assert convert(original, tmp_path / "out", progress=False, **options).done
    assert len(calls.read_text().splitlines()) == 1


def test_what_was_stopped_goes_on_from_its_checkpoint(original: Path, made: Path, tmp_path: Path) -> None:
    python, calls, stop = fake_python(tmp_path, made, layers=3)
    stop.write_text("1")
    options = {"rate": 4.0, "devices": (1, 0), "python": python, "progress": False}
    with pytest.raises(HydraError, match="CUDA out of memory"):
        convert(original, tmp_path / "out", **options)
    assert convert(original, tmp_path / "out", **options).resumes
    _, again = map(json.loads, calls.read_text().splitlines())
    # Without its devices the converter would go on with the first card alone.
    assert again == ["-m", "exllamav3.conversion.convert_model", "-w", str(tmp_path / "out.work"), "-d", "1,0", "-r"]
    log = (tmp_path / "out.work" / "convert.log").read_text()
    assert [log.count(f"model.layers.{layer}      bpw") for layer in range(3)] == [1, 1, 1]


def test_what_was_begun_is_finished_at_its_rate_whatever_is_free_by_now(original: Path, made: Path, tmp_path: Path) -> None:
    python, _, stop = fake_python(tmp_path, made, layers=3)
    stop.write_text("0")
    with pytest.raises(HydraError, match="status 1"):
        convert(original, tmp_path / "out", gpus=["RTX 4090"], python=python, progress=False)
    less = {"gpus": ["RTX 3050"], "context": "4m", "cache": "q4", "python": python}
    again = prepare(original, tmp_path / "out", **less)
    assert (again.rate, again.resumes) == (8.0, True)
    assert convert(original, tmp_path / "out", progress=False, **less).done
    shutil.rmtree(tmp_path / "out.work")
    assert prepare(original, tmp_path / "out", **less).rate == pytest.approx(4.0)  # what lies there


@contextlib.contextmanager
def held(original: Path, python: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, whose converter has begun and waits until "hold" is opened."""
    os.mkfifo(folder / "hold")
    words = ["migrate", "convert", str(original), str(folder / "out"), "--rate", "4", "--python", python]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-m", "hydra_infer", *words], env=environment) as process:
        while not (folder / "out.work" / "ckpt" / "job.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        yield process


def test_killed_it_begins_none_beside_the_converter_that_it_leaves(original: Path, made: Path, tmp_path: Path) -> None:
    """The converter goes on until it has something to say and nobody to say it to; then the next call continues its work."""
    python, calls, _ = fake_python(tmp_path, made, layers=3)
    options = {"rate": 4.0, "python": python, "progress": False}
    with held(original, python, tmp_path) as process:
        process.kill()
    with pytest.raises(HydraError, match="is at work in"):
        convert(original, tmp_path / "out", **options)
    (tmp_path / "hold").write_text("")
    (tmp_path / "hold").unlink()
    ends_at, done = time.monotonic() + 30, None
    while done is None:
        assert time.monotonic() < ends_at
        with contextlib.suppress(HydraError):
            done = convert(original, tmp_path / "out", **options)
    assert done.resumes
    assert len(calls.read_text().splitlines()) == 2


def test_ended_by_sigterm_it_ends_its_converter(original: Path, made: Path, tmp_path: Path) -> None:
    python, calls, _ = fake_python(tmp_path, made, layers=3)
    with held(original, python, tmp_path) as process:
        process.terminate()
    assert process.returncode == 130
    (tmp_path / "hold").unlink()
    assert convert(original, tmp_path / "out", rate=4.0, python=python, progress=False).resumes
    assert len(calls.read_text().splitlines()) == 2


def test_killed_between_two_checkpoints_it_goes_on_from_the_newer(original: Path, made: Path, tmp_path: Path) -> None:
    """The converter renames the last one, then gives its name to the new one; between the two there is none of that name."""
    python, calls, stop = fake_python(tmp_path, made, layers=3)
    options = {"rate": 4.0, "python": python, "progress": False}
    stop.write_text("1")
    with pytest.raises(HydraError, match="status 1"):
        convert(original, tmp_path / "out", **options)
    work = tmp_path / "out.work"
    (work / "ckpt").rename(work / "ckpt_new")
    shutil.copytree(work / "ckpt_new", work / "ckpt_old")
    for emptied in (False, True):  # whoever runs the converter by hand then finds an empty folder made
        if emptied:
            (work / "ckpt").mkdir()
        assert prepare(original, tmp_path / "out", rate=4.0, python=python).resumes
        assert (work / "ckpt_new").is_dir()  # nothing was changed
    assert convert(original, tmp_path / "out", **options).resumes
    assert "-r" in json.loads(calls.read_text().splitlines()[-1])


def test_a_folder_that_was_not_written_to_its_end_is_not_done(original: Path, made: Path, tmp_path: Path) -> None:
    """Killed while it writes the folder, or one of its last files: the next call has it written again."""
    python, calls, _ = fake_python(tmp_path, made, layers=3)
    options = {"rate": 4.0, "python": python, "progress": False}
    convert(original, tmp_path / "out", **options)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    for torn in ("quantization_config.json", "config.json", "model.safetensors"):
        (tmp_path / "out" / "quantization_config.json").unlink()
        if torn != "quantization_config.json":
            (tmp_path / "out" / torn).write_bytes(whole[torn][:9])
        assert not prepare(original, tmp_path / "out", rate=4.0, python=python).done
        assert convert(original, tmp_path / "out", **options).resumes
        assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == whole
    assert len(calls.read_text().splitlines()) == 4
    (tmp_path / "out" / "quantization_config.json").write_text('{"bits":')
    assert not prepare(original, tmp_path / "out", rate=4.0, python=python).done


def test_another_conversions_work_folder_is_refused(original: Path, made: Path, tmp_path: Path) -> None:
    python, _, stop = fake_python(tmp_path, made, layers=3)
    stop.write_text("0")
    with pytest.raises(HydraError, match="status 1"):
        convert(original, tmp_path / "out", rate=4.0, python=python, progress=False)
    with pytest.raises(ConfigError, match="holds another conversion"):
        prepare(original, tmp_path / "out", rate=3.0, python=python)


def test_an_end_with_status_0_and_an_error_is_an_error(original: Path, made: Path, tmp_path: Path) -> None:
    python, _, _ = fake_python(tmp_path, made, layers=3, error="--bits must be between 1 and 8")
    with pytest.raises(HydraError, match="--bits must be between 1 and 8"):
        convert(original, tmp_path / "out", rate=4.0, python=python, progress=False)


def test_a_callers_error_in_its_progress_ends_the_converter(original: Path, made: Path, tmp_path: Path) -> None:
    python, _, _ = fake_python(tmp_path, made, layers=3)

    def stop(_: float, words: str) -> None:
        raise KeyboardInterrupt(words)

    with pytest.raises(KeyboardInterrupt):
        convert(original, tmp_path / "out", rate=4.0, python=python, progress=stop)
    assert convert(original, tmp_path / "out", rate=4.0, python=python, progress=False).done


def test_two_at_once_are_refused(original: Path, made: Path, tmp_path: Path) -> None:
    python, calls, _ = fake_python(tmp_path, made, layers=3)
    with held(original, python, tmp_path) as process:
        with pytest.raises(HydraError, match="is at work in"):
            convert(original, tmp_path / "out", rate=4.0, python=python, progress=False)
        (tmp_path / "hold").write_text("")
    assert process.returncode == 0
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", ["exl2", "exl3", "gptq", "config alone", "unknown"])
def test_what_cannot_be_converted_is_refused_with_what_to_fetch(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "Midnight-Miqu-70B-EXL2-2.5bpw"
    if kind == "exl2":
        synthetic.exl2(folder, SMALL, 4.0)
    elif kind == "exl3":
        synthetic.exl3(folder, SMALL, 4.0)
    elif kind == "gptq":
        synthetic.plain(folder, SMALL | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    elif kind == "unknown":
        synthetic.plain(folder, SMALL | {"architectures": ["Mamba99ForCausalLM"]})
    else:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises((UnknownModel, ConfigError)) as caught:
        prepare(folder, tmp_path / "out", rate=4.0)
    if kind in ("exl2", "gptq"):
        assert "fetch Midnight-Miqu-70B as its makers published it" in str(caught.value)
    assert list(tmp_path.iterdir()) == [folder]


def test_no_rate_that_fits_is_told(original: Path, tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="fits at no rate"):
        prepare(original, tmp_path / "out", gpus=["RTX 3050"], context="4m", cache="fp16")


def test_a_disk_too_small_is_told_before_anything_is_run(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(ConfigError, match=r"needs .* GiB on the disk of .*, and 1\.0 GiB are free"):
        prepare(original, tmp_path / "out", rate=4.0)


def test_a_folder_that_holds_something_else_is_refused(original: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holiday\.jpg"):
        prepare(original, tmp_path / "out", rate=4.0)
    (tmp_path / "out" / "model-00001-of-00030.safetensors").write_bytes(b"")  # a download that is not whole, say
    with pytest.raises(ConfigError, match=r"holiday\.jpg"):
        prepare(original, tmp_path / "out", rate=4.0)
    with pytest.raises(ConfigError, match="model that is hf"):
        prepare(original, synthetic.plain(tmp_path / "other", SMALL), rate=4.0)
    made = synthetic.exl3(tmp_path / "made", SMALL, 4.0)
    assert prepare(original, made, rate=4.0).done
    with pytest.raises(ConfigError, match=r"of 4\.00 bits per weight"):
        prepare(original, made, rate=3.5)
    with pytest.raises(ConfigError, match="of another model"):
        prepare(original, synthetic.exl3(tmp_path / "deeper", SMALL | {"num_hidden_layers": 4}, 4.0), rate=4.0)


@pytest.mark.parametrize("rate", [0.5, 9, float("nan")])
def test_a_rate_that_is_none_is_refused(original: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(ConfigError, match="is no rate of the converter"):
        prepare(original, tmp_path / "out", rate=rate)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (" -- Quantized: model.layers.11.self_attn.q_proj   bpw:  4.00  proxy_err: 0.000123  o.  g_sc: 0.9\n", Line(done=11)),
        (" -- Quantized: model.layers.11    bpw:  4.01  rfn: 0.000500  cos: 0.1  sqnr: 30.1  [12.10 s]\n", Line(done=12)),
        (" -- Quantized: model.language_model.layers.0    bpw:  4.01  [12.10 s]\n", Line(done=1)),
        (" -- Quantized: lm_head    bpw:  6.00  rfn: 0.1\n", Line()),
        (" -- Estimated remaining time: warming up (1/3 timed blocks)\n", Line()),
        (" -- Estimated remaining time: 2 hours, 4 minutes (avg over last 8 blocks)\n", Line(left="2 hours, 4 minutes")),
        (" !! Error: Must specify --work_dir\n", Line(error="Must specify --work_dir")),
        (" -- Saving checkpoint\n", Line()),
    ],
)
def test_its_lines(line: str, said: Line) -> None:
    assert read_line(line) == said


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Midnight-Miqu-70B-EXL2-2.5bpw", "Midnight-Miqu-70B"),
        ("Llama-3.1-70B-Instruct-4.0bpw-h6-exl2", "Llama-3.1-70B-Instruct"),
        ("Qwen2.5-72B-Instruct-GPTQ-Int4", "Qwen2.5-72B-Instruct"),
        ("Mistral-7B-v0.2-exl3-4.5bpw", "Mistral-7B-v0.2"),
        ("Llama-3.3-70B-Instruct", "Llama-3.3-70B-Instruct"),
        ("exl2", "exl2"),
    ],
)
def test_a_models_name_without_its_format(name: str, base: str) -> None:
    assert base_name(name) == base

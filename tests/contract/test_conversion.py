"""A model converted from beginning to end: exllamav3's own converter on a CPU, run, killed and continued by convert().

What stands in for a card, and for what is compiled, is kernels3; that it is sound is seen in the weights, which must come back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import converter3
import kernels3
import pytest
import torch
import trellis
from gpu import convert as check
from gpu import meter
from rig3 import CARDS, Rig

import hydra_infer
from hydra_infer import HydraError, migrate
from hydra_infer.models.folder import read_model
from hydra_infer.ops.doctor.folders import stored_rate

# As little as a Llama of whole blocks of 128 can be, so that a CPU has it in half a minute.
TINY = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
}

# Calibration is brief: the converter would take 250 rows of 2048 tokens.
BRIEFLY = ("-cr", "10", "-cc", "64")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TINY.items():
        monkeypatch.setitem(check.CONFIG, name, value)


def converter(folder: Path) -> str:
    return check.program(folder, converter3.__file__, more=BRIEFLY)


@pytest.mark.parametrize("rate", [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0])
def test_the_code_is_stored_and_read_as_it_is(rate: float) -> None:
    """Of any rate: what is packed has so many bits, comes back, and is about as far from the weights as a code must leave it."""
    tiles = torch.randn((8, trellis.TILE), generator=torch.Generator().manual_seed(1))
    windows = trellis.encode(tiles, rate)
    packed = trellis.pack(windows, rate)
    assert packed.shape[-1] * 16 == rate * trellis.TILE
    assert torch.equal(trellis.unpack(packed, rate), windows)
    left = (trellis.decode(windows) - tiles).square().mean()
    # No code of normal numbers is nearer than the first (Shannon); closing the ring costs some of 256 weights.
    assert 4**-rate < left < 4 * 4**-rate + 0.01


def test_killed_and_continued_it_is_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL once a layer is kept: the next call goes on with the second, and the folder is that of a run that was let be."""
    source, python = check.original(tmp_path), converter(tmp_path)
    whole = migrate.convert(source, tmp_path / "whole", rate=3.5, python=python, progress=False)
    out, work, killed = tmp_path / "out", tmp_path / "out.work", []

    def kill(_: float, message: str) -> None:
        if not killed and check.a_layer_is_kept(work):
            killed.append(message)
            os.kill(int((work / "pid").read_text()), signal.SIGKILL)

    with pytest.raises(HydraError, match="the converter ended with status -9"):
        migrate.convert(source, out, rate=3.5, python=python, progress=kill)
    assert not (out / "config.json").exists()
    done = migrate.convert(source, out, python=python, progress=False)  # the rate is the one that was begun with
    assert (whole.resumes, done.resumes, done.rate) == (False, True, 3.5)
    again = (work / "convert.log").read_text().partition("Resuming existing job")[2]
    assert "Resuming at: " in again
    assert "Quantized: model.layers.0" not in again
    names = {file.name for file in out.iterdir()}
    assert names == {file.name for file in whole.out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "quantization_config.json"} <= names
    assert [name for name in names if (out / name).read_bytes() != (whole.out / name).read_bytes()] == []
    _as_we_read_it(out, source, rate=3.5, monkeypatch=monkeypatch)


def _as_we_read_it(out: Path, source: Path, *, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the model room it is EXL3 of the rate asked for, to the planner what takes those bytes; and it is the original."""
    spec = read_model(out)
    assert (spec.format, stored_rate(spec)) == ("exl3", rate)
    planned = hydra_infer.plan(out, gpus=[CARDS[1]], context=2048)
    stored = sum(tensor.nbytes for tensor in spec.tensors.values())
    assert planned.fits
    assert planned.devices[0].weights + planned.host_use.weights == stored
    kernels3.install(monkeypatch.setattr)
    for mine, theirs in zip(_linears(source), _linears(out), strict=True):
        off = (mine - theirs).square().mean() / mine.square().mean()
        assert off < 0.1, "the weights that come back are those that went in"


def _linears(folder: Path) -> list[torch.Tensor]:
    """Every matrix of a folder, as exllamav3's own modules read and unpack it."""
    from exllamav3.modules import Linear

    return [part.inner.get_weight_tensor().float() for module in loaded(folder) for part in module if isinstance(part, Linear)]


def loaded(folder: Path) -> list[Any]:
    from exllamav3 import Config, Model

    modules: list[Any] = Model.from_config(Config.from_directory(str(folder))).modules
    for module in modules:
        module.load(torch.device("cpu"))
    return modules


class Weights:
    """A mind for the rig that has weights: what it says is what exllamav3's modules compute from a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._modules = folder, list[Any]()

    def says(self, ids: Sequence[int]) -> list[int]:
        self._modules = self._modules or loaded(self._folder)
        x, params = torch.tensor([list(ids)]), {"attn_mode": "flash_attn_nc"}
        for module in self._modules:
            x = module.forward(module.prepare_for_device(x, params), params)
        return [int(one) for one in x[0, -1].topk(3).indices]


def test_what_gpu_check_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole step: stopped by Ctrl-C, continued, not run again, loaded by an Engine; the answer is the weights'."""
    rig = Rig(tmp_path)
    rig.mind = Weights(tmp_path / "models" / "converted")  # type: ignore[assignment]
    kernels3.install(monkeypatch.setattr)
    monkeypatch.setattr(meter, "card", lambda: CARDS[0])
    with rig.installed(monkeypatch):
        found = check.convert(tmp_path, rate=4.0, python=converter(tmp_path))
    assert [row for row in found["judged"] if not row["within"]] == []
    assert [row["term"] for row in found["judged"]][-1] == "what it says"

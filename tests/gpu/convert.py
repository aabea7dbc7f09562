"""Convert: a small model of random weights through exllamav3's own converter, stopped and continued; what comes out answers."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra_infer
from hydra_infer import migrate
from hydra_infer.models.folder import read_model
from hydra_infer.ops.doctor.folders import stored_rate

from . import meter, recipe, vocabulary, words

__all__ = ["a_layer_is_kept", "convert", "original", "program"]

# The least that is a Llama: matrices of whole blocks of 128, and a vocabulary with every letter.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
}

SAYS = "a"

# How far the rate of what was made may be from what was asked for: the converter deals out whole bits.
OFF = 0.1


def convert(state: Path, *, rate: float, python: str | None = None) -> dict[str, Any]:
    """Stopped after its first layer, continued, asked for once more; loaded, it says what the original was made to say.

    `python` is a program() of another making.
    """
    source, out = original(state), state / "models" / "converted"
    for folder in (out, out.with_name(f"{out.name}.work")):
        shutil.rmtree(folder, ignore_errors=True)
    options: dict[str, Any] = {"rate": rate, "python": python or program(state)}
    stopped = _stopped(source, out, options)
    resumed = migrate.convert(source, out, progress=False, **options)
    log = (resumed.work / "convert.log").read_text(encoding="utf-8")
    goes_on = log.rpartition("Resuming at: ")[2].split("\n")[0] if "Resuming at: " in log else "its beginning"
    migrate.convert(source, out, progress=False, **options)
    same = (resumed.work / "convert.log").read_text(encoding="utf-8") == log
    made = stored_rate(read_model(out)) or 0.0
    with hydra_infer.load(hydra_infer.plan(out, gpus=[meter.card()], context=2048), progress=False) as engine:
        text = words.answer(engine, words.letters(300, 1), 16)["text"]
    judged = [
        _row("Ctrl-C after a layer", "stopped", stopped),
        _row("the next call continues", True, resumed.resumes),
        _row("at its checkpoint", "behind the first layer", goes_on) | {"within": goes_on != "its beginning"},
        _row("done, it is not run again", True, same),
        _row("bits per weight", rate, round(made, 3)) | {"within": abs(made - rate) <= OFF},
        _row("what it says", SAYS * 16, text),
    ]
    return {"judged": judged, "facts": {"command": " ".join(resumed.command)}}


def _row(term: str, expected: Any, found: Any) -> dict[str, Any]:
    return {"term": term, "expected": expected, "found": found, "within": found == expected}


def program(folder: Path, *before: str, more: Sequence[str] = ()) -> str:
    """The interpreter to be given as `python=`: its converter keeps a checkpoint after every layer, not every two minutes.

    `before` are words between the interpreter and those that it is given, `more` come after.
    """
    made = folder / "converter"
    words = (shlex.join([sys.executable, *before]), '"$@"', shlex.join(["-cpi", "0", *more]))
    made.write_text(f"#!/bin/sh\nexec {' '.join(words)}\n", encoding="utf-8")
    made.chmod(0o755)
    return str(made)


def original(state: Path) -> Path:
    """The unquantised model, of 16-bit weights."""
    folder = state / "models" / "original"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe.finish(folder, dict(CONFIG), list(_entries()), says=vocabulary.token_of(SAYS))
    return folder


def a_layer_is_kept(work: Path) -> bool:
    """Whether the last checkpoint is behind the first layer. Module 0 is the embedding."""
    try:
        return bool(json.loads((work / "ckpt" / "job.json").read_text(encoding="utf-8"))["next_module_idx"] > 1)
    except FileNotFoundError:
        return False  # none yet, or the new one is just being put in the last one's place


def _stopped(source: Path, out: Path, options: dict[str, Any]) -> str:
    """Ctrl-C as soon as a layer is kept: "stopped", or how it went on."""

    def tell(_: float, __: str) -> None:
        if a_layer_is_kept(out.with_name(f"{out.name}.work")):
            raise KeyboardInterrupt

    try:
        migrate.convert(source, out, progress=tell, **options)
    except KeyboardInterrupt:
        return "stopped"
    return "it went on to its end"


def _entries() -> Iterator[recipe.Entry]:
    """A Llama's tensors as it is published, and a bias on its head."""
    hidden, wide, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    q, kv = (CONFIG[heads] * CONFIG["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    yield "model.embed_tokens.weight", "F16", [vocab, hidden]
    for layer in range(CONFIG["num_hidden_layers"]):
        base = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{base}.{norm}.weight", "F16", [hidden]
        for part, columns, rows in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
            yield f"{base}.self_attn.{part}_proj.weight", "F16", [columns, rows]
        for part, columns, rows in (("gate", wide, hidden), ("up", wide, hidden), ("down", hidden, wide)):
            yield f"{base}.mlp.{part}_proj.weight", "F16", [columns, rows]
    yield "model.norm.weight", "F16", [hidden]
    yield "lm_head.weight", "F16", [vocab, hidden]
    yield "lm_head.bias", "F16", [vocab]

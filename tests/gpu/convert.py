"""Convert: a small model of random weights through exllamav3's own converter, stopped and continued; what comes out answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra_infer
from hydra_infer import migrate
from hydra_infer.models.folder import read_model
from hydra_infer.ops.doctor.folders import stored_rate

from . import meter, recipe, vocabulary, words

__all__ = ["convert", "original"]

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


def convert(state: Path, *, rate: float) -> dict[str, Any]:
    """Stopped after its first layer, continued, asked for once more; loaded, it says what the original was made to say."""
    source, out = original(state), state / "models" / "converted"
    for folder in (out, out.with_name(f"{out.name}.work")):
        shutil.rmtree(folder, ignore_errors=True)
    judged = [_stopped(source, out, rate)]
    resumed = migrate.convert(source, out, rate=rate, progress=False)
    judged.append({"term": "the next call continues", "expected": True, "found": resumed.resumes, "within": resumed.resumes})
    log = (resumed.work / "convert.log").read_bytes()
    migrate.convert(source, out, rate=rate, progress=False)
    same = (resumed.work / "convert.log").read_bytes() == log
    judged.append({"term": "done, it is not run again", "expected": True, "found": same, "within": same})
    made = stored_rate(read_model(out)) or 0.0
    judged.append({"term": "bits per weight", "expected": rate, "found": round(made, 3), "within": abs(made - rate) <= OFF})
    with hydra_infer.load(hydra_infer.plan(out, gpus=[meter.card()], context=2048), progress=False) as engine:
        text = words.answer(engine, words.letters(300, 1), 16)["text"]
    judged.append({"term": "what it says", "expected": SAYS * 16, "found": text, "within": text == SAYS * 16})
    return {"judged": judged, "facts": {"command": " ".join(resumed.command)}}


def original(state: Path) -> Path:
    """The unquantised model, of 16-bit weights."""
    folder = state / "models" / "original"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe.finish(folder, dict(CONFIG), list(_entries()), says=vocabulary.token_of(SAYS))
    return folder


def _stopped(source: Path, out: Path, rate: float) -> dict[str, Any]:
    """Ctrl-C, as soon as it tells of a layer that is done."""

    def tell(_: float, message: str) -> None:
        if not message.startswith("0 of"):
            raise KeyboardInterrupt

    try:
        migrate.convert(source, out, rate=rate, progress=tell)
        found = "it went on to its end"
    except KeyboardInterrupt:
        found = "stopped"
    return {"term": "Ctrl-C after a layer", "expected": "stopped", "found": found, "within": found == "stopped"}


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

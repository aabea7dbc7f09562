"""Make a synthetic model folder: a published configuration's shapes, values that run, a tokenizer. No download."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synthetic import sparse_safetensors

from . import values, vocabulary

__all__ = ["exl2", "exl2_entries", "exl3", "finish"]

CONFIGS = Path(__file__).resolve().parent.parent / "data" / "configs"

# ExLlamaV2 keeps scales for groups of so many rows; all weights at one rate, the head at its usual six bits.
GROUP, BITS, HEAD_BITS = 128, 4, 6

Entry = tuple[str, str, list[int]]


def exl3(state: Path, *, name: str, config: str, bits: float, says: str) -> dict[str, Any]:
    """An EXL3 folder as ExLlamaV3's converter would divide the bits, with its MTP head where the configuration has one.

    Every answer is the character `says`, over and over.
    """
    from . import shapes

    folder = _fresh(state, name)
    entries, changed = shapes.of(folder, _published(config), bits)
    vocab = next(shape[0] for key, _, shape in entries if key == "lm_head.svh")
    return finish(folder, changed, [*entries, ("lm_head.bias", "F16", [vocab])], says=vocabulary.token_of(says))


def exl2(state: Path, *, name: str, config: str) -> dict[str, Any]:
    """An EXL2 folder of a Llama, every weight at four bits. What it answers is noise."""
    found = _published(config)
    found |= {"head_dim": found["hidden_size"] // found["num_attention_heads"], "tie_word_embeddings": False}
    return finish(_fresh(state, name), found, list(exl2_entries(found)), says=None)


def finish(folder: Path, config: dict[str, Any], entries: list[Entry], *, says: int | None) -> dict[str, Any]:
    """Write everything into `folder`, `complete` last; tells sizes and seconds."""
    began = time.perf_counter()
    inner = config.get("text_config", config)
    size = inner["vocab_size"]
    for part in (config, inner):
        part |= {"bos_token_id": size - 2, "eos_token_id": size - 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary.write(folder, size)
    path = sparse_safetensors(folder / "model.safetensors", entries)
    written = values.fill(path, says=says)
    (folder / "complete").touch()
    return {"bytes": written, "write_s": round(time.perf_counter() - began, 1), "tensors": len(entries)}


def exl2_entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    """The tensors of a Llama in ExLlamaV2's format (names and shapes: exllamav2 0.3.2, conversion/compile.py)."""
    hidden, wide, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", "F16", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}"
        yield f"{base}.input_layernorm.weight", "F16", [hidden]
        yield f"{base}.post_attention_layernorm.weight", "F16", [hidden]
        for part, rows, columns in (("q", hidden, q), ("k", hidden, kv), ("v", hidden, kv), ("o", q, hidden)):
            yield from _exl2_linear(f"{base}.self_attn.{part}_proj", rows, columns, BITS)
        for part, rows, columns in (("gate", hidden, wide), ("up", hidden, wide), ("down", wide, hidden)):
            yield from _exl2_linear(f"{base}.mlp.{part}_proj", rows, columns, BITS)
    yield "model.norm.weight", "F16", [hidden]
    yield from _exl2_linear("lm_head", hidden, config["vocab_size"], HEAD_BITS)


def _exl2_linear(key: str, rows: int, columns: int, bits: int) -> Iterator[Entry]:
    groups = math.ceil(rows / GROUP)
    yield f"{key}.q_weight", "I32", [rows * bits // 32, columns]
    yield f"{key}.q_invperm", "I32", [rows]
    yield f"{key}.q_scale", "I32", [groups, columns // 8]
    yield f"{key}.q_scale_max", "F16", [groups]
    yield f"{key}.q_groups", "I16", [2 * groups]


def _fresh(state: Path, name: str) -> Path:
    folder = state / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _published(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return found

"""The published measurements as data, and what they mean for the planner's own functions."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_infer import Gpu, Plan
from hydra_infer.models.spec import Attention, Geometry, Layer, Mlp, ModelSpec, Recurrent, Tensor
from hydra_infer.planner.request import Request
from hydra_infer.planner.speed import Stage
from hydra_infer.units import MIB

DATA = Path(__file__).parent.parent / "data"
MEASURED = DATA / "measured"

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """The rows of one of the CSV files, as text by column."""
    with (MEASURED / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


MODELS = _json(MEASURED / "models.json")
FILES = _json(MEASURED / "files.json")


def geometry(model: str) -> Geometry:
    """The shape of a model the rows are about; none of their files is here."""
    shape = MODELS[model]
    if "config" in shape:
        return _hybrid(_json(DATA / "configs" / shape["config"])["text_config"])
    attention = Attention(shape["heads"], shape["kv_heads"], shape["head_dim"])
    layers = (Layer(attention, Mlp(shape["intermediate"])),) * shape["layers"]
    return Geometry("llama", shape["hidden"], shape["vocab"], layers)


def _hybrid(config: dict[str, Any]) -> Geometry:
    full = Attention(config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"], gate="query")
    linear = Recurrent(
        config["linear_num_key_heads"],
        config["linear_num_value_heads"],
        config["linear_key_head_dim"],
        config["linear_value_head_dim"],
        config["linear_conv_kernel_dim"],
        "split",
    )
    mlp = Mlp(config["intermediate_size"])
    kinds = {"full_attention": full, "linear_attention": linear}
    layers = tuple(Layer(kinds[kind], mlp) for kind in config["layer_types"])
    return Geometry("qwen35", config["hidden_size"], config["vocab_size"], layers)


@dataclass(frozen=True)
class Loaded:
    """Bytes of a file by what they are for: read at every token, the head among them, and the MTP layer's own."""

    read: float
    head: float
    mtp: float
    embedding: float


def elements(shape: Geometry) -> float:
    """Elements of the matrices of the layers; a gated query projection has the gate's columns too."""
    total = 0.0
    for layer in shape.layers:
        total += 3 * shape.hidden * layer.mlp.intermediate
        mixer = layer.attention
        if isinstance(mixer, Recurrent):
            total += shape.hidden * (mixer.channels + 2 * mixer.q_width + 2 * mixer.v_heads)
        else:
            queries = 3 if mixer.gate else 2
            total += shape.hidden * (queries * mixer.q_width + 2 * mixer.kv_width)
    return total


def loaded(model: str, file: str) -> Loaded:
    """What a quantised file of the model holds. EXL2 files are named by their bits per weight, their heads have 6."""
    shape = geometry(model)
    table = shape.hidden * shape.vocab
    if file not in FILES:
        head = table * 6 / 8
        return Loaded(elements(shape) * float(file) / 8 + head, head, 0.0, 2.0 * table)
    known = FILES[file]
    mtp = _mtp_elements(shape) if "config" in MODELS[model] else 0.0
    whole = known["bytes"] if "bytes" in known else (elements(shape) + 2 * table + mtp) * known["bits"] / 8
    embedding, drafts = table * known["embedding_bits"] / 8, mtp * known["mtp_bits"] / 8
    # llama.cpp gives the head of its 4-bit files 6.5625 bits (Q6_K); the larger files have one rate for all.
    return Loaded(whole - embedding - drafts, table * max(6.5625, known["embedding_bits"]) / 8, drafts, embedding)


def _mtp_elements(shape: Geometry) -> float:
    """One layer with full attention, and the matrix that joins two hidden states into one."""
    full = next(layer for layer in shape.layers if isinstance(layer.attention, Attention))
    return elements(Geometry("mtp", shape.hidden, shape.vocab, (full,))) + 2 * shape.hidden**2


def state_bytes(shape: Geometry) -> float:
    """llama.cpp's recurrent state of one sequence: 32-bit states and the last inputs of the convolution."""
    total = 0.0
    for layer in shape.layers:
        mixer = layer.attention
        if isinstance(mixer, Recurrent):
            total += 4 * (mixer.v_heads * mixer.k_dim * mixer.v_dim + (mixer.conv - 1) * mixer.channels)
    return total


def cards(names: str) -> list[Gpu]:
    return [Gpu(name) for name in names.split("+")]


# Bits per element of the caches in the rows, scales included.
CACHE_BITS = {"fp16": 16.0, "f16": 16.0, "q4_0": 4.5, "q8_0": 8.5}


def stages(row: Row, model: str) -> list[Stage]:
    """The Stages of a row. Cards share evenly where the row does not say how many MiB lay on each."""
    shape, held = geometry(model), loaded(model, row["file"])
    gpus = cards(row["gpus"])
    lie = [float(part) for part in row["shares"].split("+")] if row.get("shares") else [1.0] * len(gpus)
    shares = [part / sum(lie) for part in lie]
    bits = CACHE_BITS[row.get("cache") or "q4_0"]
    per_token = sum(2 * layer.attention.kv_width * bits / 8 for layer in shape.layers)
    weight_bits = 8 * held.read / (elements(shape) + shape.hidden * shape.vocab)
    count = len(shape.layers)
    return [
        Stage(
            bandwidth=gpu.bandwidth,
            capability=gpu.capability,
            weights=held.read * share,
            cache=per_token * float(row.get("filled") or 0) * share,
            state=2 * state_bytes(shape) * share,
            layers=count if row["split"] == "tensor" else round(count * share),
            bits=weight_bits,
            plain=bits == 16.0,
        )
        for gpu, share in zip(gpus, shares, strict=True)
    ]


def gguf_spec(model: str, file: str) -> ModelSpec:
    """The model as llama.cpp would read it: one tensor for each thing the planner tells apart."""
    shape, held = geometry(model), loaded(model, file)
    count = len(shape.layers)
    each = (held.read - held.head) / count
    sizes = {f"blk.{index}.attn_q.weight": each / 4 for index in range(count)}
    sizes |= {f"blk.{index}.ffn_up.weight": each * 3 / 4 for index in range(count)}
    sizes |= {"token_embd.weight": held.embedding, "output.weight": held.head, "output_norm.weight": 4.0 * shape.hidden}
    if held.mtp:
        sizes[f"blk.{count}.nextn.eh_proj.weight"] = held.mtp
    tensors = {name: Tensor(name, "q4_k", (1,), round(size)) for name, size in sizes.items()}
    return ModelSpec(f"{model} {file}", Path(file), "gguf", shape, tensors)


def llamacpp_plan(row: Row) -> Plan:
    """The planner's own plan for a row of llama.cpp."""
    drafted = int(row["draft_tokens"])
    return Plan.of(
        Request.of(
            gguf_spec(row["model"], row["file"]),
            gpus=cards(row["gpus"]),
            context=int(row["context"]),
            cache=row["cache"],
            reserve=0,
            draft="mtp" if drafted else None,
            draft_tokens=drafted or None,
            split=row["split"],
        )
    )


def likely(plan: Plan) -> float:
    """MiB of all cards, with the likely overhead."""
    return sum(use.loaded + use.overhead_range.likely for use in plan.devices) / MIB

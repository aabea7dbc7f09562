"""Models for tests: true headers over holes. A 35 GB model costs its header on disk and no time.

Tensor names and shapes are those exllamav3 1.6.5 and exllamav2 0.3.2 write; nothing in the data is ever read.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
LLAMA_1B = LLAMA_70B | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
QWEN3_235B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}

# What ExLlamaV2's manual split is compared on: with and without grouped queries, one card, several, and too little.
LLAMA_13B = LLAMA_70B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "vocab_size": 32000,
}
QWEN3_30B = QWEN3_235B | {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "num_experts": 32}
EXL2 = {
    "70b-3.5bpw": (LLAMA_70B, 3.5),
    "13b-4bpw": (LLAMA_13B, 4.0),
    "1b-4bpw": (LLAMA_1B, 4.0),
    "experts-4bpw": (QWEN3_30B, 4.0),
}
EXL2_CONTEXTS = ((4096, 1024), (32768, 2048))
EXL2_SPLITS = ((20, 20), (24, 16), (16, 24), (8, 4, 12), (5, 5), (2, 3), (2, 1.5))
EXL2_PARALLEL = (
    ((32, 24), "fp16"),
    ((32, 24), "q6"),
    ((24, 24, 12), "q4"),
    ((80, 16), "fp16"),
    ((44, 3), "q4"),
    ((12,) * 10, "fp16"),
)

Entry = tuple[str, str, list[int]]
BYTES = {"F16": 2, "BF16": 2, "I16": 2, "I32": 4, "F32": 4, "I64": 8}


def sparse_safetensors(path: Path, entries: Iterable[Entry]) -> Path:
    """A safetensors file whose header is complete and whose data is a hole."""
    header, offset = {}, 0
    for name, dtype, shape in entries:
        end = offset + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return path


def exl3(folder: Path, config: Mapping[str, Any], bits: float, head_bits: float = 6.0) -> Path:
    """An EXL3 folder with every linear at `bits` and the head at `head_bits`."""

    def linear(key: str, rows: int, columns: int, rate: float) -> Iterator[Entry]:
        yield f"{key}.suh", "F16", [rows]
        yield f"{key}.svh", "F16", [columns]
        yield f"{key}.trellis", "I16", [rows // 16, columns // 16, round(16 * rate)]
        yield f"{key}.mul1", "I32", []

    def entries() -> Iterator[Entry]:
        hidden = config["hidden_size"]
        yield "model.embed_tokens.weight", "F16", [config["vocab_size"], hidden]
        for key, rows, columns in _linears(config):
            yield from linear(key, rows, columns, bits)
        yield from _plain(config)
        yield from linear("lm_head", hidden, config["vocab_size"], head_bits)

    return _folder(folder, config | {"quantization_config": {"quant_method": "exl3", "bits": bits}}, entries())


def exl2(folder: Path, config: Mapping[str, Any], bits: float, head_bits: float = 6.03) -> Path:
    """An EXL2 folder: groups of 128 rows, scales counted within the bits per weight."""

    def linear(key: str, rows: int, columns: int, rate: float) -> Iterator[Entry]:
        columns = -(-columns // 32) * 32
        groups = -(-rows // 128)
        scales = groups * (16 + 32) + groups * columns * 4 + rows * 32
        packed = round(rows * (rate - scales / (rows * columns)) / 32)
        yield f"{key}.q_weight", "I32", [packed, columns]
        yield f"{key}.q_invperm", "I32", [rows]
        yield f"{key}.q_scale", "I32", [groups, columns // 8]
        yield f"{key}.q_scale_max", "F16", [groups]
        yield f"{key}.q_groups", "I16", [2 * groups]

    def entries() -> Iterator[Entry]:
        hidden = config["hidden_size"]
        yield "model.embed_tokens.weight", "F16", [config["vocab_size"], hidden]
        for key, rows, columns in _linears(config):
            yield from linear(key, rows, columns, bits)
        yield from _plain(config)
        yield from linear("lm_head", hidden, config["vocab_size"], head_bits)

    return _folder(folder, config, entries())


def plain(folder: Path, config: Mapping[str, Any], dtype: str = "BF16") -> Path:
    """A folder of unquantised weights; a tied head is left out, as such models are published."""

    def entries() -> Iterator[Entry]:
        hidden, vocab = config["hidden_size"], config["vocab_size"]
        yield "model.embed_tokens.weight", dtype, [vocab, hidden]
        for key, rows, columns in _linears(config):
            yield f"{key}.weight", dtype, [columns, rows]
        yield from _plain(config)
        if not config["tie_word_embeddings"]:
            yield "lm_head.weight", dtype, [vocab, hidden]

    return _folder(folder, config, entries())


def _folder(folder: Path, config: Mapping[str, Any], entries: Iterable[Entry]) -> Path:
    folder.mkdir(parents=True)
    sparse_safetensors(folder / "model.safetensors", entries)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def _linears(config: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    hidden, head = config["hidden_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}"
        yield f"{base}.self_attn.q_proj", hidden, q
        yield f"{base}.self_attn.k_proj", hidden, kv
        yield f"{base}.self_attn.v_proj", hidden, kv
        yield f"{base}.self_attn.o_proj", q, hidden
        wide = config.get("moe_intermediate_size") or config["intermediate_size"]
        for expert in range(config.get("num_experts", 0)) or [None]:
            mlp = f"{base}.mlp" if expert is None else f"{base}.mlp.experts.{expert}"
            yield f"{mlp}.gate_proj", hidden, wide
            yield f"{mlp}.up_proj", hidden, wide
            yield f"{mlp}.down_proj", wide, hidden


def _plain(config: Mapping[str, Any]) -> Iterator[Entry]:
    hidden = config["hidden_size"]
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}"
        yield f"{base}.input_layernorm.weight", "F16", [hidden]
        yield f"{base}.post_attention_layernorm.weight", "F16", [hidden]
        if "num_experts" in config:
            yield f"{base}.mlp.gate.weight", "F16", [config["num_experts"], hidden]
            yield f"{base}.self_attn.q_norm.weight", "F16", [config["head_dim"]]
            yield f"{base}.self_attn.k_norm.weight", "F16", [config["head_dim"]]
    yield "model.norm.weight", "F16", [hidden]


# ---- GGUF ------------------------------------------------------------------------------------------------------------

GGML = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144)}


def gguf_string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf_value(value: Any) -> bytes:
    """Type and value of one metadata entry: int, float, bool, str, and lists of str or int."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if value and isinstance(value[0], int):
        return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))


def gguf_bytes(metadata: Mapping[str, Any], tensors: Iterable[Entry], version: int = 3) -> tuple[bytes, int]:
    """The header, padded to where the data begins, and the size of the data."""
    listed, offset, table = list(tensors), 0, b""
    for name, kind, shape in listed:
        number, block, nbytes = GGML[kind]
        table += gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        table += struct.pack("<IQ", number, offset)
        offset += -(-math.prod(shape) // block * nbytes // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", version, len(listed), len(metadata))
    head += b"".join(gguf_string(key) + gguf_value(value) for key, value in metadata.items()) + table
    return head + bytes(-len(head) % 32), offset


def gguf(path: Path, config: Mapping[str, Any], kind: str = "q4_k", name: str = "llama", **extra: Any) -> Path:
    """A sparse GGUF file of the shape a config.json describes, every linear and the embedding of one type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, size = gguf_bytes(gguf_metadata(config, name) | extra, gguf_tensors(config, kind))
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    return path


def gguf_metadata(config: Mapping[str, Any], name: str = "llama") -> dict[str, Any]:
    return {
        "general.architecture": name,
        f"{name}.block_count": config["num_hidden_layers"],
        f"{name}.embedding_length": config["hidden_size"],
        f"{name}.feed_forward_length": config["intermediate_size"],
        f"{name}.attention.head_count": config["num_attention_heads"],
        f"{name}.attention.head_count_kv": config["num_key_value_heads"],
        f"{name}.attention.key_length": config["head_dim"],
        f"{name}.attention.value_length": config["head_dim"],
        f"{name}.context_length": config["max_position_embeddings"],
        f"{name}.vocab_size": config["vocab_size"],
    }


def gguf_tensors(config: Mapping[str, Any], kind: str) -> Iterator[Entry]:
    hidden = config["hidden_size"]
    yield "token_embd.weight", kind, [hidden, config["vocab_size"]]
    short = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    short |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for key, rows, columns in _linears(config):
        layer, last = key.split(".")[2], key.rsplit(".", 1)[1]
        yield f"blk.{layer}.{short[last]}.weight", kind, [rows, columns]
    for layer in range(config["num_hidden_layers"]):
        yield f"blk.{layer}.attn_norm.weight", "f32", [hidden]
        yield f"blk.{layer}.ffn_norm.weight", "f32", [hidden]
    yield "output_norm.weight", "f32", [hidden]
    if not config["tie_word_embeddings"]:
        yield "output.weight", kind, [hidden, config["vocab_size"]]

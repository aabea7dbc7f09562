"""Files that somebody else wrote: headers of models, their config.json, tokenizers, chat templates, and our own journals."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ops.bench import made_up
from synthetic import LLAMA_1B, QWEN3_235B, gguf_bytes, gguf_metadata

from hydra_infer.engines.sandbox import Refusal
from hydra_infer.engines.template import ChatTemplate
from hydra_infer.errors import HydraError
from hydra_infer.models import gguf, gguf_config, safetensors
from hydra_infer.models.config import geometry_of, quantization_of
from hydra_infer.models.strict_json import parse_object
from hydra_infer.models.tokenizer import compare
from hydra_infer.ops import bench, journal, orphan
from hydra_infer.ops.bench.journal import Journal as BenchFile
from hydra_infer.ops.bench.report import Report
from hydra_infer.ops.bench.steps import Setup
from hydra_infer.ops.bench.sweep import Lengths

from .target import Dice, Target, put

__all__ = ["TARGETS"]

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


def refused(error: HydraError) -> None:
    """A refusal says something, and does not repeat the file."""
    assert 0 < len(str(error)) < 3000, str(error)[:200]


def run_safetensors(data: bytes) -> None:
    """A file as it is, or its header and its data with a zero byte between them, the length put before."""
    dice = Dice(data, 1)
    if dice.below(2):
        header, _, rest = dice.rest.partition(b"\0")
        data = struct.pack("<Q", len(header)) + header + rest
    else:
        data = dice.rest
    try:
        tensors = safetensors.read_header(put("model.safetensors", data))
    except HydraError as error:
        return refused(error)
    length = int.from_bytes(data[:8], "little")
    assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data) - 8 - length
    assert tensors.keys() == json.loads(data[8 : 8 + length]).keys() - {"__metadata__"}
    return None


def run_gguf(data: bytes) -> None:
    path = put("model.gguf", data)
    try:
        header = gguf.read_header(path)
        assert sum(tensor.nbytes for tensor in header.tensors.values()) <= len(data)
        geometry = gguf_config.geometry_of(header, path)
    except HydraError as error:
        return refused(error)
    assert geometry.layers
    assert geometry.vocab > 0
    return None


def run_config(data: bytes) -> None:
    path = Path("config.json")
    try:
        config = parse_object(data, "config.json")
        quantization_of(config, path)
        geometry = geometry_of(config, path)
    except HydraError as error:
        return refused(error)
    assert 0 < len(geometry.layers) < 10_000
    assert min(geometry.hidden, geometry.vocab) > 0
    return None


def run_tokenizer(data: bytes) -> None:
    """Two tokenizer.json, a zero byte between them; either may stand for both."""
    first, _, second = data.partition(b"\0")
    specs: list[Any] = []
    for name, text in (("a", first), ("b", second or first)):
        folder = put(f"{name}.json", b"").with_suffix("")
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_bytes(text)
        specs.append(SimpleNamespace(name=name, path=folder, format="exl3", geometry=SimpleNamespace(vocab=9)))
    try:
        why, compared = compare(*specs)
    except HydraError as error:
        return refused(error)
    assert compared
    assert why is None or first != (second or first)
    return None


def run_template(data: bytes) -> None:
    """The files that a chat template may stand in, by name; then a chat is written by it."""
    try:
        files = json.loads(data)
    except (ValueError, RecursionError):
        files = {}
    folder = put("template", b"").with_suffix(".folder")
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer_config.json", "chat_template.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
        if isinstance(files, dict) and name in files:
            text = files[name] if isinstance(files[name], str) else json.dumps(files[name])
            (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    if not isinstance(files, dict) or not files:
        (folder / "tokenizer_config.json").write_bytes(data)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        template = ChatTemplate.read(folder)
        if template is not None:
            for options in ({}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"continue_final_message": True}):
                assert isinstance(template.render(chat, **options), str)
    except HydraError as error:
        refused(error)
    except Refusal:
        raise AssertionError("a refusal came out raw") from None


def run_journal(data: bytes) -> None:
    """The journals of jobs and of benches, and prestart's record."""
    try:
        jobs = journal.replay(data)
        assert all(set(job.left(("a", "b"))) <= {"a", "b"} for job in jobs)
        assert all(job.doing is None or job.doing in job.begun for job in jobs)
    except HydraError as error:
        refused(error)
    path = put("bench.jsonl", data)
    try:
        run = BenchFile(path, Setup)
        if run.setup is not None:
            bench.steps.steps(run.setup)
            run.begin(run.setup)
            assert BenchFile(path, Setup).results == run.results
    except HydraError as error:
        refused(error)
    try:
        swept = BenchFile(path, Lengths)
        if swept.setup is not None:
            swept.begin(swept.setup)
            assert BenchFile(path, Lengths).results == swept.results
    except HydraError as error:
        refused(error)
    try:
        orphan.recorded(put("record", data))
    except HydraError as error:
        refused(error)


def run_report(data: bytes) -> None:
    """A bench's report as it was kept, said again in every way."""
    try:
        report = Report.from_json(data.decode("utf-8", "replace"))
        again = Report.from_json(report.to_json())
    except HydraError as error:
        return refused(error)
    assert repr(again.to_dict()) == repr(report.to_dict())
    assert str(report)
    assert ("<svg" in report.to_html()) is bool(report.comparisons)
    return None


def starts_report() -> list[bytes]:
    small = replace(made_up.SETUP, kinds=("chat",), parallel=(1,), repetitions=6)
    report = made_up.report(small, factor=1.2, noise=0.1)
    # What is computed again when it is read need not be there.
    kept = {name: report.to_dict()[name] for name in ("setup", "minimum", "results")}
    return [json.dumps(kept).encode(), report.to_json(None).encode()]


def starts_safetensors() -> list[bytes]:
    def made(data: int = 0, **tensors: Any) -> bytes:
        text = json.dumps(tensors).encode()
        return b"\1" + text + b"\0" + bytes(data)

    return [
        b"\0" + struct.pack("<Q", 2) + b"{}",
        made(__metadata__={"format": "pt"}),
        made(8, a={"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}),
        made(
            12, a={"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}, b={"dtype": "F64", "shape": [], "data_offsets": [0, 8]}
        ),
        made(
            4, a={"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}, b={"dtype": "I8", "shape": [0, 7], "data_offsets": [4, 4]}
        ),
    ]


def starts_gguf() -> list[bytes]:
    small = LLAMA_1B | {"num_hidden_layers": 2}
    extra = {"tokenizer.ggml.tokens": ["a", "b"], "general.alignment": 64, "numbers": [1, 2, 3], "x": 1.5, "y": True}
    made = []
    for metadata, tensors in (
        (gguf_metadata(small), []),
        (gguf_metadata(small, "qwen2") | extra, [("a.weight", "f32", [2, 2]), ("b.weight", "q8_0", [32, 1])]),
        (
            gguf_metadata(small, "qwen35")
            | {f"qwen35.ssm.{key}": 16 for key in ("inner_size", "time_step_rank", "group_count", "state_size", "conv_kernel")},
            [],
        ),
        (
            gguf_metadata(small, "qwen3moe")
            | {"qwen3moe.expert_count": 8, "qwen3moe.expert_used_count": 2, "qwen3moe.expert_feed_forward_length": 64},
            [],
        ),
    ):
        head, size = gguf_bytes(metadata, tensors)
        made.append(head + bytes(size))
    return made


def starts_config() -> list[bytes]:
    made = [path.read_bytes() for path in sorted(CONFIGS.glob("*.json"))]
    return [
        json.dumps(LLAMA_1B).encode(),
        json.dumps(QWEN3_235B).encode(),
        *(json.dumps(json.loads(one)).encode() for one in made),
    ]


def starts_tokenizer() -> list[bytes]:
    one = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<s>"}, {"id": 3, "content": "</s>"}]}
    other = {**one, "added_tokens": [{"id": 2, "content": "<t>"}]}
    listed = {"model": {"vocab": [["a", 0.5], ["b", -1.0]]}}
    texts = [json.dumps(value).encode() for value in (one, other, listed)]
    return [*texts, texts[0] + b"\0" + texts[1], texts[0] + b"\0" + texts[2]]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLED = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
    "{% for m in messages if m.content or m.tool_calls %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}"
    "{% else %}{{ m.content | trim }}{% endfor %}{% endfor %}"
)
COUNTING = (
    "{% macro f(x) %}{{ x }}{% endmacro %}{% set ns = namespace(i=0) %}"
    "{% for i in range(3) %}{% set ns.i = ns.i + i %}{{ f(ns.i) }}{% endfor %}"
)
JOINING = "{{ 'a' * 3 ~ '%s' % messages[0].role ~ strftime_now('%Y') ~ messages | map(attribute='role') | join(',') }}"


def starts_template() -> list[bytes]:
    files: list[dict[str, Any]] = [
        {
            "tokenizer_config.json": {
                "chat_template": CHATML,
                "eos_token": {"content": "</s>"},
                "additional_special_tokens": ["<a>"],
            }
        },
        {"tokenizer_config.json": {"bos_token": "<s>"}, "chat_template.jinja": TOOLED},
        {
            "tokenizer_config.json": {
                "chat_template": [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLED}]
            }
        },
        {
            "chat_template.json": {"chat_template": {"default": "{{ raise_exception('no') }}"}},
            "special_tokens_map.json": {"pad_token": "p"},
        },
        {"chat_template.jinja": COUNTING},
        {"chat_template.jinja": JOINING},
    ]
    return [json.dumps(one).encode() for one in files]


def starts_journal() -> list[bytes]:
    lines: list[Any] = [
        {"begin": "switch", "at": "2026-11-30T00:00:00+00:00", "facts": {"server": "a"}},
        {"doing": "unload", "at": "2026-11-30T00:00:01+00:00", "facts": {}},
        {"done": "unload", "at": "2026-11-30T00:00:02+00:00", "facts": {"n": 1}},
        {"end": "done", "at": "2026-11-30T00:00:03+00:00"},
    ]
    setup = Setup("a", "b", "m", "m", ("chat",), (1, 2), 2, 16, 16, 16, False, 1)
    benched = [{"hydra_infer bench": setup.to_dict()}, {"step": "speed/chat/1/0/a", "result": {"tps": 1.5}}]
    lengths = Lengths((0, 2), (1, 4), ("chat",), 2, 16, None, 1)
    swept = [{"hydra_infer sweep": lengths.to_dict()}, {"step": "2/speed/chat/1/0/a", "result": {"decode_tps": 1.5}}]
    files = (lines, lines[:2], benched, swept)
    return [b"".join(json.dumps(line).encode() + b"\n" for line in rows) for rows in files] + [b"123 456\n"]


TARGETS = {
    "safetensors": Target(
        run_safetensors, starts_safetensors, ("dtype", "shape", "data_offsets", "__metadata__", "F16", "U8"), values=True
    ),
    "gguf": Target(
        run_gguf, starts_gguf, ("GGUF", "general.architecture", "general.alignment", "llama.block_count", "qwen35.", "llama")
    ),
    "config": Target(
        run_config,
        starts_config,
        ("architectures", "layer_types", "full_attention", "NaN", "Infinity"),
        values=True,
        longest=8192,
    ),
    "tokenizer": Target(run_tokenizer, starts_tokenizer, ("model", "vocab", "added_tokens", "content"), values=True),
    "template": Target(
        run_template,
        starts_template,
        ("{{", "}}", "{%", "%}", "for", "endfor", "if", "range(", "*", "**", "|tojson", "~", "%", ".format("),
        values=True,
    ),
    "report": Target(
        run_report,
        starts_report,
        ("setup", "results", "minimum", "decode_tps", "speed/chat/1/0/a"),
        values=True,
        longest=16384,
    ),
    "journal": Target(
        run_journal, starts_journal, ("begin", "doing", "done", "end", "facts", "at", "step", "result"), values=True
    ),
}

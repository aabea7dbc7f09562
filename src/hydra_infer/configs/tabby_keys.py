"""What TabbyAPI reads from config.yml: every key, its type, its default, and since when.

TabbyAPI has no releases. The table is of its commit e632af4 (13 August 2026), common/config_models.py; the dates are those of
the commits that changed that file. What came after is from its issues and from the NixOS module for it (nixpkgs, November 2026):
such keys and changes have the date by which they were seen, or AFTER, the day after the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["AFTER", "GONE", "KEYS", "OWNER", "RESERVE_EVERYWHERE", "SECTIONS", "STARTUP", "Gone", "Key", "keys_at"]

AFTER = "2026-08-14"

# From then on autosplit_reserve counts in every kind of split (its pull request 450).
RESERVE_EVERYWHERE = "2026-09-21"

_EXL2 = "exllamav2 was removed on 2026-07-14: such models are refused"
_ROPE = "the exllamav3 backend takes rope settings from the model's config.json alone"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `takes`: "bool", "int", "float", "text", "floats", "texts", "table" or "loras".

    `otherwise` is what becomes of a word that is none of `words`; "": what becomes of any wrong value, TabbyAPI does not start.
    `stops`: with such a word it does not start, or not load the model.
    """

    takes: str
    default: Any = None
    since: str = ""
    words: tuple[str, ...] = ()
    pattern: str | None = None
    least: int | None = None
    step: int | None = None
    otherwise: str = ""
    stops: bool = True
    inert: str | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """A key that TabbyAPI does not read, or no longer: `key` is what to write instead, where there is such a key."""

    why: str
    key: str | None = None
    until: str = ""
    reverse: bool = False


_CACHES = ("FP16", "Q8", "Q6", "Q4")
# endpoints/OAI/utils/tools.py
_TOOL_FORMATS = tuple(
    "deepseek_v4 dsv4 gemma4 glm4_5 glm4_6 glm4_7 harmony hy3 hy_v3 laguna poolside_v1 minimax_m2 minimax_m2_1 minimax_m2_5 "
    "mistral_old mistral muse_glimmer glimmer qwen3_coder qwen3_5 step3_5 step3_7".split()
)
_STARTS = ("auto", "always", "never")
_PAIR = r"[2-8]\s*,\s*[2-8]"
_OFF, _ON = Key("bool", False), Key("bool", True)

SECTIONS: Mapping[str, Mapping[str, Key]] = {
    "network": {
        "host": Key("text", "127.0.0.1"),
        "port": Key("int", 5000),
        "disable_auth": _OFF,
        "allowed_origins": Key("texts", ("*",), AFTER),
        "disable_fetch_requests": Key("bool", False, "2024-11-22"),
        "send_tracebacks": _OFF,
        "api_servers": Key("texts", ("OAI",), words=("oai", "kobold")),
        "sse_ping_interval": Key("int", 15, "2026-07-15", least=0),
        "access_log": Key("bool", False, AFTER),
    },
    "logging": {
        "log_prompt": _OFF,
        "log_generation_params": _OFF,
        "log_requests": _OFF,
        "log_timestamps": Key("bool", True, AFTER),
        "log_chat_completion_requests": Key("bool", False, "2026-05-27"),
    },
    "model": {
        "model_dir": Key("text", "models"),
        "inline_model_loading": _OFF,
        "use_dummy_models": _OFF,
        "dummy_model_names": Key("texts", ("gpt-3.5-turbo",), "2024-11-17"),
        "model_name": Key("text"),
        "use_as_default": Key("texts", ()),
        "backend": Key("text", since="2025-05-02", words=("exllamav3",), otherwise=_EXL2),
        "max_seq_len": Key("int", least=-1),
        "cache_size": Key("int", least=256, step=256),
        "cache_mode": Key("text", "FP16", words=_CACHES, pattern=_PAIR),
        "tensor_parallel": _OFF,
        "tensor_parallel_backend": Key("text", "native", "2025-08-17", ("native", "nccl"), otherwise="the model does not load"),
        "gpu_split_auto": _ON,
        "autosplit_reserve": Key("floats", (96,)),
        "gpu_split": Key("floats", ()),
        "cpu_moe_offload_layers": Key("int", 0, "2026-07-31"),
        "rope_scale": Key("float", 1.0, inert=_ROPE),
        "rope_alpha": Key("float", words=("auto",), inert=_ROPE),
        "chunk_size": Key("int", 2048, least=1),
        "output_chunking": Key("bool", True, "2025-10-14"),
        "max_batch_size": Key("int", least=1),
        "prompt_template": Key("text"),
        "vision": Key("bool", False, "2024-11-22"),
        "template_vars_default": Key("table", {}, "2026-07-18"),
        "template_vars_force": Key("table", {}, "2026-07-18"),
        "force_enable_thinking": Key("bool", False, "2026-04-10"),
        "reasoning": Key("bool", False, "2025-03-18"),
        "reasoning_start_token": Key("text", "<think>", "2025-03-18"),
        "reasoning_end_token": Key("text", "</think>", "2025-03-18"),
        "start_in_reasoning": Key("text", "auto", "2026-07-15", _STARTS, otherwise="it is taken for auto", stops=False),
        "tool_calls_in_reasoning": Key("bool", True, "2026-07-15"),
        "reasoning_budget_tokens": Key("int", None, "2026-08-12"),
        "reasoning_budget_message": Key("text", None, "2026-08-12"),
        "tool_format": Key("text", None, "2026-03-30", _TOOL_FORMATS, otherwise="tool calls stay unparsed text", stops=False),
        "harmony": Key("bool", None, "2026-07-16"),
        "muse_glimmer": Key("bool", None, "2026-08-11"),
        "cpu_moe_split_experts": Key("int", 0, "2026-09-13", least=0),
        "cpu_moe_threads": Key("int", None, "2026-09-13", least=0),
        "ngram_ram": Key("bool", False, "2026-09-13"),
        "vision_offload": Key("bool", False, "2026-09-13"),
        "embed_stream_from_disk": Key("bool", False, AFTER),
        "recurrent_checkpoint_interval": Key("int", None, AFTER, least=256, step=256),
        "recurrent_checkpoint_interval_pp": Key("int", None, AFTER, least=256, step=256),
        "warmup": Key("bool", False, AFTER),
    },
    "draft_model": {
        "draft_mode": Key("text", "model", "2026-06-13", ("model", "disabled", "mtp", "ngram")),
        "draft_model_dir": Key("text", "models"),
        "draft_model_name": Key("text"),
        "draft_rope_scale": Key("float", 1.0, inert=_ROPE),
        "draft_rope_alpha": Key("float", inert=_ROPE),
        "draft_cache_mode": Key("text", "FP16", words=_CACHES),
        "draft_gpu_split": Key("floats", (), "2025-02-11"),
        "draft_num_tokens": Key("int", None, "2026-05-23"),
        "dynamic_draft": Key("bool", False, "2026-07-31"),
        "ngram_match_min": Key("int", 2, "2026-06-13"),
    },
    "lora": {
        "lora_dir": Key("text", "loras"),
        "loras": Key("loras", inert="LoRAs are not connected to the exllamav3 backend: loading them only writes to the log"),
    },
    "embeddings": {
        "embedding_model_dir": Key("text", "models"),
        "embeddings_device": Key("text", "cpu", words=("cpu", "auto", "cuda")),
        "embedding_model_name": Key("text"),
    },
    "sampling": {"override_preset": Key("text")},
    "memory": {
        "sysmem_recurrent_cache": Key("int", 4096, "2026-04-17"),
        "sysmem_kv_cache": Key("int", 0, "2026-07-31"),
        "sysmem_multimodal_cache": Key("int", 1024, AFTER, least=0),
        "cuda_malloc_async": Key("bool", True, "2026-04-17"),
    },
    "developer": {
        "unsafe_launch": _OFF,
        "disable_request_streaming": _OFF,
        "realtime_process_priority": _OFF,
        "seqlog": Key("bool", False, "2026-03-27"),
        "seqlog_server_url": Key("text", "http://localhost:5341", "2026-03-27"),
        "seqlog_api_key": Key("text", None, "2026-03-27"),
    },
}

KEYS: Mapping[str, Key] = {f"{section}.{name}": key for section, keys in SECTIONS.items() for name, key in keys.items()}
OWNER: Mapping[str, str] = {name: section for section, keys in SECTIONS.items() for name in keys}

# What keys became since the table's commit, and by when.
_LATER: Mapping[str, tuple[str, Key]] = {
    "model.reasoning": (AFTER, replace(KEYS["model.reasoning"], default=True)),
    "model.reasoning_start_token": (AFTER, replace(KEYS["model.reasoning_start_token"], default="auto")),
    "model.reasoning_end_token": (AFTER, replace(KEYS["model.reasoning_end_token"], default="auto")),
    "model.tool_format": (AFTER, replace(KEYS["model.tool_format"], default="auto", words=("auto", "", *_TOOL_FORMATS))),
    "draft_model.draft_cache_mode": (AFTER, replace(KEYS["draft_model.draft_cache_mode"], pattern=_PAIR)),
    "memory.cuda_malloc_async": ("2026-09-18", replace(KEYS["memory.cuda_malloc_async"], default=False)),
}


def keys_at(version: str | None) -> Mapping[str, Key]:
    """Every key as TabbyAPI of that date has it, by dotted name; None: as the newest known."""
    changed = {path: key for path, (since, key) in _LATER.items() if version is None or version >= since}
    return {path: key for path, key in {**KEYS, **changed}.items() if version is None or key.since <= version}


# What a model folder's own tabby_config.yml cannot change: common/model.py, apply_load_defaults, takes load settings alone.
STARTUP = frozenset("model_dir model_name inline_model_loading use_dummy_models dummy_model_names use_as_default".split())

# By name, in whichever section; `logging.level` there alone.
GONE: Mapping[str, Gone] = {
    "expect_cache_tokens": Gone("never a key of TabbyAPI", "model.cache_size"),
    "draft_gpu_split_auto": Gone("never a key of TabbyAPI; an empty list lets the loader choose", "draft_model.draft_gpu_split"),
    "num_speculative_tokens": Gone("never a key of TabbyAPI", "draft_model.draft_num_tokens"),
    "max_model_len": Gone("vLLM's word", "model.max_seq_len"),
    "num_ctx": Gone("Ollama's word", "model.max_seq_len"),
    "api_key": Gone("keys are read from api_tokens.yml, beside config.yml"),
    "admin_key": Gone("keys are read from api_tokens.yml, beside config.yml"),
    "logging.level": Gone("TabbyAPI has no levels of logging"),
    "fasttensors": Gone("gone since 2024-09-30", until="2024-09-30"),
    "override_base_seq_len": Gone("gone since 2024-11-02", until="2024-11-02"),
    "uvloop": Gone("always on since 2025-02-10", until="2025-02-10"),
    "reasoning_parser": Gone("moved on 2025-03-18", "model.reasoning", "2025-03-18"),
    "num_experts_per_token": Gone("gone since 2025-03-19", until="2025-03-19"),
    "cuda_malloc_backend": Gone("renamed", "memory.cuda_malloc_async", "2025-08-01"),
    "disable_output_chunking": Gone("turned round on 2025-10-14", "model.output_chunking", "2025-10-14", reverse=True),
    "reasoning_suppress_header": Gone("gone since 2026-07-15", until="2026-07-15"),
    "use_cfg": Gone("gone since April 2024"),
    "no_flash_attention": Gone("gone since April 2024"),
    "low_mem": Gone("gone since 2023"),
}

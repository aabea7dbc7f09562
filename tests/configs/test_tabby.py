"""The linter for TabbyAPI's files: the knowledge base's own snippets, and each kind of mistake by itself."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from hydra_infer import ConfigError, Gpu, plan
from hydra_infer.configs.finding import Finding
from hydra_infer.configs.tabby import lint
from hydra_infer.configs.tabby_keys import AFTER, GONE, KEYS, OWNER, SECTIONS, Key, keys_at
from hydra_infer.configs.tabby_values import nearest, taken

# The knowledge base's three: its server for ExLlamaV2, its server for ExLlamaV3, and what it wanted the latter to become.
V2 = """\
network:
  host: 0.0.0.0
  port: 5000
logging:
  level: INFO
model:
  model_dir: /mnt/models
  model_name: Midnight-Miqu-70B-EXL2-2.5bpw
  max_seq_len: 4096
  cache_mode: Q4
  gpu_split: [28, 24]
  autosplit_reserve: [4096, 2048]
  speculative_decoding:
    enabled: true
    draft_model: /mnt/models/Llama-3.2-1B-EXL2-4.0bpw
    num_speculative_tokens: 5
draft_model:
  draft_model_dir: /mnt/models
  draft_model_name: Llama-3.2-1B-EXL2-4.0bpw
  draft_cache_mode: Q4
  draft_gpu_split_auto: true
"""
V3 = """\
network:
  host: 0.0.0.0
  port: 5001
logging:
  level: INFO
model:
  model_dir: /mnt/models
  tensor_parallel: true
  gpu_split_auto: true
  autosplit_reserve: [4096, 2048]
  max_seq_len: 32768
  expect_cache_tokens: 34816
  cache_mode: FP16
"""
TARGET = """\
tensor_parallel: true
gpu_split: [28, 24]
model:
  model_name: Llama-3.1-70B-EXL3-4.0bpw
  cache_mode: Q4
"""


def found(text: str, **options: Any) -> dict[str, tuple[str, str | None]]:
    """Findings by key: kind, and what to write instead on one line."""
    rows = lint(text, **options)
    assert len({row.key for row in rows}) == len(rows)
    return {row.key: (row.kind, row.instead and " ".join(row.instead.split())) for row in rows}


def test_the_knowledge_bases_first_file() -> None:
    assert found(V2) == {
        "logging.level": ("dangerous", None),
        "model.autosplit_reserve": ("inert", None),
        "model.speculative_decoding": (
            "unknown",
            (
                "draft_model: draft_mode: model draft_model_dir: /mnt/models draft_model_name: Llama-3.2-1B-EXL2-4.0bpw "
                "draft_num_tokens: 5"
            ),
        ),
        "draft_model.draft_gpu_split_auto": ("unknown", "draft_model: draft_gpu_split: []"),
    }


def test_the_knowledge_bases_second_file() -> None:
    assert found(V3) == {
        "logging.level": ("dangerous", None),
        "model.model_dir": ("inert", 'model: model_name: "a folder in model_dir"'),
        "model.gpu_split_auto": ("inert", None),
        "model.autosplit_reserve": ("inert", None),
        "model.expect_cache_tokens": ("unknown", "model: cache_size: 34816"),
    }


def test_the_knowledge_bases_target() -> None:
    assert found(TARGET) == {
        "tensor_parallel": ("misplaced", "model: tensor_parallel: true"),
        "gpu_split": ("misplaced", "model: gpu_split: [28, 24]"),
    }


def test_what_was_pasted_instead_is_not_complained_about() -> None:
    pasted = """\
        model:
          model_dir: /mnt/models
          model_name: Llama-3.1-70B-EXL3-4.0bpw
          max_seq_len: 32768
          cache_size: 34816
          cache_mode: Q4
          tensor_parallel: true
          gpu_split: [28, 24]
        draft_model:
          draft_mode: model
          draft_model_dir: /mnt/models
          draft_model_name: Llama-3.2-1B-EXL3-4.0bpw
          draft_cache_mode: Q4
          draft_gpu_split: []
          draft_num_tokens: 5
        """
    assert lint(pasted) == []


def test_a_finding_tells_line_key_kind_reason_and_text_to_paste() -> None:
    (finding,) = lint("model:\n  # tokens\n  expect_cache_tokens: 8192\n")
    assert finding == Finding(3, "model.expect_cache_tokens", "unknown", "never a key of TabbyAPI", "model:\n  cache_size: 8192")
    assert str(finding) == (
        "line 3: model.expect_cache_tokens: unknown: never a key of TabbyAPI\n    model:\n      cache_size: 8192"
    )


@pytest.mark.parametrize(
    ("text", "key", "kind", "instead"),
    [
        ("model: {max_seq_length: 4096}", "model.max_seq_length", "unknown", "model: max_seq_len: 4096"),
        ("modle: {max_seq_len: 4096}", "modle", "unknown", "model: max_seq_len: 4096"),
        ("whatever: 1", "whatever", "unknown", None),
        ("model: {draft_cache_mode: Q4}", "model.draft_cache_mode", "misplaced", "draft_model: draft_cache_mode: Q4"),
        ("model: {draft_model: {draft_mode: mtp}}", "model.draft_model", "misplaced", "draft_model: draft_mode: mtp"),
        ("model: {draft: {draft_model_name: x}}", "model.draft", "dangerous", "draft_model: draft_model_name: x"),
        ("logging: {prompt: true}", "logging.prompt", "dangerous", "logging: log_prompt: true"),
        ("model: {cache_mode: q4}", "model.cache_mode", "wrong", "model: cache_mode: Q4"),
        ("model: {cache_mode: FP8}", "model.cache_mode", "wrong", "model: cache_mode: FP16"),
        ("model: {cache_size: 1000}", "model.cache_size", "wrong", "model: cache_size: 1024"),
        ("model: {gpu_split: 24}", "model.gpu_split", "wrong", "model: gpu_split: [24.0]"),
        ("model: {model_name: 70}", "model.model_name", "wrong", 'model: model_name: "70"'),
        ("model: {backend: exllamav2}", "model.backend", "wrong", None),
        ("model: {disable_output_chunking: true}", "model.disable_output_chunking", "unknown", "model: output_chunking: false"),
        ("draft_model: {draft_cache_mode: FP8}", "draft_model.draft_cache_mode", "wrong", "draft_model: draft_cache_mode: FP16"),
        (
            "model: {cpu_moe_offload_layers: 4, cpu_moe_split_experts: 8}",
            "model.cpu_moe_split_experts",
            "wrong",
            "model: cpu_moe_split_experts: 0",
        ),
        (
            "model: {tensor_parallel: true, cpu_moe_split_experts: 8}",
            "model.cpu_moe_split_experts",
            "wrong",
            "model: cpu_moe_split_experts: 0",
        ),
        ("model: {cpu_moe_threads: many}", "model.cpu_moe_threads", "wrong", None),
        ("network: {api_servers: OAI}", "network.api_servers", "wrong", "network: api_servers: [OAI]"),
        ("network: 5000", "network", "wrong", None),
        ("model: {autosplit_reserve: [4, 2]}", "model.autosplit_reserve", "wrong", "model: autosplit_reserve: [4096, 2048]"),
        ("model: {gpu_split: [28672, 24]}", "model.gpu_split", "wrong", "model: gpu_split: [28.0, 24.0]"),
        ("model: {max_seq_len: 8192, cache_size: 4096}", "model.cache_size", "wrong", "model: cache_size: 10240"),
        ("model: {max_seq_len: 8192, cache_size: 8192}", "model.cache_size", "wrong", "model: cache_size: 10240"),
        ("model: {gpu_split_auto: false}", "model.gpu_split_auto", "inert", None),
        ("model: {rope_alpha: 2.5}", "model.rope_alpha", "inert", None),
        ("lora: {loras: [{name: a}]}", "lora.loras", "inert", None),
        ("draft_model: {draft_num_tokens: 4}", "draft_model.draft_num_tokens", "inert", None),
        ("draft_model: {draft_mode: ngram, draft_model_name: x}", "draft_model.draft_model_name", "inert", None),
        ("draft_model: {draft_mode: ngram, ngram_match_min: 0}", "draft_model.ngram_match_min", "wrong", None),
        ("draft_model: {draft_mode: mtp, draft_gpu_split: [1, 2]}", "draft_model.draft_gpu_split", "dangerous", None),
        (
            "draft_model: {draft_mode: Ngram, ngram_match_min: 3}",
            "draft_model.draft_mode",
            "wrong",
            "draft_model: draft_mode: ngram",
        ),
        ("model: {use_as_default: [cache_mode, cachemode]}", "model.use_as_default", "wrong", None),
        ("network: {host: 0.0.0.0, disable_auth: true}", "network.disable_auth", "dangerous", None),
        ("api_key: x", "api_key", "unknown", None),
    ],
)
def test_one_mistake_is_one_finding(text: str, key: str, kind: str, instead: str | None) -> None:
    (finding,) = lint(text)
    assert (finding.line, finding.key, finding.kind) == (1, key, kind)
    if instead is not None:
        assert finding.instead is not None
        assert " ".join(finding.instead.split()) == instead
        assert all(row.kind == "inert" for row in lint(finding.instead))  # alone, without the model it belongs to


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "model:\n",
        "model:\n  model_name:\n  cache_size:\n",
        "network: {port: '5000', disable_auth: no, api_servers: [OAI, kobold], sse_ping_interval: 0}",
        "model: {model_dir: /m, inline_model_loading: true}",
        "model: {gpu_split: [], gpu_split_auto: true, autosplit_reserve: [96], rope_scale: 1.0}",
        "draft_model: {draft_model_dir: models, draft_cache_mode: FP16, ngram_match_min: 2}",
        "network: {host: 127.0.0.1, disable_auth: true}",
        "model: {vision_offload: true, warmup: true, ngram_ram: false, cpu_moe_split_experts: 380, cpu_moe_threads: 16}",
        "model: {tool_format: auto, recurrent_checkpoint_interval_pp: 2048}",
        "memory: {sysmem_multimodal_cache: 1024, cuda_malloc_async: false}",
        "network: {allowed_origins: ['http://localhost:8000'], access_log: true}",
        "draft_model: {draft_mode: mtp, draft_cache_mode: '8,8'}",
        "sampling: {override_preset: mine, top_k: {override: 40, force: true}}",
        "model: {cache_mode: '8, 4', max_seq_len: -1, rope_alpha: null}",
        "model: {max_seq_len: 8192, cache_size: 8192, output_chunking: false}",
        "model: {max_seq_len: 32768, cache_size: 34816}",
    ],
)
def test_what_works_is_not_complained_about(text: str) -> None:
    assert lint(text) == []


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("model: [1,\n", 1, "usable YAML"),
        ("a: 1\nmodel: {x: 1}\nmodel: {y: 2}\n", 3, "duplicate key"),
        ("- model\n", 1, "not a table of sections"),
        ("a: 2020-13-45\n", 1, "usable YAML"),
    ],
)
def test_a_file_that_tabbyapi_cannot_read_starts_it_on_its_defaults(text: str, line: int, word: str) -> None:
    (finding,) = lint(text)
    assert finding.line >= line
    assert word in finding.why
    assert "starts on its defaults" in finding.why


def test_a_models_own_file_has_load_settings_alone() -> None:
    text = """\
        model: {model_name: x, cache_mode: banana, max_seq_len: 8192, draft_num_tokens: 3}
        draft_model: {draft_gpu_split: [1, 2], draft_num_tokens: 3}
        network: {port: 5000}
        """
    assert {key: kind for key, (kind, _) in found(text, per_model=True).items()} == {
        "model.model_name": "inert",
        "model.cache_mode": "wrong",
        "model.draft_num_tokens": "misplaced",
        "network": "inert",
    }
    assert "nothing checks it" in next(row.why for row in lint(text, per_model=True) if row.key == "model.cache_mode")


def test_the_version_decides_what_is_known() -> None:
    newer = "model: {reasoning_budget_tokens: 1000, vision_offload: true}"
    assert found(newer, version="2026-08-01") == {
        "model.reasoning_budget_tokens": ("unknown", None),
        "model.vision_offload": ("unknown", None),
    }
    assert found(newer) == {}
    older = "model: {num_experts_per_token: 2}"
    assert found(older, version="2025-01-01") == {}
    assert found(older) == {"model.num_experts_per_token": ("unknown", None)}
    reserve = "model: {tensor_parallel: true, autosplit_reserve: [1024, 512]}"
    assert found(reserve, version="2026-08-13") == {"model.autosplit_reserve": ("inert", None)}
    assert found(reserve, version="2026-10-01") == {}
    with pytest.raises(ConfigError, match="is not the date of a TabbyAPI commit"):
        lint("", version="0.1")


# What TabbyAPI of a date takes, and of the day before does not: the key or value that came, and the finding before.
CAME = {
    "a key": ("model: {tool_calls_in_reasoning: false}", "2026-07-15", "model.tool_calls_in_reasoning", "unknown"),
    "a key of the processor": ("model: {cpu_moe_offload_layers: 4}", "2026-07-31", "model.cpu_moe_offload_layers", "unknown"),
    "its second way": ("model: {cpu_moe_split_experts: 4}", "2026-09-13", "model.cpu_moe_split_experts", "unknown"),
    "a key after the table": ("model: {warmup: true}", AFTER, "model.warmup", "unknown"),
    "pairs for drafts": (
        "draft_model: {draft_mode: mtp, draft_cache_mode: '8,4'}",
        AFTER,
        "draft_model.draft_cache_mode",
        "wrong",
    ),
    "a word": ("model: {tool_format: auto}", AFTER, "model.tool_format", "wrong"),
    "overrides of samplers": ("sampling: {top_k: {override: 40}}", AFTER, "sampling.top_k", "unknown"),
    "reserves everywhere": (
        "model: {tensor_parallel: true, autosplit_reserve: [512]}",
        "2026-09-21",
        "model.autosplit_reserve",
        "inert",
    ),
}


@pytest.mark.parametrize("case", CAME)
def test_what_came_with_a_date_is_taken_from_then_on(case: str) -> None:
    text, day, key, kind = CAME[case]
    before = (date.fromisoformat(day) - timedelta(days=1)).isoformat()
    assert [(one.key, one.kind) for one in lint(text, version=before)] == [(key, kind)]
    assert lint(text, version=day) == []


def test_defaults_are_those_of_the_date() -> None:
    for path, before, after in (
        ("memory.cuda_malloc_async", True, False),
        ("model.reasoning", False, True),
        ("model.reasoning_start_token", "<think>", "auto"),
    ):
        assert [keys_at(version)[path].default for version in ("2026-08-13", "2026-09-18", None)] == [before, after, after]
    assert keys_at("2026-08-13").keys() == {path for path, key in KEYS.items() if key.since <= "2026-08-13"}


def test_a_word_that_nothing_is_near_to_may_be_newer_than_the_list() -> None:
    for version, newer in ((None, True), ("2026-10-01", True), ("2026-08-13", False)):
        (one,) = lint("model: {brand_new_thing: 1}", version=version)
        assert ("newer than this list" in one.why) is newer
    assert "newer" not in lint("model: {max_seq_length: 4096}")[0].why


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("model: [1,\n", True),
        ("model: 7", True),
        ("model: {cache_size: 1000}", True),
        ("model: {backend: exllamav2}", True),
        ("draft_model: {draft_mode: mtp, draft_gpu_split: [1, 2]}", True),
        ("draft_model: {draft_mode: ngram, ngram_match_min: 0}", True),
        ("model: {cpu_moe_offload_layers: 4, cpu_moe_split_experts: 8}", True),
        ("model: {tool_format: mine}", False),
        ("model: {start_in_reasoning: perhaps}", False),
        ("model: {max_seq_len: 8192, cache_size: 8192}", False),
        ("model: {expect_cache_tokens: 8192}", False),
        ("network: {host: 0.0.0.0, disable_auth: true}", False),
    ],
)
def test_what_keeps_it_from_starting_is_marked(text: str, stops: bool) -> None:
    assert [one.stops for one in lint(text)] == [stops]


def test_keys_are_never_shown() -> None:
    for text in (
        "seqlog_api_key: sk-planted",
        "model: {seqlog_api_key: sk-planted}",
        "developer: {seqlog_api_key: [sk-planted]}",
        "api_key: sk-planted",
        "model: {draft_model: {api_key: sk-planted}}",
        "developer: {seqlog_api_key: sk-planted, seqlog_api_key: sk-planted}",
        "developer: {seqlog_api_key: sk-planted",
    ):
        rows = lint(text)
        assert rows
        assert "planted" not in "".join(map(str, rows)) + repr(rows)


def test_a_plans_own_file_is_clean(tmp_path: Any) -> None:
    import synthetic

    big = synthetic.exl3(tmp_path / "big", synthetic.LLAMA_70B, 4.0)
    small = synthetic.exl3(tmp_path / "small", synthetic.LLAMA_1B, 4.0)
    cards = [Gpu("RTX 5090"), Gpu("RTX 4090")]
    for options in (
        {},
        {"split": "tensor"},
        {"cache": "q4", "draft": small},
        {"reserve": [1.0, 0.5]},
        {"gpu_split": [28.0, 20.0]},
    ):
        text = plan(big, gpus=cards, context=8192, engine="tabby", **options).tabby_config()
        assert lint(text, version="2026-10-01") == [], text


# ---- the table ---------------------------------------------------------------------------------------------------


def test_the_table_is_sound() -> None:
    assert sum(map(len, SECTIONS.values())) == len(KEYS) == len(OWNER)  # no name in two sections, as OWNER takes for granted
    for path, key in KEYS.items():
        default = list(key.default) if isinstance(key.default, tuple) else key.default
        assert default is None or taken(key, default) == default, path
    for name, gone in GONE.items():
        assert name not in KEYS
        assert gone.key is None or gone.key in KEYS, name


VALUES = st.one_of(
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(-10, 10),
    st.sampled_from(["1", "5000", "2.5", "true", "No", "y", "", "auto", "x", "1e3", " 7 "]),
    st.lists(st.integers(0, 30) | st.sampled_from(["a", "2"]), max_size=3),
    st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
)


@pytest.mark.parametrize(
    ("takes", "python"), [("bool", bool), ("int", int), ("float", float), ("text", str), ("floats", list[float]), ("table", dict)]
)
@settings(deadline=None)
@given(value=VALUES)
def test_values_are_taken_as_pydantic_takes_them(takes: str, python: Any, value: Any) -> None:
    try:
        expected = TypeAdapter(python).validate_python(value)
    except ValidationError:
        with pytest.raises(ConfigError, match="must be"):
            taken(Key(takes), value)
    else:
        assert taken(Key(takes), value) == expected


@settings(deadline=None)
@given(value=VALUES, path=st.sampled_from(sorted(KEYS)))
def test_the_nearest_value_is_one_that_is_taken(value: Any, path: str) -> None:
    better = nearest(KEYS[path], value)
    if better is not None:
        taken(KEYS[path], better)


@settings(deadline=None)
@given(st.text(alphabet="model:dft_ {}[]-#\n'\"&*!|>.0123456789", max_size=80))
def test_no_text_brings_the_linter_down(text: str) -> None:
    for row in lint(text):
        assert 1 <= row.line <= text.count("\n") + 2
        assert str(row)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*SECTIONS, "typo"]),
        st.dictionaries(st.sampled_from([*OWNER, *GONE, "typo"]), VALUES, max_size=6) | VALUES,
        max_size=4,
    )
)
def test_whatever_is_pasted_is_yaml(tree: Any) -> None:
    import io

    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, stream)
    for row in lint(stream.getvalue()):
        if row.instead is not None:
            assert YAML(typ="safe", pure=True).load(row.instead)


def test_aliases_within_aliases_are_not_written_out() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    rows = lint(f"{laughs}gpu_split: *i\n")
    assert rows[-1].key == "gpu_split"
    assert rows[-1].instead is None
    assert lint("model_name: &a [*a]\n")  # one within itself

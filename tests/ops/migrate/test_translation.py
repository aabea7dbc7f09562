"""Translate: the knowledge base's files, one key at a time, and that no comment and no other byte is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hydra_infer import ConfigError
from hydra_infer.configs.tabby import lint
from hydra_infer.ops.migrate import translate
from hydra_infer.ops.migrate.strike import strike

V2 = """\
# the 70B
network:
  host: 0.0.0.0
  port: 5000
logging:
  level: INFO  # quiet
model:
  model_dir: /mnt/models
  model_name: Midnight-Miqu-70B-EXL2-2.5bpw
  max_seq_len: 4096
  cache_mode: Q4
  gpu_split: [28, 24]
  autosplit_reserve: [4096, 2048]
  speculative_decoding:
    # five at a time
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


def values(text: str) -> object:
    return YAML(typ="safe").load(text)


def test_the_knowledge_bases_first_file() -> None:
    done = translate(V2, model="Midnight-Miqu-70B-EXL3-2.5bpw", draft="Llama-3.2-1B-EXL3-4.0bpw")
    assert values(done.text) == {
        "network": {"host": "0.0.0.0", "port": 5000},
        "logging": None,
        "model": {
            "model_dir": "/mnt/models",
            "model_name": "Midnight-Miqu-70B-EXL3-2.5bpw",
            "max_seq_len": 4096,
            "cache_mode": "Q4",
            "gpu_split": [28, 24],
        },
        "draft_model": {
            "draft_model_dir": "/mnt/models",
            "draft_model_name": "Llama-3.2-1B-EXL3-4.0bpw",
            "draft_cache_mode": "Q4",
            "draft_mode": "model",
            "draft_num_tokens": 5,
        },
    }
    assert done.open == ()
    assert lint(done.text) == []
    assert [change.key for change in done.changes] == [
        "model.model_name",
        "draft_model.draft_model_name",
        "logging.level",
        "model.autosplit_reserve",
        "model.speculative_decoding",
        "draft_model.draft_gpu_split_auto",
    ]
    assert all(change.why for change in done.changes)


def test_what_is_struck_out_stays_as_a_comment_below_its_reason() -> None:
    text = translate(V2).text
    assert "  # hydra_infer: TabbyAPI has no levels of logging" in text
    assert "  # level: INFO  # quiet\n" in text
    assert "  # speculative_decoding:\n  #   # five at a time\n  #   enabled: true\n" in text
    assert text.startswith("# the 70B\n")


def test_models_of_the_old_format_are_left_open_where_no_new_one_is_named() -> None:
    done = translate(V2)
    assert [line.partition(":")[0] for line in done.open] == ["model.model_name", "draft_model.draft_model_name"]


def test_the_knowledge_bases_second_file() -> None:
    done = translate(V3, model="Llama-3.1-70B-EXL3-4.0bpw")
    model = values(done.text)["model"]  # type: ignore[index]
    assert model["cache_size"] == 34816
    assert "expect_cache_tokens" not in model
    assert "gpu_split_auto" not in model
    assert model["autosplit_reserve"] == [4096, 2048]  # since September 2026 it counts in tensor parallel, too
    assert done.open == ()
    assert "autosplit_reserve" not in values(translate(V3, version="2026-08-13").text)["model"]  # type: ignore[index]


def test_keys_at_the_wrong_level_are_moved() -> None:
    done = translate("tensor_parallel: true\ngpu_split: [28, 24]\nmodel:\n  model_name: X-EXL3\n  cache_mode: Q4\n")
    assert values(done.text) == {
        "model": {"model_name": "X-EXL3", "cache_mode": "Q4", "tensor_parallel": True, "gpu_split": [28, 24]}
    }


def test_what_stands_in_its_right_place_wins() -> None:
    done = translate("cache_size: 8192\nmodel:\n  model_name: X\n  max_seq_len: 4096\n  cache_size: 16384\n")
    assert values(done.text) == {"model": {"model_name": "X", "max_seq_len": 4096, "cache_size": 16384}}


def test_who_may_do_what_is_told_and_not_changed() -> None:
    text = "network:\n  host: 0.0.0.0\n  disable_auth: true\nmodel:\n  model_name: X\n"
    done = translate(text)
    assert done.text == text
    assert len(done.open) == 1
    assert "disable_auth" in done.open[0]


def test_a_file_of_today_stays_as_it_is() -> None:
    text = "model:\n  model_dir: /m # here\n  model_name: X-EXL3\n  cache_mode: 8,4\n"
    done = translate(text)
    assert (done.text, done.diff, done.changes, done.open) == (text, "", (), ())
    assert str(done) == "nothing to change"


def test_no_secret_is_shown_and_none_is_lost() -> None:
    text = "api_key: 0123456789abcdef\nmodel:\n  model_name: X\nseqlog_api_key: sesame123\n"
    done = translate(text)
    assert "0123456789abcdef" not in str(done)
    assert "sesame123" not in str(done)
    assert "0123456789abcdef" in done.text
    assert "sesame123" in done.text


@pytest.mark.parametrize("text", ["model: [", "- a\n"])
def test_what_is_no_config_is_refused_or_told(text: str) -> None:
    try:
        done = translate(text)
    except ConfigError:
        return
    assert done.text == text
    assert done.open


def test_a_table_in_braces_is_not_torn_apart() -> None:
    for text in ("logging: {level: INFO}\n", "model: {model_name: x, fasttensors: true}\n", "model.cache_size: 4096\n"):
        with pytest.raises(ConfigError, match="cannot be commented out by itself"):
            translate(text)


def test_what_another_place_takes_over_is_not_struck_out() -> None:
    with pytest.raises(ConfigError, match=r"model\.fasttensors cannot be commented out"):
        translate("model:\n  model_name: x\n  fasttensors: &yes true\n  tensor_parallel: *yes\n")


KEYS = (
    "fasttensors: true",
    "use_cfg: true",
    "num_experts_per_token: 2",
    "rope_scale: 2.0",
    "max_seq_len: 4096",
    "cache_mode: q4",
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(KEYS), unique=True), st.booleans(), st.booleans())
def test_no_comment_is_lost_and_the_rest_is_untouched(keys: list[str], windows: bool, spaced: bool) -> None:
    lines = ["# top", "model: # mine", "  model_name: X # the one"]
    for number, key in enumerate(keys):
        lines += [f"  # about {number}", f"  {key} # why {number}"] + [""] * spaced
    lines += ["# end"]
    newline = "\r\n" if windows else "\n"
    text = newline.join(lines) + newline
    done = translate(text)
    mine = re.compile(r"# (?:about|why|top|mine|the one|end)[ \d]*")
    assert mine.findall(done.text) == mine.findall(text)
    assert lint(done.text) == []
    assert done.text.count("\n") - text.count("\n") == sum(change.done.startswith("commented") for change in done.changes)
    assert not windows or "\n" not in done.text.replace("\r\n", "")


def test_a_block_of_text_is_struck_out_to_its_end() -> None:
    text = "a:\n  b: |\n    one\n    two\n  c: 1\n"
    assert strike(text, "a.b", "gone") == "a:\n  # gone\n  # b: |\n  #   one\n  #   two\n  c: 1\n"

"""llama.cpp with Qwen 3.5's hybrid of attention and Gated DeltaNet: its header, its states, and its MTP head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import gguf_bytes

from hydra_infer import ConfigError, Plan, UnknownModel, plan
from hydra_infer.models.spec import Attention, Recurrent
from hydra_infer.units import MIB

CONFIG = json.loads((Path(__file__).parent.parent / "data" / "configs" / "Qwen3.5-27B.json").read_text())["text_config"]

# What one sequence of it keeps in llama.cpp, 149.6 MiB: 48 layers of 48 x 128 x 128 and 3 x 10240 elements in 32 bit.
STATE = 48 * 4 * (48 * 128 * 128 + 3 * 10240)


def file(path: Path, mtp: bool = True, **changes: Any) -> Path:
    """A header like Qwen3.5-27B's with one tensor for each kind; nothing of it is data."""
    blocks = 65 if mtp else 64
    values = {
        "block_count": blocks,
        "embedding_length": 5120,
        "feed_forward_length": 17408,
        "attention.head_count": 24,
        "attention.head_count_kv": 4,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "context_length": 262144,
        "vocab_size": 248320,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.group_count": 16,
        "ssm.time_step_rank": 48,
        "ssm.inner_size": 6144,
        "full_attention_interval": 4,
        "nextn_predict_layers": 1 if mtp else 0,
    } | changes
    metadata = {"general.architecture": "qwen35"} | {f"qwen35.{key}": value for key, value in values.items()}
    tensors = [("token_embd.weight", "q4_k", [5120, 2560]), ("output.weight", "q4_k", [5120, 2560])]
    for index in range(blocks):
        tensors += [(f"blk.{index}.attn_norm.weight", "f32", [5120]), (f"blk.{index}.ffn_up.weight", "q4_k", [5120, 1024])]
    header, size = gguf_bytes(metadata, tensors)
    with path.open("wb") as out:
        out.write(header)
        out.truncate(len(header) + size)
    return path


def on_card(path: Path, **arguments: Any) -> Plan:
    return plan(path, **({"gpus": ["H200"], "context": 131072, "cache": "q4_0"} | arguments))


def test_the_header(tmp_path: Path) -> None:
    layers = on_card(file(tmp_path / "m.gguf")).request.spec.geometry.layers
    assert len(layers) == CONFIG["num_hidden_layers"] == 64  # the block of the MTP head is not one of them
    kinds = ["full_attention" if isinstance(layer.attention, Attention) else "linear_attention" for layer in layers]
    assert kinds == CONFIG["layer_types"]
    linear = layers[0].attention
    assert isinstance(linear, Recurrent)
    assert (linear.v_heads, linear.v_dim, linear.channels) == (48, 128, 10240)


def test_only_attention_grows_with_the_context_and_states_with_the_slots(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf")
    one, two = on_card(path).devices[0], on_card(path, slots=2).devices[0]
    assert one.cache == 131072 * 16 * 2 * 1024 * 18 // 32 == 2304 * MIB
    assert (one.state, two.state) == (STATE, 2 * STATE)
    assert two.cache == 2 * one.cache


def test_a_context_twice_as_long_takes_what_was_measured(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf")
    short, long = (on_card(path, context=context).devices[0].needed for context in (131072, 262144))
    assert (long - short) / MIB == pytest.approx(2944, abs=1)  # RTX 3090 Ti and RTX 5090, qwen38-mtp


def test_mtp_takes_its_layer_a_cache_and_the_states_to_roll_back_to(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf")
    without, one, two = (
        on_card(path, **arguments).devices[0] for arguments in ({}, *({"draft": "mtp", "draft_tokens": n} for n in (1, 2)))
    )
    assert two.state - one.state == one.state - without.state == STATE
    assert one.draft == two.draft
    tensors = 5120 * 4 + 5120 * 1024 * 9 // 16
    assert one.draft == tensors + 131072 * 2 * 1024 * 2 + 2 * 512 * 131072 + 100 * MIB
    longer = on_card(path, draft="mtp", draft_tokens=1, context=262144).devices[0]
    assert (longer.draft - one.draft) / MIB == 640  # measured on the same two cards


def test_the_default_is_two_tokens(tmp_path: Path) -> None:
    draft = on_card(file(tmp_path / "m.gguf"), draft="mtp").draft
    assert draft is not None
    assert (draft.valid, draft.draft_tokens) == (True, 2)


def test_a_file_without_the_head(tmp_path: Path) -> None:
    draft = on_card(file(tmp_path / "m.gguf", mtp=False), draft="mtp").draft
    assert draft is not None
    assert (draft.valid, "no MTP head" in draft.why) == (False, True)


def test_in_system_ram_the_states_are_counted_too(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf")
    assert on_card(path, gpus=[]).host_use.cache == on_card(path).devices[0].cache + STATE


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ssm.inner_size": 6143}, "ssm.inner_size is 6143"),
        ({"nextn_predict_layers": 65}, "nextn_predict_layers is 65, of 65 blocks"),
        ({"ssm.state_size": 0}, "ssm.state_size"),
        ({"full_attention_interval": 0}, "full_attention_interval"),
    ],
)
def test_impossible_headers(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        on_card(file(tmp_path / "m.gguf", **changes))


def test_a_list_of_recurrent_layers_is_refused_by_name(tmp_path: Path) -> None:
    path = file(tmp_path / "m.gguf", **{"attention.recurrent_layers": [1, 1, 0]})
    with pytest.raises(UnknownModel, match="recurrent layers"):
        on_card(path)

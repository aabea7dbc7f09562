"""What layers keep per slot, against the sizes exllamav3 1.6.5 gave (the rest of its table is in tests/golden)."""

from __future__ import annotations

import pytest

from hydra_infer.models.spec import Attention, Compressed, Latent, Recurrent, ShortConv
from hydra_infer.planner.state import state_bytes
from hydra_infer.units import MIB

GPT_OSS = Attention(64, 8, 64, window=128, ring=True)
QWEN_NEXT = Recurrent(k_heads=16, v_heads=32, k_dim=128, v_dim=128, conv=4, form="fused")


@pytest.mark.parametrize(("slots", "nbytes"), [(1, 18874368), (4, 75497472)])
def test_rings(slots: int, nbytes: int) -> None:
    assert 12 * state_bytes(GPT_OSS, slots) == nbytes
    assert 18 * state_bytes(GPT_OSS, 1) == 27 * MIB  # the larger gpt-oss has 18 such layers


def test_recurrent_states() -> None:
    assert 36 * state_bytes(QWEN_NEXT, 1) == 78453504
    # A token of history: a column of the convolution, and the inputs of one more step.
    assert state_bytes(QWEN_NEXT, 1, 1) - state_bytes(QWEN_NEXT, 1) == 2 * 8192 + 2 * 8192 + 6 * 32


def test_mamba_keeps_32_bit() -> None:
    plain, mamba = (Recurrent(8, 256, 128, 64, 4, form) for form in ("split", "mamba"))
    assert state_bytes(mamba, 1) - state_bytes(plain, 1) == 2 * 256 * 128 * 64 * 2


def test_what_grows_with_the_context_has_no_state() -> None:
    for mixer in (Attention(64, 8, 64), Attention(64, 8, 64, window=128), Latent(64, 1536, 512, 128, 64, 128), None):
        assert state_bytes(mixer, 16) == 0


def test_short_convolutions_keep_a_window_and_the_draft() -> None:
    assert state_bytes(ShortConv(2048, 3), 4) == 4 * 2048 * 3 * 2
    assert state_bytes(ShortConv(2048, 3), 1, 2) == 2048 * 5 * 2


def test_a_window_alone_is_a_ring() -> None:
    # DeepSeek V4 Flash: 128 tokens and two pages, 512 wide.
    assert state_bytes(Compressed(64, 512, 64, 1024, 8, 1024, 128), 1, 3) == 768 * 512 * 2

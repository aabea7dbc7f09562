"""How many bytes a layer keeps per slot whatever the context: rings of a sliding window, and recurrent states.

Sources: exllamav3 1.6.5 modules/sliding_attn.py (SWALayerState), modules/gated_delta_net.py (GDNLayerState, which Mamba 2
uses too), modules/short_conv.py, cache/dsa.py (DSV4LayerState), cache/cache.py (states are 16 bit, those of Mamba 2 always 32).
"""

from __future__ import annotations

from ..models.spec import Attention, Compressed, Mixer, Recurrent, ShortConv
from ..units import Size
from .cache import PAGE, pages

__all__ = ["DEFAULT_SLOTS", "llamacpp_state", "state_bytes"]

# A ring holds this much beside the window (sliding_attn.py, sliding_window_overp); the query itself is not counted.
RING_EXTRA = 512

# The slots exllamav3's Cache has where nothing is said (cache/cache.py, max_batch_size).
DEFAULT_SLOTS = 16


def state_bytes(mixer: Mixer | None, slots: int, history: int = 0) -> Size:
    """Bytes one layer keeps for `slots` sequences that may be rolled back by `history` tokens (the draft's length)."""
    if isinstance(mixer, Recurrent):
        return Size(slots * _recurrent(mixer, history))
    if isinstance(mixer, Compressed):
        return Size(slots * _compressed(mixer))
    if isinstance(mixer, ShortConv):
        return Size(slots * mixer.width * (mixer.conv + history) * 2)
    if isinstance(mixer, Attention) and mixer.ring and mixer.window is not None:
        return Size(slots * pages(mixer.window - 1 + RING_EXTRA) * mixer.kv_width * 2 * 2)
    return Size(0)


def llamacpp_state(mixer: Mixer | None, slots: int, history: int = 0) -> Size:
    """The same in llama.cpp: 32-bit states and the last inputs of the convolution, as many times as may be rolled back.

    One more drafted token takes 149.6 MiB of a Qwen3.8-27B by this, 150 MiB measured on three cards (qwen38-mtp).
    """
    if not isinstance(mixer, Recurrent):
        return Size(0)
    elements = mixer.v_heads * mixer.k_dim * mixer.v_dim + (mixer.conv - 1) * mixer.channels
    return Size(slots * (1 + history) * elements * 4)


def _recurrent(mixer: Recurrent, history: int) -> int:
    """One slot: the convolution's ring, two states, and the inputs of the last `history` + 1 tokens for a replay."""
    convolution = mixer.channels * (mixer.conv + history) * 2
    state = 2 * mixer.v_heads * mixer.k_dim * mixer.v_dim * (4 if mixer.form == "mamba" else 2)
    decay = 4 * mixer.v_heads * (mixer.k_dim if mixer.form.startswith("kda") else 1)
    staged = (history + 1) * (mixer.channels * 2 + mixer.v_heads * 2 + decay)
    return convolution + state + staged


def _compressed(mixer: Compressed) -> int:
    """One slot: the window's ring, the last page's inputs of each compressor, and 32-bit copies where windows overlap."""
    ring = pages(mixer.window + RING_EXTRA) * mixer.head_dim * 2
    if not mixer.rate:
        return ring
    if mixer.indexer is None:
        return ring + 2 * (PAGE + mixer.rate) * mixer.head_dim * 2
    both = mixer.head_dim + mixer.indexer.head_dim
    inputs = 2 * (PAGE + mixer.rate) * 2 * both * 2
    overlaps = (PAGE // mixer.rate + 2) * 2 * mixer.rate * both * 4
    return ring + inputs + overlaps

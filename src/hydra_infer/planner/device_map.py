"""ExLlamaV2's manual split: which module goes to which card, by its own count of weights and scratch, without the cache.

Source: exllamav2 0.3.2, model.py (set_device_map), attn.py, mlp.py and moe_mlp.py (scratch_space, temp_attn_size), linear.py.
Assumes that flash-attn is installed, as its batched generator needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..models.spec import Attention, Geometry, Mlp
from ..units import Size
from .transient import MAX_DEQUANTISED
from .weights import Weights

__all__ = ["device_map"]

# Every buffer of the scratch space is this much longer than its contents.
SLACK = 128

# What flash-attn is taken to save of the attention scores: the square root of their number by this (attn.py).
FLASH_DIVISOR = 190


def device_map(geometry: Geometry, weights: Weights, split: Sequence[Size], *, rows: int, tokens: int) -> tuple[list[int], bool]:
    """The card of each attention, feed-forward block, of the norm and the head; False where there is not enough space.

    `split` are bytes per card, `rows` the longest prompt read at once, `tokens` the context. Modules without space are put on
    the last card.
    """
    first = geometry.plain_layers()[0][0]
    shared = 4 * first.head_dim * tokens + 2 * geometry.hidden * rows + 2 * rows * rows
    left = [size - shared for size in split]
    scratch, scores, card, enough = [0] * len(split), [0] * len(split), 0, True
    cards = []
    for footprint, working, attending in _modules(geometry, weights, rows, tokens):
        while True:
            most, score = max(scratch[card], working), max(scores[card], attending)
            if footprint + most + score <= left[card]:
                break
            if card == len(split) - 1:
                enough = False
                break
            card += 1
        scratch[card], scores[card] = most, score
        left[card] -= footprint
        cards.append(card)
    return cards, enough


def _modules(geometry: Geometry, weights: Weights, rows: int, tokens: int) -> Iterator[tuple[int, int, int]]:
    """Weights, scratch and attention scores of every module. The group maps made while loading are not in its count."""
    hidden = geometry.hidden
    for (attention, mlp), loaded in zip(geometry.plain_layers(), weights.layers, strict=True):
        maps = 4 * (3 * hidden + attention.q_width)
        # Norms of queries and keys it counts as long as the hidden state (rmsnorm.py, weight_footprint).
        norms = 2 * (2 * hidden - attention.vectors) if attention.vectors else 0
        yield loaded.attention - maps + norms, _attention(hidden, attention, rows, tokens), _scores(attention, rows, tokens)
        yield loaded.mlp - 4 * (2 * hidden + mlp.intermediate) * max(1, mlp.experts), _feed(hidden, mlp, rows), 0
    yield weights.norm, 0, 0
    yield weights.head - 4 * hidden, 2 * min(hidden * geometry.vocab, MAX_DEQUANTISED), 0


def _attention(hidden: int, attention: Attention, rows: int, tokens: int) -> int:
    q, kv = attention.q_width, attention.kv_width
    buffers = 2 * rows * (max(q, hidden) + q + 2 * kv) + 4 * SLACK
    expanded = 0 if attention.heads == attention.kv_heads else 4 * tokens * q + SLACK
    return buffers + expanded + 2 * min(hidden * max(q, kv), MAX_DEQUANTISED)


def _scores(attention: Attention, rows: int, tokens: int) -> int:
    scores = min(rows * rows, tokens * tokens) // (rows / FLASH_DIVISOR)
    return int(4 * scores * attention.heads) + SLACK


def _feed(hidden: int, mlp: Mlp, rows: int) -> int:
    if mlp.experts:
        buffers = 2 * rows * (2 * hidden + 2 * mlp.intermediate + mlp.experts) + 5 * SLACK
        return buffers + 2 * min(hidden * mlp.intermediate, MAX_DEQUANTISED)
    buffers = 2 * rows * (hidden + 2 * max(hidden, mlp.intermediate)) + 3 * SLACK
    return buffers + 2 * min(hidden * mlp.intermediate, MAX_DEQUANTISED)

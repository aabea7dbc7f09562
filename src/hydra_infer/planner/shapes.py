"""Which matrices and vectors every kind of layer is made of, before anyone says how many bits they take.

Sources: exllamav3 1.6.5, modules/attn.py, sliding_attn.py, mla_attn.py, dsv4.py, gated_delta_net.py, mamba2.py,
short_conv.py, mlp.py and block_sparse_mlp.py: names of tensors, groups that share a rate (qgroup), and which groups the
converter promotes first (q_priority).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import UnknownModel
from ..models.spec import Attention, Compressed, Feed, Latent, Mixer, Mlp, Recurrent, ShortConv

__all__ = ["Parts", "Shape", "feed_shapes", "mixer_shapes"]

# Only the order matters: attention before recurrence, blocks without a gate after it, everything else last.
ATTENTION, RECURRENT, UNGATED, REST = 3, 2, 1, 0

# exllamav3 1.6.5, constants.py: a wider feed-forward block is stored in slices.
MOST_COLUMNS = 55296

WORD = 2  # bytes of an element that is not quantised


@dataclass(frozen=True, slots=True)
class Shape:
    """A matrix of `rows` inputs and `columns` outputs, or `count` of them; "{expert}" in `name` stands for a number.

    `group` names those that have the same rate, whole bits only unless `half`; "" is for matrices that stay in 16 bit.
    """

    name: str
    rows: int
    columns: int
    group: str = ""
    priority: int = REST
    count: int = 1
    bias: bool = False
    half: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """The matrices of a mixer or a feed-forward block in the engine's order, and the bytes of everything else in it.

    `copies` are bytes the engine adds on the card: a routing gate exists transposed and as two 8-bit halves besides
    (block_sparse_mlp_routing.py, _gate_t).
    """

    shapes: tuple[Shape, ...]
    vectors: int = 0
    copies: int = 0


def mixer_shapes(mixer: Mixer, hidden: int) -> Parts:
    """The Parts of attention or recurrence."""
    if isinstance(mixer, Latent):
        return _latent(mixer, hidden)
    if isinstance(mixer, Recurrent):
        return RECURRENCES[mixer.form](mixer, hidden)
    if isinstance(mixer, ShortConv):
        return _convolution(mixer, hidden)
    if isinstance(mixer, Compressed):
        return _compressed(mixer, hidden)
    return _attention(mixer, hidden)


def feed_shapes(feed: Feed, hidden: int) -> Parts:
    """The Parts of a feed-forward block."""
    if max(feed.intermediate, feed.shared) > MOST_COLUMNS:
        raise UnknownModel(
            f"a feed-forward block of {feed.intermediate} columns is more than the planner covers ({MOST_COLUMNS})"
        )
    if feed.experts:
        return _experts(feed, hidden)
    priority = REST if feed.gated else UNGATED
    return Parts(_columns(feed, hidden, feed.intermediate, "", priority))


def _attention(mixer: Attention, hidden: int) -> Parts:
    q = mixer.q_width * (2 if mixer.gate == "query" else 1)
    inputs = [Shape("q_proj", hidden, q, "qkv", ATTENTION, bias=mixer.bias)]
    names = ("k_proj",) if mixer.no_values else ("k_proj", "v_proj")
    inputs += [Shape(name, hidden, mixer.kv_width, "qkv", ATTENTION, bias=mixer.bias) for name in names]
    inner = mixer.heads * (mixer.v_dim or mixer.head_dim)
    output = Shape(mixer.output, inner, hidden, "" if mixer.plain_output else "o", ATTENTION, bias=mixer.o_bias)
    gates = {
        "full": (Shape(mixer.gate_key, hidden, mixer.q_width, mixer.gate_key, ATTENTION),),
        "heads": (Shape(mixer.gate_key, hidden, mixer.heads),),
    }
    return Parts((*inputs, output, *gates.get(mixer.gate, ())), WORD * mixer.vectors)


def _latent(mixer: Latent, hidden: int) -> Parts:
    """The matrix that unfolds the latent stays in 16 bit, as do the small ones of an indexer."""
    shapes = []
    if mixer.q_rank is None:
        shapes.append(Shape("q_proj", hidden, mixer.q_width, "q_proj", ATTENTION))
    else:
        shapes.append(Shape("q_a_proj", hidden, mixer.q_rank, "q_a_proj", ATTENTION))
        shapes.append(Shape("q_b_proj", mixer.q_rank, mixer.q_width, "q_b_proj", ATTENTION))
    shapes.append(Shape("kv_a_proj_with_mqa", hidden, mixer.kv_rank + mixer.rope_dim, "kv_a_proj_with_mqa", ATTENTION))
    shapes.append(Shape("kv_b_proj", mixer.kv_rank, mixer.heads * (mixer.nope_dim + mixer.v_dim)))
    shapes.append(Shape(mixer.output, mixer.heads * mixer.v_dim, hidden, mixer.output, ATTENTION))
    if mixer.head_gate:
        shapes.append(Shape("g_proj", hidden, mixer.heads))
    vectors = (mixer.q_rank or 0) + mixer.kv_rank
    index = mixer.indexer
    if index is not None:
        width = index.heads * index.head_dim
        shapes.append(Shape("indexer.wq_b", mixer.q_rank or hidden, width, "indexer.wq_b", ATTENTION))
        shapes.append(Shape("indexer.wk", hidden, index.head_dim))
        shapes.append(Shape("indexer.weights_proj", hidden, index.heads))
        vectors += 2 * index.head_dim
        # What weighs the keys of a pool: a gate in 16 bit, and in 32 their places in it.
        vectors += index.head_dim * (hidden + 2 * index.pool) if index.pool else 0
    return Parts(tuple(shapes), WORD * vectors)


def _delta(mixer: Recurrent, hidden: int) -> Parts:
    """A_log is stored in 32 bit; the gates of one column per head are not quantised."""
    inner = mixer.v_heads * mixer.v_dim
    if mixer.form == "fused":
        inputs = [Shape("in_proj_qkvz", hidden, mixer.channels + inner, "qkvz", RECURRENT)]
        inputs.append(Shape("in_proj_ba", hidden, 2 * mixer.v_heads))
    else:
        z, b, a = ("g_proj", "b_proj", "a_proj") if mixer.form == "olmo" else ("in_proj_z", "in_proj_b", "in_proj_a")
        inputs = [
            Shape("in_proj_qkv", hidden, mixer.channels, "qkvz", RECURRENT),
            Shape(z, hidden, inner, "qkvz", RECURRENT),
            Shape(b, hidden, mixer.v_heads),
            Shape(a, hidden, mixer.v_heads),
        ]
    vectors = 4 * mixer.v_heads + WORD * (mixer.v_heads + mixer.channels * mixer.conv + mixer.v_dim)
    output = "o_proj" if mixer.form == "olmo" else "out_proj"
    return Parts((*inputs, Shape(output, inner, hidden, "o", RECURRENT)), vectors)


def _kda(mixer: Recurrent, hidden: int) -> Parts:
    """Gates to forget per channel and for the output: of low rank they stay in 16 bit, direct ones are quantised.

    Time steps are per channel too.
    """
    keys, inner = mixer.k_heads * mixer.k_dim, mixer.v_heads * mixer.v_dim
    gates: tuple[Shape, ...] = (
        Shape("f_a_proj", hidden, mixer.k_dim),
        Shape("f_b_proj", mixer.k_dim, keys),
        Shape("g_a_proj", hidden, mixer.v_dim),
        Shape("g_b_proj", mixer.v_dim, inner),
    )
    if mixer.form == "kda direct":
        gates = tuple(Shape(name, hidden, width, name, RECURRENT) for name, width in (("f_proj", keys), ("g_proj", inner)))
    shapes = (
        Shape("qkv_proj", hidden, mixer.channels, "qkvz", RECURRENT),
        Shape("b_proj", hidden, mixer.v_heads),
        *gates,
        Shape("o_proj", inner, hidden, "o", RECURRENT),
    )
    return Parts(shapes, 4 * mixer.v_heads + WORD * (keys + mixer.channels * mixer.conv + mixer.v_dim))


def _mamba(mixer: Recurrent, hidden: int) -> Parts:
    inner = mixer.v_heads * mixer.v_dim
    shapes = (
        Shape("in_proj", hidden, inner + mixer.channels + mixer.v_heads, "in", RECURRENT),
        Shape("out_proj", inner, hidden, "o", RECURRENT),
    )
    convolution = mixer.channels * (mixer.conv + int(mixer.conv_bias))
    return Parts(shapes, WORD * (3 * mixer.v_heads + convolution + inner))


def _compressed(mixer: Compressed, hidden: int) -> Parts:
    """Every matrix has a rate of its own, and no half bits; sinks and the positions of a compressor are 32-bit."""
    sides = [("wq_a", hidden, mixer.q_rank), ("wq_b", mixer.q_rank, mixer.q_width), ("wkv", hidden, mixer.head_dim)]
    sides += [(f"wo_a.slice.{group}", mixer.q_width // mixer.groups, mixer.o_rank) for group in range(mixer.groups)]
    sides.append(("wo_b", mixer.groups * mixer.o_rank, hidden))
    vectors = WORD * (mixer.q_rank + mixer.head_dim) + 4 * mixer.heads
    index, shapes = mixer.indexer, []
    if index is not None:
        sides.append(("indexer.wq_b", mixer.q_rank, index.heads * index.head_dim))
        shapes.append(Shape("indexer.weights_proj", hidden, index.heads))
    compressors = [("compressor", mixer.head_dim)] if mixer.rate else []
    compressors += [("indexer.compressor", index.head_dim)] if index is not None else []
    for name, width in compressors:
        wide = width * (1 if index is None else 2)
        sides += [(f"{name}.wkv", hidden, wide), (f"{name}.wgate", hidden, wide)]
        vectors += WORD * width + 4 * mixer.rate * wide
    quantised = [Shape(name, rows, columns, name, ATTENTION, half=False) for name, rows, columns in sides]
    return Parts((*quantised, *shapes), vectors)


def _convolution(mixer: ShortConv, hidden: int) -> Parts:
    """Not promoted: the engine gives it no priority."""
    shapes = (Shape("in_proj", hidden, 3 * mixer.width, "in"), Shape("out_proj", mixer.width, hidden, "out"))
    return Parts(shapes, WORD * mixer.width * mixer.conv)


def _experts(feed: Mlp, hidden: int) -> Parts:
    """The router, then a latent pair where there is one, then the experts at one rate, then the shared one."""
    width = feed.latent or hidden
    shapes = [Shape(feed.router, hidden, feed.experts, bias=feed.bias)]
    if feed.shared_gate:
        shapes.append(Shape("shared_expert_gate", hidden, 1))
    if feed.latent:
        shapes.append(Shape("fc1_latent_proj", hidden, feed.latent, "latent"))
        shapes.append(Shape("fc2_latent_proj", feed.latent, hidden, "latent"))
    each = _columns(feed, width, feed.intermediate, f"{feed.experts_key}.{{expert}}.", REST)
    shapes += [replace(shape, group="block_gud", count=feed.experts) for shape in each]
    if feed.shared:
        priority = REST if feed.gated else RECURRENT
        names = feed.shared_names or feed.names
        shapes += _columns(replace(feed, names=names), hidden, feed.shared, f"{feed.shared_key}.", priority)
    return Parts(tuple(shapes), feed.router_vectors, copies=2 * WORD * hidden * feed.experts)


def _columns(feed: Mlp, rows: int, columns: int, prefix: str, priority: int) -> tuple[Shape, ...]:
    """Up, gate and down, or up and down; those that go up share a rate."""
    up, gate, down = (prefix + name for name in feed.names)
    wide = [up, gate] if feed.gated else [up]
    shapes = [Shape(name, rows, columns, f"{prefix}up", priority, bias=feed.bias) for name in wide]
    return (*shapes, Shape(down, columns, rows, f"{prefix}down", priority, bias=feed.bias))


RECURRENCES = {"fused": _delta, "split": _delta, "olmo": _delta, "kda": _kda, "kda direct": _kda, "mamba": _mamba}

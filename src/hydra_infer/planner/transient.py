"""The working memory of one forward pass: what each engine holds besides weights and cache while a prompt is read.

Only the peak matters; the memory comes back after the pass. `rows` is the number of tokens in one chunk.
"""

from __future__ import annotations

from ..models.spec import Attention, Compressed, Geometry, Latent, Layer, Mixer, Mlp, Recurrent, ShortConv
from ..units import MIB, Size
from .cache import PAGE, CacheRate

__all__ = ["exllamav2", "exllamav3_head", "exllamav3_layer", "llamacpp"]

# exllamav3 1.6.5, modules/quant/exl3.py: a weight is turned back into fp16 in slices of this many columns.
SLICE_COLUMNS = 32768

# exllamav3 1.6.5, modules/attention_fn/triton_paged.py: pages of a quantised cache staged as fp16 in prefill, and the
# rows of one tile of its fp32 accumulator (modules/attn.py, autosplit_extra_measure).
STAGING_PAGES = 256
TILE_ROWS = 128

# exllamav3 1.6.5, modules/moe_batch_recon.py: experts per batch, bytes of weights and rows dequantised at once, padding.
RECON_EXPERTS = 16
RECON_BYTES = 256 * MIB
RECON_ROWS = 16384
RECON_PADDING = 1.1

# exllamav3 1.6.5, model/model.py: tokens whose logits are computed at once.
OUTPUT_ROWS = 32

# exllamav2 0.3.2, config.py: elements dequantised at once; for a feed-forward weight 1 GiB, for the head as well.
MAX_DEQUANTISED = 512 * MIB


def exllamav3_layer(geometry: Geometry, layer: Layer, rows: int, rate: CacheRate, quantised: bool) -> Size:
    """Peak of one transformer block in exllamav3 1.6.5 (modules/attn.py, mla_attn.py, mlp.py, block_sparse_mlp.py).

    The fp32 residual and the fp16 normed input are alive throughout; `quantised` weights are turned back into fp16 for
    chunks of more than 144 tokens.
    """
    hidden = geometry.hidden
    streams = rows * hidden * (4 + 2)
    peaks = [0]
    if layer.attention is not None:
        peaks.append(_mixer(hidden, layer.attention, rows, rate, quantised))
    if layer.mlp is not None:
        feed = _experts if layer.mlp.experts else _gated
        peaks.append(feed(hidden, layer.mlp, rows, layer.mlp.column_bytes, quantised))
    return Size(streams + max(peaks))


def _mixer(hidden: int, mixer: Mixer, rows: int, rate: CacheRate, quantised: bool) -> int:
    if isinstance(mixer, Latent):
        return _latent(hidden, mixer, rows, quantised)
    if isinstance(mixer, Recurrent):
        return _recurrent(hidden, mixer, rows, quantised)
    if isinstance(mixer, Compressed):
        return _compressed(hidden, mixer, rows, quantised)
    if isinstance(mixer, ShortConv):
        return rows * (2 * 5 * mixer.width + 4 * hidden) + (2 * 3 * hidden * mixer.width if quantised else 0)
    return _attention(hidden, mixer, rows, rate, quantised)


def _latent(hidden: int, mixer: Latent, rows: int, quantised: bool) -> int:
    """What its tensor-parallel plan counts per token: queries, their latent form, the output, and the new row itself."""
    per_row = mixer.q_width + mixer.heads * (2 * mixer.kv_rank + mixer.rope_dim + mixer.v_dim) + mixer.kv_rank + mixer.rope_dim
    widest = max((mixer.q_rank or hidden) * mixer.q_width, mixer.heads * mixer.v_dim * hidden)
    return rows * (2 * per_row + 4 * hidden) + (2 * widest if quantised else 0)


def _recurrent(hidden: int, mixer: Recurrent, rows: int, quantised: bool) -> int:
    """Projections and convolution in 32 bit, the output in 16: an estimate, nobody measured it."""
    widest = hidden * (mixer.channels + mixer.q_width)
    return rows * (4 * (2 * mixer.channels + mixer.q_width) + 2 * mixer.q_width + 4 * hidden) + (2 * widest if quantised else 0)


def _compressed(hidden: int, mixer: Compressed, rows: int, quantised: bool) -> int:
    """What its tensor-parallel plan counts per token: queries and the groups' outputs."""
    widest = max(mixer.q_rank * mixer.q_width, mixer.groups * mixer.o_rank * hidden)
    return rows * (2 * (mixer.q_width + mixer.groups * mixer.o_rank) + 4 * hidden) + (2 * widest if quantised else 0)


def _attention(hidden: int, attention: Attention, rows: int, rate: CacheRate, quantised: bool) -> int:
    q, kv = attention.q_width, attention.kv_width
    kept = rows * 2 * (2 * q + 2 * kv)  # q and the output, k and v, fp16
    output = rows * hidden * 4 + (2 * q * min(hidden, SLICE_COLUMNS) if quantised else 0)
    if rate.plain:
        return kept + output
    staged = 2 * STAGING_PAGES * PAGE * kv * 2
    padded_head = 1 << (attention.head_dim - 1).bit_length()
    accumulator = -(-rows // TILE_ROWS) * TILE_ROWS * attention.heads * padded_head * 4
    return kept + max(output, staged + accumulator)


def _gated(hidden: int, mlp: Mlp, rows: int, per_column: int, quantised: bool) -> int:
    weight = 2 * hidden * min(mlp.intermediate, SLICE_COLUMNS) if quantised else 0
    return weight + rows * (per_column * mlp.intermediate + 4 * hidden)


def _experts(hidden: int, mlp: Mlp, rows: int, per_column: int, quantised: bool) -> int:
    """The bound its loader reserves (`_prefill_bound`): sums per assignment, and one batch of dequantised experts."""
    width = -(-mlp.intermediate // 128) * 128
    assigned = rows * mlp.experts_per_token
    fixed = (rows + 1) * hidden * 4 + rows * hidden * 2 + (int(assigned * RECON_PADDING) + 1) * hidden * 4
    one = min(rows, assigned) * (per_column * width + 8 * hidden)
    if not quantised:
        return fixed + one
    together = max(1, min(RECON_EXPERTS, RECON_BYTES // (4 * hidden * width)))
    most = min(RECON_ROWS, assigned)
    batch_rows = min(together * most, RECON_ROWS, int(assigned * RECON_PADDING) + most)
    batched = 4 * together * hidden * width + batch_rows * (2 * hidden + per_column * width)
    return fixed + max(one, batched)


def exllamav3_head(geometry: Geometry, rows: int) -> Size:
    """Residual, normed input and fp16 logits of the few tokens whose logits are asked for."""
    output = min(rows, OUTPUT_ROWS)
    return Size(rows * geometry.hidden * (4 + 2) + output * geometry.vocab * 2)


def exllamav2(geometry: Geometry, rows: int, rate: CacheRate, tokens: int) -> Size:
    """Scratch exllamav2 0.3.2 allocates once per card, with its rotary tables and the fp16 copy of one cache layer.

    The scratch is the largest `scratch_space_fixed` of any module. Of a forward pass five fp16 hidden states are counted
    (residual, normed, q, output, result); that last term is an estimate, nobody measured it.
    """
    hidden = geometry.hidden
    head = 2 * min(hidden * geometry.vocab, MAX_DEQUANTISED)
    layers = geometry.plain_layers()
    scratch = max([head] + [_scratch(hidden, attention, mlp, rows) for attention, mlp in set(layers)])
    attention = layers[0][0]
    tables = 4 * tokens * attention.head_dim
    copy = 0 if rate.plain else 4 * tokens * attention.kv_width
    return Size(scratch + tables + copy + 5 * rows * hidden * 2)


def _scratch(hidden: int, attention: Attention, mlp: Mlp, rows: int) -> int:
    """exllamav2's mlp.py, moe_mlp.py and attn.py."""
    q, width, experts = attention.q_width, mlp.intermediate, mlp.experts
    attend = 2 * rows * max(q, hidden) + 2 * min(hidden * q, MAX_DEQUANTISED)
    weight = 2 * min(hidden * width, MAX_DEQUANTISED)
    if experts:
        feed = 2 * rows * (2 * hidden + 2 * width + experts) + weight
    else:
        feed = 2 * rows * (hidden + 2 * max(hidden, width)) + weight
    return max(attend, feed)


def llamacpp(geometry: Geometry, rows: int, slots: int, context: int, rate: CacheRate, on_gpu: bool) -> Size:
    """llama.cpp's compute buffer for micro-batches of `rows` tokens, and the output buffer.

    Measured, not read: with xllamacpp 2026.10.11549 on the CPU, the buffer of 19 models of made-up shapes was, per
    token, 4 x (5 hidden + 3 intermediate) bytes and the fp16 attention mask over one slot's context, to 0.2 % wherever
    intermediate > hidden; with experts 4 x (5 hidden + k hidden + 3 k intermediate) is an upper bound (0 to 43 % above).
    On a card a quantised cache is turned into fp16 one layer at a time (that part is inferred from published totals).
    """
    wide = max(_graph(geometry.hidden, layer.attention, layer.mlp) for layer in set(geometry.layers) if layer.mlp)
    mask = rows * context * 2
    cached = max(layer.attention.kv_width for layer in geometry.layers if layer.attention)
    copy = 2 * context * slots * 2 * cached if on_gpu and not rate.plain else 0
    return Size(rows * 4 * wide + mask + copy + slots * geometry.vocab * 4)


def _graph(hidden: int, mixer: Mixer | None, mlp: Mlp) -> int:
    used = mlp.experts_per_token
    feed = 5 * hidden + used * hidden + 3 * max(1, used) * mlp.intermediate
    return max(feed, 5 * mixer.q_width + hidden if mixer else 0)

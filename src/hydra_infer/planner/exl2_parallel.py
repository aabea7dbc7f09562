"""ExLlamaV2's tensor parallel: how much of every matrix each card gets, and what it takes there.

Source: exllamav2 0.3.2, tensor_p.py (TPContext.define_split and finalize), util.py (integer_split), linear.py, attn.py and mlp.py
(tp_split, scratch_space_tp), cache.py (ExLlamaV2Cache_TP), model.py (load_tp_gen). The loader never refuses for want of memory:
it divides by what it believes each card has, and runs out later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..models.spec import Attention, Geometry, Mlp, ModelSpec
from ..units import MIB, Size
from . import overhead
from .cache import CacheRate
from .request import Request
from .transient import MAX_DEQUANTISED
from .usage import DeviceUse, HostUse, Outcome
from .weights import Weights

__all__ = ["Shares", "divide", "lay_out", "scratch", "stored"]

# What its tensor-parallel paths run as the model means it: no expert layer has one (moe_mlp.py has no tp_split), Gemma's is
# refused (architecture.py, supports_tp), and the attention leaves out the norms of Qwen3's queries and keys (attn.py).
ARCHITECTURES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}

# The matrices of a layer that are divided.
LINEARS = (*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))

# TabbyAPI lets one pass put out so many tokens' logits; the engine alone as many as it reads.
TABBY_OUTPUT = 16

# What a matrix is stored in besides the columns that are divided: per row the map of groups (two 16 bit numbers) and the two
# permutations (16 bit each, which down_proj hands on to the matrices before it), per group of rows a scale and two numbers.
MAP_BYTES, PERMUTATION_BYTES, GROUP_BYTES, GROUP_ROWS = 4, 4, 6, 128


@dataclass(frozen=True, slots=True)
class Shares:
    """Per card: key and value heads, columns of the feed-forward block, of the hidden state and of the vocabulary.

    `enough` is False where the loader finds nothing left for the last three, which it divides by.
    """

    heads: tuple[int, ...]
    wide: tuple[int, ...]
    hidden: tuple[int, ...]
    vocab: tuple[int, ...]
    enough: bool = True


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One linear of a layer: its name, inputs and outputs, its outputs on each card, and whether it keeps its permutations."""

    name: str
    rows: int
    columns: int
    split: tuple[int, ...]
    permuted: bool = True

    @property
    def row_tables(self) -> int:
        """Bytes that every card with a part holds whole."""
        return self.rows * (MAP_BYTES + PERMUTATION_BYTES * self.permuted)


def divide(geometry: Geometry, weights: Weights, rate: CacheRate, memory: Sequence[int], *, tokens: int) -> Shares:
    """The shares of cards believed to have `memory` bytes each, with a cache of `tokens` tokens. All is counted in whole MiB."""
    attention, mlp = geometry.plain_layers()[0]
    left = [size / MIB for size in memory]
    heads = _whole_parts(attention.kv_heads, left)
    ratio = [share / attention.kv_heads for share in heads]
    bits = rate.k_bits + rate.v_bits
    taken = [bits / 8 * attention.kv_width * len(geometry.layers) * tokens, *_attention_bytes(geometry, weights)]
    for nbytes in taken:
        left = [max(0, size - int(nbytes * part / MIB)) for size, part in zip(left, ratio, strict=True)]
    enough = any(left)
    if not enough:
        left = [size / MIB for size in memory]
    return Shares(
        tuple(heads),
        tuple(part * 128 for part in _whole_parts(mlp.intermediate // 128, left, 2)),
        tuple(part * 32 for part in _whole_parts(geometry.hidden // 32, left, 8)),
        tuple(part * 32 for part in _whole_parts(-(-geometry.vocab // 32), left, 16)),
        enough,
    )


def _attention_bytes(geometry: Geometry, weights: Weights) -> Iterator[int]:
    """Every attention's weights without the group maps, which its count leaves out."""
    for (attention, _), loaded in zip(geometry.plain_layers(), weights.layers, strict=True):
        yield loaded.attention - 4 * (3 * geometry.hidden + attention.q_width)


def _whole_parts(total: int, weights: Sequence[float], least: int = 0) -> list[int]:
    """`total` in parts by `weights`; parts below `least` go, one by one, to the smallest of the others, or to the last."""
    whole = sum(weights)
    ideal = [total * weight / whole for weight in weights]
    parts = [int(part) for part in ideal]
    rest = [exact - part for exact, part in zip(ideal, parts, strict=True)]
    for _ in range(total - sum(parts)):
        first = rest.index(max(rest))
        parts[first] += 1
        rest[first] -= 1
    freed = sum(part for part in parts if part < least)
    parts = [part if part >= least else 0 for part in parts]
    kept = [index for index, part in enumerate(parts) if part] or [len(parts) - 1]
    for _ in range(freed):
        parts[min(kept, key=parts.__getitem__)] += 1
    return parts


def scratch(geometry: Geometry, shares: Shares, *, rows: int) -> list[int]:
    """Bytes of the buffer every card holds for good, for passes of `rows` tokens: the largest any module asks for there."""
    found = []
    attention, mlp = geometry.plain_layers()[0]
    for heads, wide, hidden, vocab in zip(shares.heads, shares.wide, shares.hidden, shares.vocab, strict=True):
        q, kv = heads * attention.heads // attention.kv_heads * attention.head_dim, heads * attention.head_dim
        attend = max(_dequantised(geometry.hidden, q), _dequantised(attention.q_width, q))
        attend += 2 * rows * ((3 * attention.q_width if q else 0) + 2 * q + 2 * kv)
        feed = max(_dequantised(geometry.hidden, wide), _dequantised(mlp.intermediate, hidden))
        gathered = (2 * geometry.hidden + hidden if hidden else 0) + (mlp.intermediate + 2 * wide if wide else 0)
        found.append(max(attend, feed + 2 * rows * gathered, _dequantised(geometry.hidden, vocab)))
    return found


def _dequantised(rows: int, columns: int) -> int:
    return 2 * min(rows * columns, MAX_DEQUANTISED)


def stored(spec: ModelSpec, weights: Weights, shares: Shares) -> list[int]:
    """Bytes of weights per card: matrices by columns, and whole on every card with a part their row tables and the norms."""
    geometry, cards = spec.geometry, range(len(shares.heads))
    sums = [0 for _ in cards]
    for index, ((attention, mlp), loaded) in enumerate(zip(geometry.plain_layers(), weights.layers, strict=True)):
        key = f"model.layers.{index}."
        attend, feed = _matrices(geometry.hidden, attention, mlp, shares)
        for part, total, norm in ((attend, loaded.attention, shares.heads), (feed, loaded.mlp, shares.hidden)):
            _add(sums, spec, key, part, total - 2 * geometry.hidden)
            _add_norm(sums, geometry.hidden, norm)
    head = _Matrix("lm_head", geometry.hidden, sum(shares.vocab), shares.vocab)
    _add(sums, spec, "", [head], weights.head)
    _add_norm(sums, geometry.hidden, shares.vocab)
    return sums


def _matrices(hidden: int, attention: Attention, mlp: Mlp, shares: Shares) -> tuple[list[_Matrix], list[_Matrix]]:
    kv = tuple(heads * attention.head_dim for heads in shares.heads)
    q = tuple(width * attention.heads // attention.kv_heads for width in kv)
    attend = [
        _Matrix("self_attn.q_proj", hidden, attention.q_width, q),
        _Matrix("self_attn.k_proj", hidden, attention.kv_width, kv),
        _Matrix("self_attn.v_proj", hidden, attention.kv_width, kv),
        _Matrix("self_attn.o_proj", attention.q_width, hidden, q),
    ]
    feed = [
        _Matrix("mlp.gate_proj", hidden, mlp.intermediate, shares.wide),
        _Matrix("mlp.up_proj", hidden, mlp.intermediate, shares.wide),
        _Matrix("mlp.down_proj", mlp.intermediate, hidden, shares.hidden, permuted=False),
    ]
    return attend, feed


def _add(sums: list[int], spec: ModelSpec, key: str, matrices: Sequence[_Matrix], total: int) -> None:
    """Add a module's matrices, of `total` bytes, to the cards; without a tensor table by their sizes alone."""
    elements = sum(one.rows * one.columns for one in matrices)
    rest = total - sum(one.rows * (MAP_BYTES + PERMUTATION_BYTES) + GROUP_BYTES * -(-one.rows // GROUP_ROWS) for one in matrices)
    for one in matrices:
        if spec.tensors:
            groups, divided = _tabled(spec, f"{key}{one.name}")
        else:
            groups, divided = GROUP_BYTES * -(-one.rows // GROUP_ROWS), rest * one.rows * one.columns // elements
        for card, columns in enumerate(one.split):
            sums[card] += one.row_tables + groups + divided * columns // one.columns if columns else 0


def _add_norm(sums: list[int], hidden: int, shares: Sequence[int]) -> None:
    for card, share in enumerate(shares):
        sums[card] += 2 * hidden if share else 0


def _tabled(spec: ModelSpec, name: str) -> tuple[int, int]:
    """What a matrix has per group of rows, and what is divided by columns."""
    groups = sum(spec.tensors[f"{name}.{part}"].nbytes for part in ("q_scale_max", "q_groups"))
    keys = [f"{name}.{part}" for part in ("q_weight", "q_scale", "bias")]
    return groups, sum(spec.tensors[key].nbytes for key in keys if key in spec.tensors)


def lay_out(request: Request, *, tokens: int, rows: int) -> Outcome:
    """Where every share lies, with `tokens` tokens of cache and passes of `rows` tokens.

    The loader knows no reserve: it divides all that is free, or gpu_split, which only balances and limits nothing. Raises
    ConfigError, with the reason, for what the engine does not run.
    """
    _refuse(request)
    geometry, weights, count = request.spec.geometry, request.weights, len(request.gpus)
    memory = [int(gpu.free) // MIB * MIB for gpu in request.gpus]
    if request.gpu_split is not None:
        memory = [*request.gpu_split, *[0] * (count - len(request.gpu_split))]
    if not any(memory):
        raise ConfigError("no card has any memory to split a model over", hint="free the cards")
    shares = divide(geometry, weights, request.rate, memory, tokens=tokens)
    loaded, buffers = stored(request.spec, weights, shares), scratch(geometry, shares, rows=rows)
    first = next(card for card, size in enumerate(loaded) if size)
    devices = []
    for card, (gpu, size) in enumerate(zip(request.gpus, loaded, strict=True)):
        kv = shares.heads[card] * geometry.plain_layers()[0][0].head_dim
        cache = request.rate.nbytes(kv, tokens) * len(geometry.layers)
        working = _working(geometry, request.rate, tokens=tokens, rows=rows, kv_width=kv)
        if card == first:
            # Every module lands here whole before it is divided, at worst the largest last; there is no cache yet.
            working = max(working, max(weights.head, *(layer.mlp for layer in weights.layers)) - cache)
        allowed = None if shares.enough else Size(memory[card])
        use = _device(request, card, rows, cache=cache, working=buffers[card] + working, weights=size, allowed=allowed)
        devices.append(use if size else DeviceUse(gpu))
    paste = None if request.gpu_split is None else tuple(size.gib for size in request.gpu_split)
    return Outcome("tensor", tuple(devices), _host(request, rows), tokens, paste)


def _device(request: Request, card: int, rows: int, *, weights: int, cache: int, working: int, allowed: Size | None) -> DeviceUse:
    gpu, geometry = request.gpus[card], request.spec.geometry
    return DeviceUse(
        gpu,
        weights=Size(weights),
        cache=Size(cache),
        transient=Size(working),
        overhead_range=overhead.exllamav2(gpu, geometry, rows),
        reserve=request.reserved(card) or Size(0),
        allowed=allowed,
        layers=len(geometry.layers),
    )


def _working(geometry: Geometry, rate: CacheRate, *, tokens: int, rows: int, kv_width: int) -> int:
    """Rotary tables, twice (device.py and tensor_p.py, get_sin_cos), the fp16 copy of a cache layer, five hidden states.

    The hidden states are an estimate, the one transient.exllamav2 makes: nobody measured them.
    """
    tables = 2 * 4 * tokens * geometry.plain_layers()[0][0].head_dim
    copy = 0 if rate.plain else 4 * tokens * kv_width
    return tables + copy + 5 * rows * geometry.hidden * 2


def _host(request: Request, rows: int) -> HostUse:
    """The embedding, and two pinned buffers that every hidden state and the logits go through."""
    geometry = request.spec.geometry
    outputs = min(rows, TABBY_OUTPUT) if request.engine == "tabby" else rows
    widest = max(outputs * geometry.vocab, rows * geometry.plain_layers()[0][1].intermediate)
    return HostUse(weights=request.weights.embedding, transient=Size(2 * 2 * widest), available=request.ram)


def _refuse(request: Request) -> None:
    geometry, hint = request.spec.geometry, "split='layers' works"
    if len(request.gpus) < 2:
        raise ConfigError("split='tensor' needs two cards or more", hint="leave split= out")
    if geometry.architecture not in ARCHITECTURES:
        raise ConfigError(f"exllamav2 does not run {geometry.architecture} tensor parallel", hint=hint)
    kinds = set(geometry.plain_layers())
    attention, mlp = geometry.plain_layers()[0]
    if len(kinds) > 1:
        raise ConfigError(f"exllamav2 splits all layers alike, and {request.spec.name} has {len(kinds)} kinds of them", hint=hint)
    if mlp.intermediate % 128:
        raise ConfigError(f"exllamav2 splits blocks of 128 columns, and intermediate_size is {mlp.intermediate}", hint=hint)
    if attention.q_width != geometry.hidden or geometry.hidden % 32:
        raise ConfigError(
            f"exllamav2 divides an output projection by heads: {attention.heads} x {attention.head_dim} must be the hidden size, "
            f"{geometry.hidden}, and that a multiple of 32",
            hint=hint,
        )
    if request.spec.tensors:
        _refuse_unquantised(request.spec)


def _refuse_unquantised(spec: ModelSpec) -> None:
    """A matrix in 16 bit, such as a head that is the embedding, has no columns that it could divide (linear.py, tp_split)."""
    for index in range(len(spec.geometry.layers)):
        for name in LINEARS:
            _refuse_plain(spec, f"model.layers.{index}.{name}")
    _refuse_plain(spec, "lm_head")


def _refuse_plain(spec: ModelSpec, name: str) -> None:
    for part in ("q_weight", "q_scale", "q_scale_max", "q_groups"):
        if f"{name}.{part}" not in spec.tensors:
            raise ConfigError(f"exllamav2 divides EXL2 matrices only, and {name} has no {part}", hint="split='layers' works")

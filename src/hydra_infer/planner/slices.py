"""What ExLlamaV3's tensor parallel can divide every module into, and which models it does not run at all.

Source: exllamav3 1.6.5, the make_tp_allocation of modules/attn.py, sliding_attn.py, mla_attn.py, dsv4.py,
gated_delta_net.py, mamba2.py, mlp.py, block_sparse_mlp.py, linear.py and rmsnorm.py, and `supports_tp` in architecture/*.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import ConfigError
from ..models.spec import Attention, Compressed, Geometry, Latent, Mlp, Recurrent, ShortConv
from .cache import CacheRate, cache_bytes
from .modules import Matrix, Module, Part
from .state import state_bytes
from .tensor import Experts, Unit

__all__ = ["cannot", "units_of"]

# A quantised matrix can only be cut at multiples of this many columns.
CUT = 128

# "Tensor-parallel is not currently implemented for ..." (architecture/*.py, supports_tp False). The last two could with
# the full cache that `swa_full` gives their windows; what is planned is the default, a ring.
REFUSED = frozenset(
    """
    DFlashDraftModel DFlash2DraftModel DFlashLagunaForCausalLM Gemma4AssistantForCausalLM Glm4MoeLiteForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration MuseGlimmerAssistantModel Olmo3ForCausalLM
    OlmoHybridForCausalLM Qwen3NextForCausalLM AfmoeForCausalLM MuseGlimmerForConditionalGeneration
    """.split()
)

# This one is two models under one name: the newer, with latent attention, is not implemented either (mistral4.py).
REFUSED_LATENT = "Mistral3ForConditionalGeneration"

# Whose attention, feed-forward block, and norms after a part are not in the usual width (32, 32 and 16 bit; architecture/*.py).
HALF_ATTENTION = ("Gemma2", "Gemma3", "Gemma4", "Exaone4", "Laguna", "MiMoV2")
HALF_FEED = ("Gemma2", "Gemma3", "DeciLM")
NORMED_SHARED = ("Gemma4",)  # the shared expert has a norm of its own behind it
FLOAT_AFTER = ("Gemma2", "Gemma3", "Gemma4", "Glm4F", "HyperCLOVAX")


def units_of(
    modules: Sequence[Module], geometry: Geometry, rate: CacheRate, *, tokens: int, slots: int, history: int = 0
) -> list[Unit]:
    """The Units of a model with a cache of `tokens` tokens and states for `slots` sequences, in loading order.

    For models that `cannot` says nothing against.
    """
    builder = _Builder(geometry, rate, tokens, slots, history)
    return [unit for module in modules if not module.in_ram for unit in builder.units(module)]


def cannot(geometry: Geometry) -> ConfigError | None:
    """Why ExLlamaV3 does not run a model tensor parallel, in its own terms; None where it does."""
    reason = None
    mixers = {layer.attention for layer in geometry.layers if layer.attention}
    latent = any(isinstance(mixer, Latent) for mixer in mixers)
    if geometry.architecture in REFUSED or (latent and geometry.architecture == REFUSED_LATENT):
        reason = "it is not implemented for this architecture"
    for mixer in mixers:
        if isinstance(mixer, Recurrent) and mixer.form == "kda direct":
            reason = "its gates of full rank are not divided"
        if isinstance(mixer, Latent | ShortConv | Compressed):
            continue  # stays whole, or is divided by groups of heads
        heads = mixer.kv_heads if isinstance(mixer, Attention) else mixer.k_heads
        if heads % _width(mixer):
            reason = f"its {heads} heads of keys and values do not divide into multiples of {CUT} columns"
    if reason is None:
        return None
    return ConfigError(f"exllamav3 does not run {geometry.architecture} tensor parallel: {reason}", hint="split='layers' works")


def _width(mixer: Attention | Recurrent) -> int:
    """How many heads stay together, so that every cut is at a multiple of 128 columns; doubled until it is."""
    widths = [mixer.head_dim] if isinstance(mixer, Attention) else [mixer.k_dim]
    if isinstance(mixer, Recurrent):
        # Mamba cuts between its groups, Gated DeltaNet between key heads, and then a value head has to fit by itself.
        widths.append(mixer.v_heads // mixer.k_heads * mixer.v_dim if mixer.form == "mamba" else mixer.v_dim)
    together = 1
    while any(together * width % CUT for width in widths):
        together *= 2
        if together > CUT:
            return together
    return together


class _Builder:
    """Turns the parts of a module into Units; knows what the whole model has in common."""

    def __init__(self, geometry: Geometry, rate: CacheRate, tokens: int, slots: int, history: int) -> None:
        self._geometry, self._rate = geometry, rate
        self._tokens, self._slots, self._history = tokens, slots, history
        self._leader = ""
        name = geometry.architecture
        self._attention_out = geometry.hidden * (2 if name.startswith(HALF_ATTENTION) else 4)
        self._feed_out = geometry.hidden * (2 if name.startswith(HALF_FEED) else 4)
        self._normed_shared = name.startswith(NORMED_SHARED)
        self._after = 4 if name.startswith(FLOAT_AFTER) else 2

    def units(self, module: Module) -> Iterator[Unit]:
        parts = [part for part in module.parts if part.kind != "other"]
        for index, part in enumerate(parts):
            if part.kind == "norm":
                # One that closes a part: behind it, and not before another part.
                following = parts[index + 1].kind if index + 1 < len(parts) else "norm"
                closes = index > 0 and parts[index - 1].kind != "norm" and following == "norm"
                wide = self._after if closes else 2
                yield Unit(part.key, every=part.vectors, token_every=part.vectors // 2 * wide)
            elif part.mixer is not None:
                yield self._mixer(part)
            elif part.feed is not None:
                yield from self._feed(part, part.feed)
            else:
                yield _head(part)

    def _mixer(self, part: Part) -> Unit:
        mixer = part.mixer
        if isinstance(mixer, Latent):
            return self._latent(part, mixer)
        if isinstance(mixer, Recurrent):
            return self._recurrent(part, mixer)
        if isinstance(mixer, Compressed):
            return self._compressed(part, mixer)
        assert isinstance(mixer, Attention)
        width = _width(mixer)
        staged = 0 if self._rate.plain or mixer.ring else 4 * mixer.kv_width
        # Only sliding_attn.py counts a gate's own projection.
        counted = [one for one in part.matrices if mixer.ring or one.name != mixer.gate_key]
        return Unit(
            part.key,
            weights=_stored(counted),
            cache=cache_bytes(mixer, self._rate, self._tokens),
            state=state_bytes(mixer, self._slots, self._history),
            shares=mixer.kv_heads // width,
            width=width,
            word="heads",
            token_every=self._attention_out,
            token_shared=staged + 4 * mixer.q_width + 4 * mixer.kv_width,
            dequantised=_dequantised(part.matrices),
        )

    def _latent(self, part: Part, mixer: Latent) -> Unit:
        """Whole on one card; layers that read another's index stay with it."""
        if mixer.indexer is not None:
            self._leader = part.key
        quantised = 0 if self._rate.plain else round(mixer.kv_rank * self._rate.k_bits / 8)
        per_head = mixer.nope_dim + 2 * mixer.rope_dim + 2 * mixer.kv_rank + mixer.v_dim
        return Unit(
            part.key,
            weights=_stored(part.matrices) + part.vectors,
            cache=cache_bytes(mixer, self._rate, self._tokens),
            # Where queries go through a low rank its list has q_b_proj under two names (mla_attn.py, _tp_submodules).
            twice=sum(one.nbytes for one in part.matrices if one.name == "q_b_proj"),
            width=mixer.heads,
            word="heads",
            token_every=self._attention_out,
            token_shared=quantised + 2 * mixer.heads * per_head + 2 * (mixer.kv_rank + mixer.rope_dim),
            dequantised=max(2 * one.rows * one.columns for one in part.matrices if one.name != "kv_b_proj"),
            whole=True,
            together=self._leader,
        )

    def _recurrent(self, part: Part, mixer: Recurrent) -> Unit:
        mamba = mixer.form == "mamba"
        width = _width(mixer)
        inner = mixer.v_heads * mixer.v_dim
        if mamba:
            per_token = 4 * (inner + mixer.channels + mixer.v_heads + mixer.channels)
        else:
            per_token = 4 * mixer.k_heads * mixer.k_dim + 4 * inner
        # The sides of low rank that make a gate narrow are on every card.
        kept = [one for one in part.matrices if one.name in ("f_a_proj", "g_a_proj")]
        divided = [one for one in part.matrices if one not in kept]
        return Unit(
            part.key,
            every=_stored(kept),
            weights=_stored(divided),
            cache=cache_bytes(mixer, self._rate, self._tokens),
            state=state_bytes(mixer, self._slots, self._history),
            shares=mixer.k_heads // width,
            width=width,
            word="K-heads",
            token_every=self._geometry.hidden * 4,
            token_shared=per_token,
            dequantised=_dequantised(divided),
        )

    def _compressed(self, part: Part, mixer: Compressed) -> Unit:
        """Queries and outputs are divided between the output groups; keys, compressors and all caches are on every card."""
        divided = [one for one in part.matrices if one.name in ("wq_b", "wo_b") or one.name.startswith("wo_a.")]
        return Unit(
            part.key,
            every=_stored([one for one in part.matrices if one not in divided]),
            cache_every=cache_bytes(mixer, self._rate, self._tokens),
            state_every=state_bytes(mixer, self._slots, self._history),
            weights=_stored(divided),
            shares=mixer.groups,
            word="heads",
            token_every=self._attention_out,
            token_shared=2 * mixer.q_width + 2 * mixer.groups * mixer.o_rank,
            dequantised=_dequantised([*divided, *(one for one in part.matrices if one.name == "wq_a")]),
        )

    def _feed(self, part: Part, feed: Mlp) -> Iterator[Unit]:
        if not feed.experts:
            yield self._columns(part.key, part.matrices, feed.intermediate, feed.column_bytes)
            return
        shared = [one for one in part.matrices if feed.shared and one.name.startswith(f"{feed.shared_key}.")]
        yield self._experts(part, feed, [one for one in part.matrices if one not in shared])
        if shared:
            # Of the shared expert only gated ones are held in 16 bit throughout (architecture/*.py, interm_dtype).
            unit = self._columns(
                f"{part.key}.{feed.shared_key}", shared, feed.shared, feed.shared_column_bytes or (4 if feed.gated else 6)
            )
            # block_sparse_mlp.py, shared_coop_ok: run as one more expert, and then on one card.
            fused = feed.gated and not feed.latent and not self._normed_shared and all(one.quantised for one in shared)
            yield replace(unit, whole=fused)

    def _columns(self, key: str, matrices: Sequence[Matrix], columns: int, per_column: int) -> Unit:
        return Unit(
            key,
            weights=_stored(matrices),
            shares=matrices[0].columns // CUT,
            width=CUT,
            word="channels",
            token_every=self._feed_out,
            token_shared=per_column * columns,
            dequantised=_dequantised(matrices),
        )

    def _experts(self, part: Part, feed: Mlp, matrices: Sequence[Matrix]) -> Unit:
        """Whole experts; the router is on every card three times, the projections of a latent once."""
        of_experts = [one for one in matrices if one.count > 1]
        router = [one for one in matrices if one.name == feed.router]
        latent = [one for one in matrices if one.name.startswith("fc")]
        gate = [one for one in matrices if one.name == "shared_expert_gate"]
        working = Experts(
            hidden=feed.latent or self._geometry.hidden,
            columns=of_experts[0].columns,
            per_token=feed.experts_per_token,
            fp32=feed.column_bytes == 10,
            fp16=feed.column_bytes == 4,
            gated=feed.gated,
            batched=of_experts[0].quantised,
        )
        above = feed.experts_key.rpartition(".")[0]
        return Unit(
            f"{part.key}.{above}" if above else part.key,
            every=3 * _stored(router) + _stored(latent),
            weights=_stored(of_experts) + _stored(gate),
            shares=feed.experts,
            word="experts",
            token_every=48 * feed.experts_per_token,
            dequantised=_dequantised(of_experts),
            experts=working,
        )


def _head(part: Part) -> Unit:
    matrix = part.matrices[0]
    return Unit(
        part.key,
        weights=_stored(part.matrices),
        shares=matrix.columns // CUT,
        width=CUT,
        word="channels",
        token_every=2 * matrix.columns,
        token_shared=2 * matrix.columns,
        dequantised=_dequantised(part.matrices),
    )


def _stored(matrices: Sequence[Matrix]) -> int:
    """What the allocator counts: EXL3 as it is in the file, others as padded 16 bit without a bias (modules/linear.py)."""
    return sum(one.nbytes if one.quantised else 2 * one.rows * one.columns * one.count for one in matrices)


def _dequantised(matrices: Sequence[Matrix]) -> int:
    """The largest matrix in 16 bit."""
    return max(2 * one.rows * one.columns for one in matrices)
